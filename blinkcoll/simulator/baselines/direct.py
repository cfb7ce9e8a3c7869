"""Direct all-reduce: every rank exchanges with every other, in one exchange or in two, by size.

The sizes are those of vLLM's custom all-reduce (``csrc/custom_all_reduce.cuh``, ``CustomAllreduce::allreduce``): one
exchange between two ranks, below 512 KiB up to four ranks and below 256 KiB up to eight; else two. vLLM itself steps
aside where more than two GPUs are not all joined by NVLink; here such pairs exchange over the switches between them.
"""

from __future__ import annotations

from functools import lru_cache

from ...errors import SimulationError
from ...schedules.oneshot import lower_one_shot
from ...schedules.program import Program
from ...schedules.twoshot import lower_two_shot
from ...topology import Topology
from .channels import copies

#: (most ranks, from how many bytes on two exchanges are made).
TWO_SHOT_FROM = ((4, 512 << 10), (8, 256 << 10))


def direct(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """The all-reduce of one exchange or of two.

    Raises
    ------
    SimulationError
        Where some pair may not access each other's memory.
    TopologyError
        Where nothing leads from a rank to another.
    """
    del collective, root  # all-reduce alone
    if topology.no_peer_access:
        a, b = topology.no_peer_access[0]
        raise SimulationError(f"direct: {a} and {b} cannot access each other's memory, which every pair must")
    return _built(topology, one_shot(topology.nranks, nbytes))


def one_shot(nranks: int, nbytes: int) -> bool:
    """Whether so many ranks take a single exchange for ``nbytes``."""
    return nranks <= 2 or any(nranks <= most and nbytes < limit for most, limit in TWO_SHOT_FROM)


@lru_cache(maxsize=64)
def _built(topology: Topology, once: bool) -> Program:
    return lower_one_shot(topology, shares=copies(topology)) if once else lower_two_shot(topology, shares=copies(topology))
