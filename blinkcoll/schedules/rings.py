"""Rings: all-reduce, reduce-scatter, all-gather and broadcast around cycles of ranks (Patarasuk and Yuan, JPDC 2009).

Each cycle carries one share. All-reduce: the buffer is cut into one shard a rank; the shard that ends its sum at the rank
at position s starts one position further on, is added to at every hop, is complete after n - 1 hops and travels on for
n - 1 more. Reduce-scatter is the first half of it, all-gather the second; a broadcast follows the cycle from its root.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ScheduleError
from ..topology import Topology, route
from .contract import REDUCING
from .program import INPUT, OUTPUT, SCALED_INPUT, Channel, Connection, Operand, Program, Step, slot

_COLLECTIVES = ("allreduce", "reducescatter", "allgather", "broadcast")


def lower_rings(
    topology: Topology, orders: Sequence[Sequence[int]], *, collective: str = "allreduce", root: int | None = None,
    algorithm: str = "ring", slots: int = 4, chunk_bytes: int = 1 << 19,
) -> Program:  # fmt: skip
    """The program that sends an equal share around each of ``orders``.

    Parameters
    ----------
    orders
        Cyclic orders of all ranks; a hop without a direct link goes the way that ``topology`` routes it.
    collective
        allreduce, reducescatter, allgather or broadcast; the last needs ``root``.

    Raises
    ------
    ScheduleError
        Where an order is not a permutation of the ranks, or there is no ring for the collective.
    TopologyError
        Where nothing leads from a rank to the next.
    """
    n = topology.nranks
    if collective not in _COLLECTIVES:
        raise ScheduleError(f"there is no ring for {collective}; there are for {', '.join(_COLLECTIVES)}")
    if (collective == "broadcast") != (root is not None) or (root is not None and not 0 <= root < n):
        raise ScheduleError(f"a ring {collective} with root {root}: a broadcast has a root among ranks 0..{n - 1}, the others none")
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(n)]
    for share, order in enumerate(orders):
        if sorted(order) != list(range(n)):
            raise ScheduleError(f"a ring must visit each of the ranks 0..{n - 1} once, got {list(order)}")
        around = [*order[order.index(root) :], *order[: order.index(root)]] if root is not None else list(order)
        first = len(connections)
        for position, rank in enumerate(around if n > 1 else ()):
            after = around[(position + 1) % n]
            if collective != "broadcast" or after != root:
                connections.append(Connection(rank, after, route(topology, rank, after), slots))
        for position, rank in enumerate(around):
            arrives, leaves = first + (position - 1) % n, first + position
            steps = _broadcast_steps if collective == "broadcast" else ring_steps
            channels[rank].append(Channel(steps(collective, around, position, share, arrives, leaves)))
    return Program(
        algorithm=algorithm,
        collective=collective,
        root=root,
        topology=topology,
        nshards=1 if collective == "broadcast" else n,
        weights=(1,) * len(orders),
        connections=tuple(connections),
        ranks=tuple(tuple(of_rank) for of_rank in channels),
        chunk_bytes=chunk_bytes,
    )


def ring_steps(collective: str, around: Sequence[int], position: int, share: int, arrives: int, leaves: int) -> tuple[Step, ...]:
    """What the rank at ``position`` of the cycle does in an iteration.

    At hop h of an all-reduce it has the shard of position ``position - h - 1``: on hops 1 to n - 1 it adds its own part,
    then it holds a sum that is complete. An all-gather begins where the all-reduce is complete.
    """
    n = len(around)
    own = SCALED_INPUT if collective in REDUCING else INPUT
    if n == 1:
        return (Step("copy", share, (own,), (OUTPUT,), postscaled=collective in REDUCING),)
    first = n - 1 if collective == "allgather" else 0
    last = n - 1 if collective == "reducescatter" else 2 * n - 2
    steps = []
    for hop in range(first, last + 1):
        starts, complete = hop == first, hop >= n - 1
        srcs: tuple[Operand, ...] = (own,) if starts else (own, slot(arrives)) if hop < n else (slot(arrives),)
        dsts = ((OUTPUT,) if complete else ()) + (() if hop == last else (slot(leaves),))
        syncs = (() if starts else (arrives,)) + (() if hop == last else (leaves,))
        scaled = hop == n - 1 and collective in REDUCING
        shard = around[(position - hop - 1) % n]
        steps.append(Step("copy" if len(srcs) == 1 else "reduce", share, srcs, dsts, wait=syncs, signal=syncs, shard=shard, postscaled=scaled))
    return tuple(steps)


def _broadcast_steps(collective: str, around: Sequence[int], position: int, share: int, arrives: int, leaves: int) -> tuple[Step, ...]:
    """Keep what arrives and pass it on, up to the last rank before the root."""
    del collective
    incoming = () if position == 0 else (arrives,)
    outgoing = () if position == len(around) - 1 else (leaves,)
    srcs = tuple(map(slot, incoming)) or (INPUT,)
    syncs = (*incoming, *outgoing)
    return (Step("copy", share, srcs, (OUTPUT, *map(slot, outgoing)), wait=syncs, signal=syncs),)
