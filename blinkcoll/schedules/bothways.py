"""Direct programs from or to a root in which the root does its share of the copying.

As those of :mod:`.direct`, but what the root and another rank have to move is cut in two: the other rank reads (or writes) one
part in the root's memory, and the root writes (or reads) the rest in the other's. Of n ranks the root moves 1/n of each part, so
all copy as much, where reading and writing take as long.
"""

from __future__ import annotations

from ..errors import ScheduleError
from ..topology import Topology, route
from .direct import CHUNK_BYTES, buffer_at
from .program import INPUT, OUTPUT, Channel, Connection, Program, Step

_OTHERS, _ROOT = 0, 1  # who moves a share


def lower_both_ways(topology: Topology, collective: str, root: int, *, pieces: int = 4, read: int = 1, written: int = 1) -> Program:
    """The program of two shares a piece: one that the others move, and one that the root moves.

    Parameters
    ----------
    topology
        Two ranks or more; the root and every other one need ways to each other, for the signals.
    collective, root
        ``broadcast``, ``scatter`` or ``gather``.
    pieces
        Where some of the memory is slower to reach than the rest, several pieces spread it over those who move it.
    read, written
        What a rank moves by reading another's memory, and by writing it, where one is faster; 0: nothing.

    Raises
    ------
    ScheduleError
        Where it is another collective, there is one rank only, or nothing is moved.
    TopologyError
        Where nothing leads from the root to another rank, or back.
    """
    if collective not in ("broadcast", "scatter", "gather"):
        raise ScheduleError(f"no program both ways for {collective}; known: broadcast, scatter, gather")
    n = topology.nranks
    if n < 2:
        raise ScheduleError("a program both ways needs two ranks")
    if min(read, written) < 0 or max(read, written) == 0 or pieces < 1:
        raise ScheduleError(f"{pieces} pieces of {read} parts read and {written} written move nothing")
    others, own = (written, read) if collective == "gather" else (read, written)
    shares = [(mover, weight) for mover, weight in ((_OTHERS, (n - 1) * others), (_ROOT, own)) if weight] * pieces
    made = _BothWays(topology, collective, root, [mover for mover, _ in shares])
    return Program(
        algorithm="both-ways", collective=collective, topology=topology, nshards=1 if collective == "broadcast" else n, weights=tuple(weight for _, weight in shares),
        connections=tuple(made.connections), ranks=tuple(made.channels(rank) for rank in range(n)), root=root, chunk_bytes=CHUNK_BYTES,
    )  # fmt: skip


class _BothWays:
    """Each rank's channels, one a share: first those that let others use its buffers, then those that use theirs."""

    def __init__(self, topology: Topology, collective: str, root: int, movers: list[int]) -> None:
        self.topology, self.collective, self.root, self.movers = topology, collective, root, movers
        self.others = [rank for rank in range(topology.nranks) if rank != root]
        self.connections: list[Connection] = []
        self._begun = {(rank, share): self._connect(rank, share, by_mover=False) for rank in self.others for share in range(len(movers))}
        self._done = {(rank, share): self._connect(rank, share, by_mover=True) for rank in self.others for share in range(len(movers))}

    def channels(self, rank: int) -> tuple[Channel, ...]:
        """Of one rank."""
        mine = _ROOT if rank == self.root else _OTHERS
        lending = [Channel(self._lend(rank, share)) for share, mover in enumerate(self.movers) if mover != mine]
        moving = [Channel(self._move(rank, share)) for share, mover in enumerate(self.movers) if mover == mine]
        return (*lending, *moving)

    def _lend(self, rank: int, share: int) -> tuple[Step, ...]:
        """Say that it has begun; wait until who moves the share has done so. The root then keeps its own: in place that is where it is."""
        with_whom = self._others_of(rank)
        begun, done = (tuple(of[other, share] for other in with_whom) for of in (self._begun, self._done))
        last = self._keep(share, done) if rank == self.root else Step("nop", share, wait=done, signal=done)
        return (Step("nop", share, wait=begun, signal=begun), last)

    def _move(self, rank: int, share: int) -> tuple[Step, ...]:
        steps = []
        for other in self._others_of(rank):
            touched = (self._begun[other, share], self._done[other, share])
            source, target = (other, self.root) if self.collective == "gather" else (self.root, other)
            src, dst = buffer_at("input", source, rank), buffer_at("output", target, rank)
            steps.append(Step("copy", share, (src,), (dst,), wait=touched, signal=touched, shard=self._shard(other)))
        return (*steps, self._keep(share, ())) if rank == self.root else tuple(steps)

    def _keep(self, share: int, done: tuple[int, ...]) -> Step:
        return Step("copy", share, (INPUT,), (OUTPUT,), wait=done, signal=done, shard=self._shard(self.root))

    def _others_of(self, rank: int) -> list[int]:
        return self.others if rank == self.root else [rank]

    def _shard(self, rank: int) -> int:
        return 0 if self.collective == "broadcast" else rank

    def _connect(self, other: int, share: int, *, by_mover: bool) -> int:
        """A signal between the root and another rank, by who moves the share or by who lets it."""
        src, dst = (self.root, other) if by_mover == (self.movers[share] == _ROOT) else (other, self.root)
        self.connections.append(Connection(src, dst, route(self.topology, src, dst), 1))
        return len(self.connections) - 1
