"""Recursive halving and doubling: all-reduce in 2 log2 n exchanges (Thakur, Rabenseifner and Gropp, IJHPCA 2005).

In round k of the halving, partners at distance n / 2^k exchange halves of what they still hold and add up; the doubling
goes back the same way. Where n is no power of two, ranks beyond the largest one below n first give their input to a rank
inside, and get the result from it.
"""

from __future__ import annotations

from ..topology import Topology, route
from .program import OUTPUT, SCALED_INPUT, Channel, Connection, Operand, Program, Step, slot


def lower_halving_doubling(topology: Topology, *, shares: int = 1, slots: int = 4, chunk_bytes: int = 1 << 19) -> Program:
    """The all-reduce by halving and doubling, in ``shares`` channels a rank.

    Raises
    ------
    TopologyError
        Where nothing leads from a rank to a partner of its.
    """
    n = topology.nranks
    inside = 1 << (n.bit_length() - 1)
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(n)]
    for share in range(shares):
        builder = _Builder(topology, share, slots, inside, connections)
        for rank in range(n):
            channels[rank].append(Channel(tuple(builder.inner(rank) if rank < inside else builder.outer(rank))))
    return Program(
        algorithm="halving-doubling", collective="allreduce", topology=topology, nshards=inside, weights=(1,) * shares,
        connections=tuple(connections), ranks=tuple(map(tuple, channels)), chunk_bytes=chunk_bytes,
    )  # fmt: skip


class _Builder:
    """The steps of one share; connections are made when they are first named."""

    def __init__(self, topology: Topology, share: int, slots: int, inside: int, connections: list[Connection]) -> None:
        self.topology, self.share, self.slots, self.inside = topology, share, slots, inside
        self.connections = connections
        self._numbers: dict[tuple[str, int, int], int] = {}

    def inner(self, rank: int) -> list[Step]:
        """A rank that takes part in every round."""
        shards, extra = list(range(self.inside)), rank + self.inside
        folded = extra < self.topology.nranks
        if self.inside == 1 and not folded:
            return [self._step((SCALED_INPUT,), (OUTPUT,), (), 0, complete=True)]
        steps: list[Step] = []
        if folded:
            steps += [self._receive(("fold", extra, rank), s, own=SCALED_INPUT, complete=self.inside == 1) for s in shards]
        own = OUTPUT if folded else SCALED_INPUT  # where the sum so far lies
        distance = self.inside // 2
        while distance:
            partner = rank ^ distance
            kept = [s for s in shards if s & distance == rank & distance]
            given = [s for s in shards if s & distance != rank & distance]
            for out, back in zip(given, kept, strict=True):
                steps.append(self._send(("halve", rank, partner), out, own))
                steps.append(self._receive(("halve", partner, rank), back, own=own, complete=distance == 1))
            shards, own, distance = kept, OUTPUT, distance // 2
        steps += self._double(rank, shards)
        if folded:
            steps += [self._send(("unfold", rank, extra), s, OUTPUT) for s in range(self.inside)]
        return steps

    def _double(self, rank: int, shards: list[int]) -> list[Step]:
        steps, distance = [], 1
        while distance < self.inside:
            partner = rank ^ distance
            theirs = [s ^ distance for s in shards]
            for out, back in zip(sorted(shards), sorted(theirs), strict=True):
                steps.append(self._send(("double", rank, partner), out, OUTPUT))
                steps.append(self._receive(("double", partner, rank), back))
            shards, distance = shards + theirs, distance * 2
        return steps

    def outer(self, rank: int) -> list[Step]:
        """A rank that leaves the work to one inside."""
        steps = [self._send(("fold", rank, rank - self.inside), s, SCALED_INPUT) for s in range(self.inside)]
        return steps + [self._receive(("unfold", rank - self.inside, rank), s) for s in range(self.inside)]

    def _connection(self, key: tuple[str, int, int]) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.connections)
            self.connections.append(Connection(key[1], key[2], route(self.topology, key[1], key[2]), self.slots))
        return self._numbers[key]

    def _send(self, key: tuple[str, int, int], shard: int, source: Operand) -> Step:
        c = self._connection(key)
        return self._step((source,), (slot(c),), (c,), shard)

    def _receive(self, key: tuple[str, int, int], shard: int, own: Operand | None = None, complete: bool = False) -> Step:
        c = self._connection(key)
        return self._step((slot(c),) if own is None else (own, slot(c)), (OUTPUT,), (c,), shard, complete)

    def _step(self, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], syncs: tuple[int, ...], shard: int, complete: bool = False) -> Step:
        op = "copy" if len(srcs) == 1 else "reduce"
        return Step(op, self.share, srcs, dsts, wait=syncs, signal=syncs, shard=shard, postscaled=complete)
