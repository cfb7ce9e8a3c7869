"""Direct programs in which who has data and who gets it share the copying.

As those of :mod:`.direct`, but what goes from one rank to another is cut in two: the one that gets it reads one part where it lies, and the
one that has it writes the rest where it belongs. In an all-gather, where all ranks move something anyway, that evens out what some
memory costs more than other; from and to a root it gives the root work, too: of n ranks it moves 1/n of each part, so all copy as much,
where reading and writing take as long.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ScheduleError
from ..topology import Topology, route
from .direct import CHUNK_BYTES, buffer_at
from .program import INPUT, OUTPUT, Channel, Connection, Program, Step

_COLLECTIVES = ("broadcast", "scatter", "gather", "allgather")


@dataclass(frozen=True)
class _Transfer:
    """From a rank's input into another's output."""

    src: int
    dst: int
    shard: int


def lower_both_ways(topology: Topology, collective: str, root: int | None = None, *, pieces: int = 4, read: int = 1, written: int = 1) -> Program:
    """The program of two shares a piece: one that is read, and one that is written.

    Parameters
    ----------
    topology
        Two ranks or more; all that exchange data need ways to each other, for the signals.
    collective, root
        ``broadcast``, ``scatter`` or ``gather``, with a root; ``allgather``, without.
    pieces
        Where some of the memory is slower to reach than the rest, several pieces spread it over those who move it.
    read, written
        What a rank moves by reading another's memory, and by writing it, where one is faster; 0: nothing.

    Raises
    ------
    ScheduleError
        Where it is another collective, there is one rank only, or nothing is moved.
    TopologyError
        Where nothing leads from one rank to another that has data for it, or back.
    """
    if collective not in _COLLECTIVES:
        raise ScheduleError(f"no program both ways for {collective}; known: {', '.join(_COLLECTIVES)}")
    if (root is None) != (collective == "allgather"):
        raise ScheduleError(f"{collective} has {'a' if root is None else 'no'} root")
    n = topology.nranks
    if n < 2:
        raise ScheduleError("a program both ways needs two ranks")
    if min(read, written) < 0 or max(read, written) == 0 or pieces < 1:
        raise ScheduleError(f"{pieces} pieces of {read} parts read and {written} written move nothing")
    weights = (read * (n - 1 if collective in ("broadcast", "scatter") else 1), written * (n - 1 if collective == "gather" else 1))
    shares = [(reads, weight) for reads, weight in ((True, weights[0]), (False, weights[1])) if weight] * pieces
    made = _BothWays(topology, collective, root, [reads for reads, _ in shares])
    return Program(
        algorithm="both-ways", collective=collective, topology=topology, nshards=1 if collective == "broadcast" else n, weights=tuple(weight for _, weight in shares),
        connections=tuple(made.connections), ranks=tuple(made.channels(rank) for rank in range(n)), root=root, chunk_bytes=CHUNK_BYTES,
    )  # fmt: skip


class _BothWays:
    """Each rank's channels, one a share: first those that let others use its buffers, then those that use theirs."""

    def __init__(self, topology: Topology, collective: str, root: int | None, reads: list[bool]) -> None:
        self.topology, self.reads = topology, reads
        self.transfers = _transfers(collective, root, topology.nranks)
        #: Ranks that keep a part of their own, and which shard that is.
        self.kept = {rank: 0 if collective == "broadcast" else rank for rank in (range(topology.nranks) if root is None else (root,))}
        self.connections: list[Connection] = []
        places = [(transfer, share) for transfer in self.transfers for share in range(len(reads))]
        self._begun = {(t, share): self._connect(self._lender(t, share), self._mover(t, share)) for t, share in places}
        self._done = {(t, share): self._connect(self._mover(t, share), self._lender(t, share)) for t, share in places}

    def channels(self, rank: int) -> tuple[Channel, ...]:
        """Of one rank."""
        lending, moving = [], []
        for share in range(len(self.reads)):
            lent = [t for t in self.transfers if self._lender(t, share) == rank]
            moved = [t for t in self.transfers if self._mover(t, share) == rank]
            kept = self.kept.get(rank)
            by_lender = not moved or any(t.src == rank for t in lent)  # once what it keeps has been sent
            if lent:
                lending.append(Channel(self._lend(lent, share, kept if by_lender else None)))
            if moved:
                moving.append(Channel(self._move(moved, share, None if by_lender else kept)))
        return (*lending, *moving)

    def _mover(self, transfer: _Transfer, share: int) -> int:
        return transfer.dst if self.reads[share] else transfer.src

    def _lender(self, transfer: _Transfer, share: int) -> int:
        return transfer.src if self.reads[share] else transfer.dst

    def _lend(self, lent: list[_Transfer], share: int, kept: int | None) -> tuple[Step, ...]:
        """Say that it has begun; wait until who moves the share has done so. Its own part a rank keeps: in place that is where it is."""
        begun, done = (tuple(of[transfer, share] for transfer in lent) for of in (self._begun, self._done))
        return (Step("nop", share, wait=begun, signal=begun), _keep(share, kept, done))

    def _move(self, moved: list[_Transfer], share: int, kept: int | None) -> tuple[Step, ...]:
        steps = []
        for transfer in moved:
            rank, touched = self._mover(transfer, share), (self._begun[transfer, share], self._done[transfer, share])
            src, dst = buffer_at("input", transfer.src, rank), buffer_at("output", transfer.dst, rank)
            steps.append(Step("copy", share, (src,), (dst,), wait=touched, signal=touched, shard=transfer.shard))
        return (*steps, *([] if kept is None else [_keep(share, kept, ())]))

    def _connect(self, src: int, dst: int) -> int:
        """A signal from one rank to another."""
        self.connections.append(Connection(src, dst, route(self.topology, src, dst), 1))
        return len(self.connections) - 1


def _keep(share: int, shard: int | None, done: tuple[int, ...]) -> Step:
    if shard is None:
        return Step("nop", share, wait=done, signal=done)
    return Step("copy", share, (INPUT,), (OUTPUT,), wait=done, signal=done, shard=shard)


def _transfers(collective: str, root: int | None, n: int) -> list[_Transfer]:
    """What goes from one rank to another. Each rank begins with the next one, so that not all begin with the same."""
    pairs = [(rank, (rank + i) % n) for rank in range(n) for i in range(1, n)]
    if collective == "broadcast":
        return [_Transfer(a, b, 0) for a, b in pairs if a == root]
    if collective == "scatter":
        return [_Transfer(a, b, b) for a, b in pairs if a == root]
    if collective == "gather":
        return [_Transfer(a, b, a) for a, b in pairs if b == root]
    return [_Transfer(a, b, a) for a, b in pairs]
