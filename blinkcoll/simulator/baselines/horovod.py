"""Horovod's hierarchical all-reduce (``NCCLHierarchicalAllreduce`` in horovod/common/ops/nccl_operations.cc).

NCCL reduce-scatter inside each server, MPI all-reduce of each part across servers, NCCL all-gather inside. NCCL's part goes
round the rings of its own search on one server (where a hop crosses a GPU, that GPU copies on); MPI's round a ring of the
servers, from GPU to GPU (Horovod copies through host memory). On one server nothing is left to do across: a reduce-scatter
and an all-gather round NCCL's rings remain. The three phases are one program, so that a chunk may be in one phase while
another channel's is in the next; Horovod's are calls, each over before the next begins.
"""

from __future__ import annotations

from functools import lru_cache

from ...errors import ScheduleError, SimulationError
from ...schedules.hierarchical import lower_hierarchical
from ...schedules.program import Program
from ...topology import Topology
from .nccl import search
from .nccl.programs import cross_by_copy


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
    found = [_inside(topology, ranks) for ranks in servers]
    if any(other != found[0] for other in found):
        raise SimulationError("horovod: NCCL finds other rings on one server than on another; there is no program for that")
    rings, crossings = found[0]
    try:
        program = lower_hierarchical(topology, servers, rings, algorithm="horovod")
    except ScheduleError as error:
        raise SimulationError(f"horovod: {error}") from error
    place = {rank: (s, p) for s, ranks in enumerate(servers) for p, rank in enumerate(ranks)}
    crossed: dict[int, int] = {}
    for i, connection in enumerate(program.connections):
        (here, a), (there, b) = place[connection.src], place[connection.dst]
        if here == there and (a, b) in crossings:
            crossed[i] = servers[here][crossings[a, b]]
    return cross_by_copy(program, crossed)


def _inside(topology: Topology, ranks: list[int]) -> tuple[tuple[tuple[int, ...], ...], dict[tuple[int, int], int]]:
    """The rings that NCCL runs on one server (each twice, as it runs them) and the GPUs they cross, as places in ``ranks``."""
    if len(ranks) == 1:
        return ((0,),), {}
    plan = search(topology.subset([topology.devices[rank].name for rank in ranks]))
    return tuple(plan.rings[c % plan.common_channels] for c in range(plan.nchannels_run)), plan.crossings
