"""Ring all-reduce: reduce-scatter then all-gather around cycles of ranks (Patarasuk and Yuan, JPDC 2009).

The buffer is cut into one shard a rank; shard s starts at the rank at position s of the cycle, is added to at every
hop, is complete after n - 1 hops and travels on for n - 1 more. Each cycle carries one share.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ScheduleError
from ..topology import Topology, route
from .program import INPUT, OUTPUT, Channel, Connection, Program, Step, slot


def lower_rings(topology: Topology, orders: Sequence[Sequence[int]], *, algorithm: str = "ring", slots: int = 4, chunk_bytes: int = 1 << 19) -> Program:
    """The all-reduce program that sends an equal share around each of ``orders``.

    Parameters
    ----------
    orders
        Cyclic orders of all ranks; a hop without a direct link goes the way that ``topology`` routes it.

    Raises
    ------
    ScheduleError
        Where an order is not a permutation of the ranks.
    TopologyError
        Where nothing leads from a rank to the next.
    """
    n = topology.nranks
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(n)]
    for share, order in enumerate(orders):
        if sorted(order) != list(range(n)):
            raise ScheduleError(f"a ring must visit each of the ranks 0..{n - 1} once, got {list(order)}")
        first = len(connections)
        for position, rank in enumerate(order if n > 1 else ()):
            after = order[(position + 1) % n]
            connections.append(Connection(rank, after, route(topology, rank, after), slots))
        for position, rank in enumerate(order):
            arrives, leaves = first + (position - 1) % n, first + position
            channels[rank].append(Channel(_steps(n, position, share, arrives, leaves)))
    return Program(
        algorithm=algorithm,
        collective="allreduce",
        topology=topology,
        nshards=n,
        weights=(1,) * len(orders),
        connections=tuple(connections),
        ranks=tuple(tuple(of_rank) for of_rank in channels),
        chunk_bytes=chunk_bytes,
    )


def _steps(n: int, position: int, share: int, arrives: int, leaves: int) -> tuple[Step, ...]:
    """What the rank at ``position`` of the cycle does in an iteration."""
    if n == 1:
        return (Step("copy", share, (INPUT,), (OUTPUT,)),)
    steps = []
    for hop in range(2 * n - 1):
        shard = (position - hop) % n
        first, complete, last = hop == 0, hop >= n - 1, hop == 2 * n - 2
        srcs = (INPUT,) if first else (INPUT, slot(arrives)) if hop < n else (slot(arrives),)
        dsts = ((OUTPUT,) if complete else ()) + (() if last else (slot(leaves),))
        syncs = (() if first else (arrives,)) + (() if last else (leaves,))
        steps.append(Step("copy" if len(srcs) == 1 else "reduce", share, srcs, dsts, wait=syncs, signal=syncs, shard=shard))
    return tuple(steps)
