"""ForestColl's plans (Zhao et al., 2024): throughput-optimal trees with every rank the root of an equal share.

The all-gather's trees come from the exact packer, which meets the bound that ForestColl proves optimal; a reduce-scatter
takes trees towards the roots, and an all-reduce is one after the other.
"""

from __future__ import annotations

from functools import lru_cache

from ...errors import PackingError, ScheduleError, SimulationError
from ...packing import make_plan
from ...schedules.forests import lower_forest_allreduce
from ...schedules.lower import lower
from ...schedules.program import Program
from ...topology import Topology

COLLECTIVES = ("allreduce", "allgather", "reducescatter")


def forestcoll(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """The program of the optimal trees.

    Raises
    ------
    SimulationError
        Where there is no plan, or its trees do not fit a program.
    """
    del root, nbytes  # none has a root; the same at every size
    return _built(topology, collective)


@lru_cache(maxsize=64)
def _built(topology: Topology, collective: str) -> Program:
    try:
        if collective == "allreduce":
            return lower_forest_allreduce(make_plan(topology, "reducescatter", method="exact"), make_plan(topology, "allgather", method="exact"))
        return lower(make_plan(topology, collective, method="exact"))
    except (PackingError, ScheduleError) as error:
        raise SimulationError(f"forestcoll: {error}") from error
