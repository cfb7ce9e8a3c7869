"""A barrier by dissemination: in round k every rank tells the one 2^k further on (Hensgen, Finkel and Manber, IJPP 1988)."""

from __future__ import annotations

from ..topology import Topology, route
from .program import Channel, Connection, Program, Step


def lower_barrier(topology: Topology, *, slots: int = 1) -> Program:
    """The program after which no rank leaves before every rank has come.

    With more than one of its ``slots``, which hold nothing, a rank seldom has to look whether the others have seen its
    earlier signals.

    Raises
    ------
    TopologyError
        Where nothing leads from a rank to one that it has to tell.
    """
    n = topology.nranks
    connections: list[Connection] = []
    steps: list[list[Step]] = [[] for _ in range(n)]
    distance = 1
    while distance < n:
        first = len(connections)
        for rank in range(n):
            connections.append(Connection(rank, (rank + distance) % n, route(topology, rank, (rank + distance) % n), slots))
        for rank in range(n):
            tells, hears = first + rank, first + (rank - distance) % n
            steps[rank].append(Step("nop", 0, wait=(tells,), signal=(tells,)))
            steps[rank].append(Step("nop", 0, wait=(hears,), signal=(hears,)))
        distance *= 2
    channels = tuple((Channel(tuple(of_rank or [Step("nop", 0)])),) for of_rank in steps)
    return Program("dissemination", "barrier", topology, 1, (1,), tuple(connections), channels)
