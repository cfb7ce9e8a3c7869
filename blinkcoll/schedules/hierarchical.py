"""Hierarchical all-reduce: rings inside each server, and across servers among the ranks of equal place.

Reduce-scatter inside every server, so that its l-th rank holds the server's sum of the l-th part; a ring all-reduce of that
part over the l-th ranks of all servers; all-gather inside every server (Horovod's ``NCCLHierarchicalAllreduce``; the scheme
is older: Sistare, vandeVaart and Loh, SC 1999). Each part is cut once more, into a shard a server, for the ring across.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ScheduleError
from ..topology import Topology, route
from .program import OUTPUT, SCALED_INPUT, Channel, Connection, Operand, Program, Step, slot
from .verifier import MOST_SLOTS


def lower_hierarchical(
    topology: Topology, servers: Sequence[Sequence[int]], orders: Sequence[Sequence[int]], *, algorithm: str = "hierarchical",
    slots: int = 4, chunk_bytes: int = 1 << 19,
) -> Program:  # fmt: skip
    """The all-reduce inside servers, across them and inside again.

    Parameters
    ----------
    servers
        Each server's ranks, equally many: those at one place of their lists own the same part.
    orders
        Cyclic orders of the places in a server, each a ring with an equal share of the data.

    Raises
    ------
    ScheduleError
        Where the servers do not hold each rank once, equally many each, or an order is none of all places.
    TopologyError
        Where nothing leads from a rank to the next.
    """
    size = len(servers[0]) if servers else 0
    everyone = sorted(rank for server in servers for rank in server)
    if everyone != list(range(topology.nranks)) or any(len(server) != size for server in servers):
        raise ScheduleError(f"servers must hold each of the ranks 0..{topology.nranks - 1} once and equally many each, got {[len(s) for s in servers]}")
    for order in orders:
        if sorted(order) != list(range(size)):
            raise ScheduleError(f"a ring must visit each of the places 0..{size - 1} once, got {list(order)}")
    inside = max(slots, len(servers) + 1)  # a whole part is sent before the next comes
    if inside > MOST_SLOTS:
        raise ScheduleError(f"a hierarchical all-reduce has up to {MOST_SLOTS - 1} servers, there are {len(servers)}")
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(topology.nranks)]

    def ring(ranks: Sequence[int], depth: int) -> dict[int, tuple[int, int]]:
        """Connections around: what arrives at each rank and what leaves it."""
        first, n = len(connections), len(ranks)
        if n == 1:
            return {ranks[0]: (-1, -1)}
        connections.extend(Connection(r, ranks[(i + 1) % n], route(topology, r, ranks[(i + 1) % n]), depth) for i, r in enumerate(ranks))
        return {r: (first + (i - 1) % n, first + i) for i, r in enumerate(ranks)}

    for share, order in enumerate(orders):
        within: dict[int, tuple[int, int]] = {}
        across: dict[int, tuple[int, int]] = {}
        for server in servers:
            within |= ring([server[place] for place in order], inside)
        for place in range(size):
            across |= ring([server[place] for server in servers], slots)
        for s, server in enumerate(servers):
            for place, rank in enumerate(server):
                steps = _Steps(share, list(order), order.index(place), len(servers), s)
                channels[rank].append(Channel(tuple(steps.all(within[rank], across[rank]))))
    return Program(
        algorithm=algorithm, collective="allreduce", topology=topology, nshards=size * len(servers), weights=(1,) * len(orders),
        connections=tuple(connections), ranks=tuple(map(tuple, channels)), chunk_bytes=chunk_bytes,
    )  # fmt: skip


class _Steps:
    """What the rank at ``position`` of its server's ring does, its server being number ``server`` of ``nservers``."""

    def __init__(self, share: int, order: list[int], position: int, nservers: int, server: int) -> None:
        self.share, self.order, self.position, self.nservers, self.server = share, order, position, nservers, server

    def all(self, within: tuple[int, int], across: tuple[int, int]) -> list[Step]:
        """The three phases of an iteration."""
        return [*self._scatter(*within), *self._across(*across), *self._gather(*within)]

    def _shards(self, hop: int) -> list[int]:
        """Those of the part that the rank has at a hop; it is the rank's own at the last one."""
        part = self.order[(self.position - hop - 1) % len(self.order)]
        return [part * self.nservers + s for s in range(self.nservers)]

    def _scatter(self, arrives: int, leaves: int) -> list[Step]:
        last, steps = len(self.order) - 1, []
        for hop in range(last + 1):
            for shard in self._shards(hop):
                srcs = (SCALED_INPUT,) if hop == 0 else (SCALED_INPUT, slot(arrives))
                dst = OUTPUT if hop == last else slot(leaves)
                syncs = (() if hop == 0 else (arrives,)) + (() if hop == last else (leaves,))
                steps.append(self._step(srcs, (dst,), syncs, shard, complete=hop == last and self.nservers == 1))
        return steps

    def _across(self, arrives: int, leaves: int) -> list[Step]:
        n, own = self.nservers, self._shards(len(self.order) - 1)
        steps = []
        for hop in range(2 * n - 1 if n > 1 else 0):
            shard, last = own[(self.server - hop - 1) % n], 2 * n - 2
            srcs: tuple[Operand, ...] = (OUTPUT,) if hop == 0 else (OUTPUT, slot(arrives)) if hop < n else (slot(arrives),)
            dsts = ((OUTPUT,) if hop >= n - 1 else ()) + (() if hop == last else (slot(leaves),))
            syncs = (() if hop == 0 else (arrives,)) + (() if hop == last else (leaves,))
            steps.append(self._step(srcs, dsts, syncs, shard, complete=hop == n - 1))
        return steps

    def _gather(self, arrives: int, leaves: int) -> list[Step]:
        last, steps = len(self.order) - 1, []
        for hop in range(last + 1 if last else 0):
            for shard in self._shards(last + hop):
                srcs = (OUTPUT,) if hop == 0 else (slot(arrives),)
                dsts = (() if hop == 0 else (OUTPUT,)) + (() if hop == last else (slot(leaves),))
                syncs = (() if hop == 0 else (arrives,)) + (() if hop == last else (leaves,))
                steps.append(self._step(srcs, dsts, syncs, shard))
        return steps

    def _step(self, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], syncs: tuple[int, ...], shard: int, complete: bool = False) -> Step:
        return Step("copy" if len(srcs) == 1 else "reduce", self.share, srcs, dsts, wait=syncs, signal=syncs, shard=shard, postscaled=complete)
