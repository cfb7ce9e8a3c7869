"""Programs executed by numpy, one event at a time, in an order that is as unkind as the program allows.

Nothing is shared with the executors or the C++ core: the partition is written down anew (as exact fractions), slots are
the memory that they are, credits are counted on both sides, and what no rank may touch holds garbage. A step is several
events: its waits and loads, each of its stores (of one to all ranks: each rank's), its signals; whichever channels could go on, the order in which they do is
the caller's: random by seed, or one that holds some ranks back for as long as possible.

An exchange is what its contract says: a member that gets something goes on when all that give have come, and has their sum in
the order of the group, rounded once. An engine may hold the others back as long, or not at all; which, the seed decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from math import floor, gcd
from random import Random

import numpy as np
from runtime.arithmetic import INTEGERS, _narrow, _pair, _wide

from blinkcoll.schedules.contract import SHARDED, shards_held, view
from blinkcoll.schedules.program import Operand, Program, Step

Spot = tuple[int, int, int]  # rank, channel, step


class Wrong(Exception):
    """What went wrong in an execution."""


# -- the partition, once more ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Which elements a (shard, share, iteration) means, of ``count`` elements of ``elem_size`` bytes."""

    program: Program
    count: int
    elem_size: int
    chunk_bytes: int
    counts: tuple[int, ...] | None = None
    known: dict = field(default_factory=dict, compare=False)  # what has been worked out

    @property
    def unit(self) -> int:
        return 16 // gcd(16, self.elem_size)

    @property
    def chunk(self) -> int:
        return max(1, self.chunk_bytes // self.elem_size // self.unit) * self.unit

    def shard(self, shard: int) -> tuple[int, int]:
        """Where the shard begins, in units of 16 bytes from there or, where shards are ours to choose, from the whole's start."""
        program = self.program
        if program.collective in SHARDED:
            counts = self.counts or (self.count // program.nshards,) * program.nshards
            ends = [0, *accumulate(counts)]
            return ends[shard], ends[shard + 1]
        units = -(-self.count // self.unit)
        return tuple(min(self.unit * floor(Fraction(units * s, program.nshards)), self.count) for s in (shard, shard + 1))

    def share(self, shard: int, share: int) -> tuple[int, int]:
        if (shard, share) not in self.known:
            self.known[shard, share] = self._share(shard, share)
        return self.known[shard, share]

    def _share(self, shard: int, share: int) -> tuple[int, int]:
        begin, end = self.shard(shard)
        units = -(-(end - begin) // self.unit)
        if self.program.collective not in SHARDED:  # whole units even where the last one is cut off
            every = -(-self.count // self.unit)
            first, last = (floor(Fraction(every * s, self.program.nshards)) for s in (shard, shard + 1))
            begin, units = first * self.unit, last - first
        ends = [0, *accumulate(self.program.weights)]
        cuts = [begin + self.unit * floor(Fraction(units * ends[i], ends[-1])) for i in (share, share + 1)]
        return tuple(min(cut, end) for cut in cuts)

    def chunk_of(self, shard: int, share: int, iteration: int) -> slice:
        (begin, end), (chunk, _) = self.share(shard, share), self.loop(share)
        first = min(begin + iteration * chunk, end)
        return slice(first, min(first + chunk, end))

    def iterations(self, share: int) -> int:
        return self.loop(share)[1]

    def loop(self, share: int) -> tuple[int, int]:
        """A share's chunk, in elements, and its iterations: from 64 chunks on they differ from share to share."""
        if share not in self.known:
            longest = max(end - begin for begin, end in (self.share(shard, share) for shard in range(self.program.nshards)))
            chunk = self.chunk
            if longest >= 64 * chunk:
                chunk -= chunk // self.unit // 64 * (5 * share % 8) * self.unit
            self.known[share] = chunk, -(-longest // chunk)
        return self.known[share]


# -- memory ------------------------------------------------------------------------------------------------------------


@dataclass
class _Fifo:
    """A connection: what is in its slots, and how often either side has signalled."""

    slots: list[np.ndarray | None]
    sent: int = 0
    taken: int = 0


@dataclass(eq=False)
class _Channel:
    rank: int
    number: int
    steps: Sequence[Step]
    iterations: int
    iteration: int = 0
    position: int = 0
    done: int = 0  # steps completed in this call
    stores: list[tuple[Operand, np.ndarray]] = field(default_factory=list)
    loaded: bool = False
    called: bool = False  # in an exchange, and not yet back

    @property
    def ended(self) -> bool:
        return self.iteration >= self.iterations

    @property
    def step(self) -> Step:
        return self.steps[self.position]

    @property
    def spot(self) -> Spot:
        return self.rank, self.number, self.position


Pick = Callable[[list[_Channel]], _Channel]


def unkind(seed: int, nranks: int) -> Pick:
    """An order by seed: random, the newest or oldest channel first, or with a rank that only moves when nobody else can."""
    random = Random(seed)
    kind, slow = random.randrange(4), random.randrange(nranks)

    def pick(ready: list[_Channel]) -> _Channel:
        if kind == 0:
            return random.choice(ready)
        if kind == 1:
            return max(ready, key=lambda c: (c.done, c.rank, c.number))
        if kind == 2:
            return min(ready, key=lambda c: (c.done, -c.rank, -c.number))
        return random.choice([c for c in ready if c.rank != slow] or ready)

    return pick


@dataclass(frozen=True)
class _Meeting:
    """An exchange's members in the order of its group, and those of them that give."""

    members: tuple[Spot, ...]
    givers: tuple[Spot, ...]


def meetings(program: Program) -> dict[Spot, _Meeting]:
    """The exchange that each step of one takes part in.

    Raises
    ------
    Wrong
        Where members do not agree, or make a call that engines do not have.
    """
    uses: dict[tuple[int, frozenset[int]], dict[int, list[Spot]]] = defaultdict(lambda: defaultdict(list))
    steps = {(r, c, s): step for r, channels in enumerate(program.ranks) for c, channel in enumerate(channels) for s, step in enumerate(channel.steps)}
    for spot, step in steps.items():
        if step.op == "exchange":
            uses[step.share, frozenset(step.group)][spot[0]].append(spot)
    found = {}
    for (_, group), of_rank in uses.items():
        if set(of_rank) != group or len({len(calls) for calls in of_rank.values()}) != 1:
            raise Wrong(f"members of {sorted(group)} do not call their engine equally often")
        for call in zip(*of_rank.values(), strict=True):
            first = steps[call[0]]
            if any((s.group, s.shard, s.postscaled) != (first.group, first.shard, first.postscaled) for s in map(steps.__getitem__, call)):
                raise Wrong(f"members of {sorted(group)} call their engine with other arguments each")
            members = tuple(sorted(call, key=lambda spot: first.group.index(spot[0])))
            meeting = _Meeting(members, tuple(m for m in members if steps[m].srcs))
            gets = [bool(steps[m].dsts) for m in members]
            sums = meeting.givers == members and gets[0] and (all(gets) or not any(gets[1:]))
            if not sums and not (meeting.givers == members[:1] and all(gets[1:])):
                raise Wrong(f"no engine has such a call among {sorted(group)}")
            found.update(dict.fromkeys(members, meeting))
    return found


class Interpreter:
    """A program with its connections, for any number of calls on the same counters.

    ``slots`` replaces the number of slots of every connection. What a switch adds it adds in the order of ranks.

    Raises
    ------
    Wrong
        Where an exchange's members do not agree.
    """

    def __init__(self, program: Program, *, slots: int | None = None) -> None:
        self.program = program
        self.meetings = meetings(program)
        self.fifos = [_Fifo([None] * (slots or c.slots)) for c in program.connections]

    def run(
        self, inputs, *, dtype: str = "float32", op: str = "sum", chunk_bytes: int = 64, in_place: bool = False, factors=None, counts=None, seed: int = 0
    ) -> list[np.ndarray | None]:  # fmt: skip
        """Each rank's output, None where it has none.

        Raises
        ------
        Wrong
            Where nobody can go on, a chunk is not as long as its reader takes it to be, or a place is touched that is no
            rank's to touch.
        """
        call = _Call(self, inputs, dtype, op, chunk_bytes, in_place, factors, counts)
        pick = unkind(seed, self.program.nranks)
        call.holds_all_back = seed // 3 % 2 == 1
        left = {id(channel) for channel in call.channels if not channel.ended}
        ready = [channel for channel in call.channels if id(channel) in left and call.may_begin(channel)]
        while left:
            if not ready:
                raise Wrong(f"nobody can go on: {[(c.rank, c.number, c.position, c.iteration) for c in call.channels if id(c) in left]}")
            channel = pick(ready)
            touched = call.advance(channel)
            if channel.ended:
                left.discard(id(channel))
            for other in touched:  # only these may have become able to go on, or unable
                able = id(other) in left and (call.may_return(other) if other.loaded else call.may_begin(other))
                if able and other not in ready:
                    ready.append(other)
                elif not able and other in ready:
                    ready.remove(other)
        return [call.output(rank) for rank in range(self.program.nranks)]


class _Call:
    def __init__(self, owner: Interpreter, inputs, dtype, op, chunk_bytes, in_place, factors, counts) -> None:
        program = self.program = owner.program
        self.fifos, self.dtype, self.op, self.factors = owner.fifos, dtype, op, factors
        self.meetings, self.holds_all_back = owner.meetings, False
        self.given: dict[tuple[Spot, int], np.ndarray | None] = {}  # by member's step and iteration
        self.numpy_dtype = np.dtype(np.uint16 if dtype == "bfloat16" else dtype)
        self.counts = None if counts is None else tuple(int(c) for c in np.asarray(counts).reshape(-1))
        self.count = self._count(inputs)
        self.cut = Cut(program, self.count, self.numpy_dtype.itemsize, chunk_bytes, self.counts)
        self.memory = {}
        for executor in range(program.nexecutors):
            for buffer in ("input", "output", "scratch"):
                self.memory[executor, buffer] = np.full(self.count * self.numpy_dtype.itemsize, 0xA5, np.uint8).view(self.numpy_dtype)
        for rank, data in enumerate(inputs):
            if in_place:
                self.memory[rank, "output"] = self.memory[rank, "input"]
            if data is not None:
                self.memory[rank, "input"][self._held(rank, "input")] = data
        self.channels = [
            _Channel(rank, c, channel.steps, max((self.cut.iterations(s.share) for s in channel.steps), default=0))
            for rank, channels in enumerate(program.ranks)
            for c, channel in enumerate(channels)
        ]
        self.users: dict[object, list[_Channel]] = defaultdict(list)  # of a connection, or a channel that others wait for
        for channel in self.channels:
            for step in channel.steps:
                for name in (*step.wait, *((channel.rank, after.channel) for after in step.after)):
                    if channel not in self.users[name]:
                        self.users[name].append(channel)
        self.by_name = {(c.rank, c.number): c for c in self.channels}

    def _count(self, inputs) -> int:
        if self.counts is not None:
            return sum(self.counts)
        program = self.program
        for rank, data in enumerate(inputs):
            held = view(program.collective, "input", rank, program.root)
            if held != "none":
                return data.size * (program.nranks if held == "own" else 1)
        return 1  # a barrier

    def _held(self, rank: int, buffer: str) -> np.ndarray:
        """Which elements of the whole a rank's buffer has, in the order in which the caller sees them."""
        program = self.program
        held = view(program.collective, buffer, rank, program.root)
        if held == "none":
            return np.zeros(0, int)
        if program.collective not in SHARDED:
            return np.arange(self.count)
        spans = [self.cut.shard(s) for s in shards_held(program.collective, buffer, rank, program.root, program.nranks)]
        return np.concatenate([np.arange(begin, end) for begin, end in spans])

    def output(self, rank: int) -> np.ndarray | None:
        held = view(self.program.collective, "output", rank, self.program.root)
        return None if held == "none" else self.memory[rank, "output"][self._held(rank, "output")]

    # -- events ---------------------------------------------------------------------------------------------------------

    def may_begin(self, channel: _Channel) -> bool:
        step = channel.step
        if channel.iteration >= self.cut.iterations(step.share):
            return True
        for number in step.wait:
            fifo = self.fifos[number]
            reads = self.program.connections[number].dst == channel.rank
            if (fifo.sent <= fifo.taken) if reads else (fifo.sent >= fifo.taken + len(fifo.slots)):
                return False
        for after in step.after:
            other = self.by_name[channel.rank, after.channel]
            if channel.iteration >= after.lag and not other.ended and other.done <= (channel.iteration - after.lag) * len(other.steps) + after.step:
                return False
        return True

    def may_return(self, channel: _Channel) -> bool:
        """Whether a step that has loaded may go on; an exchange's, when the engine lets it."""
        if not channel.called:
            return True
        meeting = self.meetings[channel.spot]
        awaited = meeting.members if self.holds_all_back else meeting.givers if channel.step.dsts else ()
        return all((member, channel.iteration) in self.given for member in awaited)

    def advance(self, channel: _Channel) -> list[_Channel]:
        """The channel's next event; whom it may have made able to go on, or unable."""
        step = channel.step
        if not channel.loaded and channel.iteration < self.cut.iterations(step.share):
            channel.loaded = True
            if step.op == "exchange":
                return self._call_engine(channel)
            channel.stores = self._load(channel)
        elif channel.called:
            channel.called = False
            channel.stores = self._returned(channel)
        elif channel.stores:
            self._store(channel, *channel.stores.pop())
        else:
            if channel.loaded:
                self._signal(channel)
            channel.loaded = False
            channel.done += 1
            channel.position += 1
            if channel.position == len(channel.steps):
                channel.position, channel.iteration = 0, channel.iteration + 1
            names = (*step.signal, (channel.rank, channel.number))
            return [channel, *(other for name in names for other in self.users.get(name, ()) if other is not channel)]
        return []

    def _call_engine(self, channel: _Channel) -> list[_Channel]:
        where = self.cut.chunk_of(channel.step.shard, channel.step.share, channel.iteration)
        sources = [self._taken(channel, source, where) for source in channel.step.srcs]
        self.given[channel.spot, channel.iteration] = sources[0] if sources else None
        channel.called = True
        return [self.by_name[rank, number] for rank, number, _ in self.meetings[channel.spot].members]

    def _returned(self, channel: _Channel) -> list[tuple[Operand, np.ndarray]]:
        """What an exchange hands to a member."""
        if not channel.step.dsts:
            return []
        given = [self.given[giver, channel.iteration] for giver in self.meetings[channel.spot].givers]
        result = self._combined(given, channel.step.postscaled)
        return [(destination, result) for destination in channel.step.dsts]

    def _load(self, channel: _Channel) -> list[tuple[Operand, np.ndarray]]:
        step = channel.step
        if step.op == "nop":
            return []
        where = self.cut.chunk_of(step.shard, step.share, channel.iteration)
        if any(o.buffer == "multicast" for o in step.srcs) and (step.op != "reduce" or len(step.srcs) != 1):
            raise Wrong(f"what a switch adds is not the only source of a reduce, but one of a {step.op}'s {len(step.srcs)}")
        srcs, dsts = self._places(step.srcs), self._places(step.dsts)
        if step.op == "copy" and not step.postscaled and not step.srcs[0].prescaled:
            return [(destination, self._read(channel, srcs[0], where).copy()) for destination in dsts]
        result = self._combined([self._taken(channel, source, where) for source in srcs], step.postscaled)
        return [(destination, result) for destination in dsts]

    def _taken(self, channel: _Channel, source: Operand, where: slice) -> np.ndarray:
        """A source as a step computes with it."""
        value = _wide(self.dtype, self._read(channel, source, where))
        scales = source.prescaled and self.op == "premul_sum"
        return value * value.dtype.type(self.factors[channel.rank]) if scales else value.copy()

    def _combined(self, values: list[np.ndarray], postscaled: bool) -> np.ndarray:
        """Values added up in this order, rounded once."""
        with np.errstate(all="ignore"):
            total = values[0]
            for value in values[1:]:
                total = _pair(self.dtype, self.op, total, value)
            if postscaled and self.op == "avg":
                total = self._divided(total)
            return _narrow(self.dtype, total).copy()

    def _places(self, operands: Sequence[Operand]) -> list[Operand]:
        """The operands, each of all ranks as one of every rank."""
        every = range(self.program.nranks)
        return [place for o in operands for place in ([Operand(str(o.region), rank=r) for r in every] if o.buffer == "multicast" else [o])]

    def _divided(self, total: np.ndarray) -> np.ndarray:
        n = self.program.nranks
        if self.dtype in INTEGERS:
            return np.array([abs(v) // n * (-1 if v < 0 else 1) for v in map(int, total)], total.dtype)  # towards zero
        return total / total.dtype.type(n)

    def _read(self, channel: _Channel, source: Operand, where: slice) -> np.ndarray:
        if source.connection is None:
            return self.memory[self._owner(channel, source), source.buffer][self._where(channel, source)]
        fifo = self.fifos[source.connection]
        held = fifo.slots[fifo.taken % len(fifo.slots)]
        length = where.stop - where.start
        if held is None:
            held = np.full(length * self.numpy_dtype.itemsize, 0xA5, np.uint8).view(self.numpy_dtype)
        if held.size != length:
            raise Wrong(f"c{source.connection}: a chunk of {held.size} elements is read as one of {length}")
        return held

    def _store(self, channel: _Channel, destination: Operand, value: np.ndarray) -> None:
        if destination.connection is None:
            self.memory[self._owner(channel, destination), destination.buffer][self._where(channel, destination)] = value
            return
        fifo = self.fifos[destination.connection]
        fifo.slots[fifo.sent % len(fifo.slots)] = value

    def _where(self, channel: _Channel, operand: Operand) -> slice:
        step = channel.step
        return self.cut.chunk_of(step.shard if operand.shard is None else operand.shard, step.share, channel.iteration)

    def _owner(self, channel: _Channel, operand: Operand) -> int:
        owner = channel.rank if operand.rank is None else operand.rank
        if operand.buffer == "scratch":
            return owner
        program, shard = self.program, channel.step.shard if operand.shard is None else operand.shard
        absent = owner >= program.nranks or view(program.collective, operand.buffer, owner, program.root) == "none"
        if absent or (program.collective in SHARDED and shard not in shards_held(program.collective, operand.buffer, owner, program.root, program.nranks)):
            raise Wrong(f"rank {owner} has no shard {shard} in its {operand.buffer}")
        return owner

    def _signal(self, channel: _Channel) -> None:
        for number in channel.step.signal:
            if self.program.connections[number].dst == channel.rank:
                self.fifos[number].taken += 1
            else:
                self.fifos[number].sent += 1
