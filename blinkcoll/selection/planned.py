"""Plans that several families of candidates start from: each is made once."""

from __future__ import annotations

from functools import lru_cache

from ..packing import Plan, make_plan
from ..topology import Topology


@lru_cache(maxsize=64)
def default_plan(topology: Topology, collective: str, root: int | None = None) -> Plan:
    """What :func:`blinkcoll.packing.make_plan` makes by default; raises what it raises."""
    return make_plan(topology, collective, root=root)
