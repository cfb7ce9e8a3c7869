"""Direct programs: every rank reads what it needs where it lies, in the memory of the rank that has it.

For ranks that can read (and write) each other's memory: one copy in place of two through a slot, and one agreement a call in
place of one a chunk. A rank says that it has begun, so that its buffers may be used; who has used them says that it is done;
nobody leaves before that. What is added up is read by the rank that adds it, in the order of ranks, so these programs cannot
pre-multiply: each rank's factor is its own.
"""

from __future__ import annotations

from ..errors import ScheduleError
from ..topology import Topology, route
from .contract import REDUCING, SHARDED
from .program import INPUT, OUTPUT, Channel, Connection, Operand, Program, Step

#: A call is one chunk: its agreements are paid once. Larger than any buffer (2^40 elements of 16 bytes).
CHUNK_BYTES = 1 << 44


def lower_direct(topology: Topology, collective: str, root: int | None = None) -> Program:
    """The program of one share whose ranks use each other's buffers.

    Parameters
    ----------
    topology
        Every pair of ranks needs a way, for the signals.
    collective, root
        Any but barrier and sendrecv; ``root`` where it has one.

    Raises
    ------
    ScheduleError
        Where there is no such collective.
    TopologyError
        Where nothing leads from a rank to another.
    """
    if collective not in _STEPS:
        raise ScheduleError(f"no direct program for {collective}; known: {', '.join(_STEPS)}")
    made = _Direct(topology, root)
    _STEPS[collective](made)
    n = topology.nranks
    return Program(
        algorithm="direct", collective=collective, topology=topology, nshards=n if collective in SHARDED | REDUCING else 1, weights=(1,),
        connections=tuple(made.connections), ranks=tuple((Channel(made.steps(rank)),) for rank in range(n)), root=root,
        in_place=collective != "alltoall", chunk_bytes=CHUNK_BYTES,
    )  # fmt: skip


class _Direct:
    """Steps of every rank, and the signals around them."""

    def __init__(self, topology: Topology, root: int | None) -> None:
        self.topology, self.n, self.root = topology, topology.nranks, -1 if root is None else root
        self.connections: list[Connection] = []
        self._work: list[list[Step]] = [[] for _ in range(self.n)]
        self._kept: dict[int, Step] = {}
        self._number: dict[tuple[str, int, int], int] = {}
        self._heard: set[int] = set()

    def others(self, rank: int) -> list[int]:
        """The other ranks, from the next one on: so that not all begin with the same."""
        return [(rank + i) % self.n for i in range(1, self.n)]

    def add(self, rank: int, step: Step, uses: tuple[int, ...] = (), last: bool = True, after: tuple[tuple[int, int], ...] = ()) -> None:
        """A step that uses buffers of the ranks in ``uses``; they are done with where it is the ``last`` that does.

        ``after``: signals (see :meth:`tell`) that it waits for besides.
        """
        heard = [self._signal("begun", other, rank) for other in uses]
        waits = [c for c in heard if c not in self._heard]
        self._heard.update(waits)
        told = [self._signal("done", rank, other) for other in uses] if last else []
        hears = [self._signal("complete", a, b) for a, b in after]
        touched = (*waits, *hears, *told)
        self._work[rank].append(
            Step(step.op, 0, step.srcs, step.dsts, wait=touched, signal=touched, shard=step.shard, postscaled=step.postscaled)
        )  # fmt: skip

    def tell(self, rank: int) -> None:
        """The rank's last step tells all others that what it computes is complete."""
        step = self._work[rank].pop()
        told = tuple(self._signal("complete", rank, other) for other in self.others(rank))
        self._work[rank].append(
            Step(step.op, 0, step.srcs, step.dsts, wait=(*step.wait, *told), signal=(*step.signal, *told), shard=step.shard, postscaled=step.postscaled)
        )  # fmt: skip

    def keep(self, rank: int, shard: int) -> None:
        """A rank's own shard into its output, once others have read its input: in place that is where it is."""
        self._kept[rank] = Step("copy", 0, (INPUT,), (OUTPUT,), shard=shard)

    def steps(self, rank: int) -> tuple[Step, ...]:
        """All of a rank's: it has begun, its work, others are done with its buffers."""
        begun = tuple(c for (what, a, _), c in self._number.items() if what == "begun" and a == rank)
        done = tuple(c for (what, _, b), c in self._number.items() if what == "done" and b == rank)
        first = (Step("nop", 0, wait=begun, signal=begun),) if begun else ()
        kept = self._kept.get(rank, Step("nop", 0))
        last = Step(kept.op, 0, kept.srcs, kept.dsts, wait=done, signal=done, shard=kept.shard)
        return (*first, *self._work[rank], last)

    def _signal(self, what: str, src: int, dst: int) -> int:
        if (what, src, dst) not in self._number:
            self._number[what, src, dst] = len(self.connections)
            self.connections.append(Connection(src, dst, route(self.topology, src, dst), 1))
        return self._number[what, src, dst]


def buffer_at(buffer: str, rank: int, own: int) -> Operand:
    """A buffer of ``rank``'s, as ``own`` names it."""
    return Operand(buffer, rank=None if rank == own else rank)


def _inputs(made: _Direct, own: int) -> tuple[Operand, ...]:
    return tuple(buffer_at("input", rank, own) for rank in range(made.n))


def _broadcast(made: _Direct) -> None:
    for rank in made.others(made.root):
        made.add(rank, Step("copy", 0, (Operand("input", rank=made.root),), (OUTPUT,)), (made.root,))
    made.keep(made.root, 0)


def _allgather(made: _Direct) -> None:
    for rank in range(made.n):
        for other in made.others(rank):
            made.add(rank, Step("copy", 0, (Operand("input", rank=other),), (OUTPUT,), shard=other), (other,))
        made.keep(rank, rank)


def _gather(made: _Direct) -> None:
    """Into the root's memory, by all ranks at once."""
    for rank in made.others(made.root):
        made.add(rank, Step("copy", 0, (INPUT,), (Operand("output", rank=made.root),), shard=rank), (made.root,))
    made.keep(made.root, made.root)


def _scatter(made: _Direct) -> None:
    for rank in made.others(made.root):
        made.add(rank, Step("copy", 0, (Operand("input", rank=made.root),), (OUTPUT,), shard=rank), (made.root,))
    made.keep(made.root, made.root)


def _alltoall(made: _Direct) -> None:
    for rank in range(made.n):
        for other in made.others(rank):
            made.add(rank, Step("copy", 0, (Operand("input", rank=other, shard=rank),), (OUTPUT,), shard=other), (other,))
        made.keep(rank, rank)


def _reducescatter(made: _Direct) -> None:
    for rank in range(made.n):
        made.add(rank, Step(_adding(made), 0, _inputs(made, rank), (OUTPUT,), shard=rank, postscaled=True), tuple(made.others(rank)))


def _reduce(made: _Direct) -> None:
    """Every rank adds up a part, into the root's memory."""
    for rank in range(made.n):
        made.add(
            rank, Step(_adding(made), 0, _inputs(made, rank), (buffer_at("output", made.root, rank),), shard=rank, postscaled=True), tuple(made.others(rank))
        )  # fmt: skip


def _allreduce(made: _Direct) -> None:
    """Every rank adds up a part, then reads the other parts from who added them."""
    for rank in range(made.n):
        made.add(rank, Step(_adding(made), 0, _inputs(made, rank), (OUTPUT,), shard=rank, postscaled=True), tuple(made.others(rank)), last=False)
        made.tell(rank)
        for other in made.others(rank):
            made.add(rank, Step("copy", 0, (buffer_at("output", other, rank),), (OUTPUT,), shard=other), (other,), after=((other, rank),))


def _adding(made: _Direct) -> str:
    return "reduce" if made.n > 1 else "copy"


_STEPS = {
    "allreduce": _allreduce, "reduce": _reduce, "broadcast": _broadcast, "allgather": _allgather, "reducescatter": _reducescatter,
    "gather": _gather, "scatter": _scatter, "alltoall": _alltoall,
}  # fmt: skip
