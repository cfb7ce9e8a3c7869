"""ForestColl's plans (Zhao et al., 2024): throughput-optimal trees with every rank the root of an equal share.

The all-gather's trees come from the exact packer, which meets the bound that ForestColl proves optimal; a reduce-scatter
takes trees towards the roots, and an all-reduce is one after the other, chunk by chunk. Its schedules run as thread blocks of MSCCL, which
are not held to NCCL's 32 channels, and nor are these: trees of unequal roots need many.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ...errors import PackingError, ScheduleError, SimulationError
from ...packing import Plan, make_plan
from ...schedules.forests import lower_forest_allreduce
from ...schedules.lower import lower
from ...schedules.program import Program
from ...schedules.trees import lower_trees
from ...schedules.verifier import verify
from ...topology import Topology

COLLECTIVES = ("allreduce", "allgather", "reducescatter")
#: A V100 has so many multiprocessors (NVIDIA Tesla V100 GPU Architecture, 2017): a channel each runs at once.
MOST_CHANNELS = 80


def forestcoll(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """The program of the optimal trees.

    Raises
    ------
    SimulationError
        Where there is no plan, or its trees do not fit a program.
    """
    del root, nbytes  # none has a root; the same at every size
    try:
        return _built(topology, collective)
    except (PackingError, ScheduleError) as error:
        raise SimulationError(f"forestcoll: {error}") from error


@lru_cache(maxsize=64)
def _built(topology: Topology, collective: str) -> Program:
    if collective != "allreduce":
        return _proven(lower(make_plan(topology, collective, method="exact"), max_channels=MOST_CHANNELS))
    down = make_plan(topology, "allgather", method="exact")
    if _symmetric(topology) and 2 * len(down.trees) <= MOST_CHANNELS:
        program = lower_trees(_both_ways(down), max_channels=MOST_CHANNELS)
    else:
        program = lower_forest_allreduce(make_plan(topology, "reducescatter", method="exact"), down, max_channels=MOST_CHANNELS)
    return _proven(program)


def _proven(program: Program) -> Program:
    """The program under the baseline's name."""
    named = replace(program, algorithm="forestcoll")
    verify(named, repeated=True)
    return named


def _symmetric(topology: Topology) -> bool:
    capacities = topology.capacities()
    return all(capacities.get((b, a)) == gb_s for (a, b), gb_s in capacities.items())


def _both_ways(down: Plan) -> Plan:
    """The all-reduce of an all-gather's trees, each walked towards its root first: optimal where links are the same both ways.

    Every link carries sums as well as results: the rate is half, or more where no link is full both ways.
    """
    trees = tuple(
        replace(t, rate=t.rate / 2, up=tuple(tuple(reversed(path)) for path in t.down or ())) for t in down.trees
    )
    return replace(down, collective="allreduce", rate=down.rate / 2, bound=down.bound / 2, bound_all=down.bound_all / 2, trees=trees)
