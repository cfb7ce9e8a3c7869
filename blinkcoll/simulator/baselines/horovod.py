"""Horovod's hierarchical all-reduce (``NCCLHierarchicalAllreduce`` in horovod/common/ops/nccl_operations.cc).

NCCL reduce-scatter inside each server, MPI all-reduce of each part across servers, NCCL all-gather inside. NCCL's part goes
round the rings of its own search on one server; MPI's round a ring of the servers, from GPU to GPU (Horovod copies through
host memory). On one server nothing is left to do across: a reduce-scatter and an all-gather round NCCL's rings remain.
"""

from __future__ import annotations

from functools import lru_cache

from ...errors import ScheduleError, SimulationError
from ...schedules.hierarchical import lower_hierarchical
from ...schedules.program import Program
from ...topology import Topology
from .nccl import search


def horovod(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """The all-reduce inside servers, across them and inside again.

    Raises
    ------
    SimulationError
        Where servers hold unequal numbers of ranks, GPUs that NCCL connects differently, or are too many.
    TopologyError
        Where NCCL cannot be searched for, or nothing leads from a rank to the next.
    """
    del collective, root, nbytes  # all-reduce alone, the same at every size
    return _built(topology)


@lru_cache(maxsize=64)
def _built(topology: Topology) -> Program:
    of_server: dict[int, list[int]] = {}
    for rank, device in enumerate(topology.devices):
        of_server.setdefault(device.server, []).append(rank)
    servers = [of_server[s] for s in sorted(of_server)]
    sizes = {len(ranks) for ranks in servers}
    if len(sizes) > 1:
        raise SimulationError(f"horovod: its reduce-scatter needs equally many ranks on every server, here are {', '.join(map(str, sorted(sizes)))}")
    rings = [_rings(topology, ranks) for ranks in servers]
    if any(r != rings[0] for r in rings):
        raise SimulationError("horovod: NCCL finds other rings on one server than on another; there is no program for that")
    try:
        return lower_hierarchical(topology, servers, rings[0], algorithm="horovod")
    except ScheduleError as error:
        raise SimulationError(f"horovod: {error}") from error


def _rings(topology: Topology, ranks: list[int]) -> tuple[tuple[int, ...], ...]:
    """The rings that NCCL runs on one server, as places in ``ranks``; each twice, as it runs them."""
    if len(ranks) == 1:
        return ((0,),)
    plan = search(topology.subset([topology.devices[rank].name for rank in ranks]))
    return tuple(plan.rings[c % plan.common_channels] for c in range(plan.nchannels_run))
