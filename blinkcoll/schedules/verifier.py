"""Is a program right? Symbolic execution of the unrolled program, shared with nothing that made it but the IR's types.

Method: unroll the chunk loop for given trip counts; build the happens-before graph (program order, a chunk's publication
before its arrival, a slot's return before its reuse, ``after``); a cycle is a deadlock under some interleaving, and
since every connection has one writer and one reader, an acyclic graph runs to its end under every interleaving. Then
execute the events in one topological order on expressions instead of numbers, with vector clocks that show any two
accesses to one place, one of them a write, that no path orders. What remains at the end is compared with what the
collective promises.

This proves a program for the trip counts that are unrolled. They are chosen around the numbers where pipelines change
their shape (0, 1, 2, the number of slots and its neighbours, the depth plus the slots), with shares of equal and of
unequal length; a proof for all counts is not claimed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ..errors import ScheduleError
from .program import Connection, Operand, Program, Step

#: More slots than this are of no use to any pipeline here, and would have to be unrolled.
MOST_SLOTS = 32
PROTOCOLS = ("simple", "LL", "LL128")
TRANSPORTS = ("peer",)
#: Operands of a step (kMostOperands of csrc/blinkcoll/dispatch.h).
MOST_OPERANDS = 64

Cell = tuple[int, int, int]  # shard, share, iteration
Place = tuple[object, ...]  # ("slot", connection, sequence) or (buffer, rank, cell)
Clock = np.ndarray[tuple[int], np.dtype[np.int64]]


def verify(program: Program) -> None:
    """Prove a program for the trip counts where pipelines change their shape.

    Raises
    ------
    ScheduleError
        Naming rank, channel, step and iteration of the first thing that is wrong.

    Notes
    -----
    Both ways to call are proven at once: input and output apart, and in the same memory.
    """
    check_structure(program)
    check_partition(program)
    for trips in critical_trips(program):
        verify_unrolled(program, trips)


def critical_trips(program: Program) -> list[tuple[int, ...]]:
    """Trip counts per share at which to unroll."""
    nshares = len(program.weights)
    slots = sorted({c.slots for c in program.connections}) or [1]
    depth = min(program.nranks, 16)
    counts = sorted({0, 1, 2, *(s + d for s in slots for d in (-1, 0, 1)), depth + slots[-1] + 2})
    equal = [(n,) * nshares for n in counts]
    unequal = [tuple((i + shift) % 3 + i % 2 * slots[-1] for i in range(nshares)) for shift in range(2)] if nshares > 1 else []
    return [*equal, *unequal]


# -- what does not need unrolling ------------------------------------------------------------------------------------


def check_structure(program: Program) -> None:
    """Ends, owners and paths of connections; what steps may name."""
    if len(program.ranks) != program.topology.nranks:
        raise ScheduleError(f"the program has {len(program.ranks)} ranks, its topology {program.topology.nranks}")
    if program.chunk_bytes < 1:
        raise ScheduleError(f"chunk_bytes is {program.chunk_bytes}, expected at least 1")
    if program.collective == "allreduce" and program.root is not None:
        raise ScheduleError(f"allreduce has no root, got {program.root}")
    if program.collective in ("broadcast", "reduce") and not 0 <= (program.root if program.root is not None else -1) < program.nranks:
        raise ScheduleError(f"{program.collective} needs a root among ranks 0..{program.nranks - 1}, got {program.root}")
    if program.nshards < 1 or not program.weights or min(program.weights) < 0 or not 1 <= sum(program.weights) < 1 << 31:
        raise ScheduleError(f"nshards {program.nshards} and weights {program.weights} do not cut a buffer")
    links = set(program.topology.capacities())
    switches = {s.name for s in program.topology.switches} | {d.name for d in program.topology.relays}
    for i, connection in enumerate(program.connections):
        _check_connection(i, connection, program.nranks, links, switches)
    owner: dict[tuple[int, int], tuple[int, str]] = {}
    carries: dict[int, int] = {}
    for rank, channels in enumerate(program.ranks):
        for c, channel in enumerate(channels):
            for s, step in enumerate(channel.steps):
                where = f"rank {rank}, channel {c}, step {s}"
                _check_names(program, rank, step, where)
                for used in _connections(step):
                    if carries.setdefault(used, step.share) != step.share:
                        raise ScheduleError(f"{where}: c{used} carries share {carries[used]}, this step is of share {step.share}")
                    held, by = owner.setdefault((used, rank), (c, where))
                    if held != c:
                        raise ScheduleError(f"{where}: c{used} is used by another channel of this rank too ({by}); a side has one")


def _check_connection(i: int, connection: Connection, nranks: int, links: set[tuple[int | str, int | str]], switches: set[str]) -> None:
    name = f"connection c{i} {connection.src}→{connection.dst}"
    if connection.src == connection.dst or not all(0 <= r < nranks for r in (connection.src, connection.dst)):
        raise ScheduleError(f"{name}: must join two different ranks of 0..{nranks - 1}")
    if not 1 <= connection.slots <= MOST_SLOTS:
        raise ScheduleError(f"{name}: has {connection.slots} slots, needs 1 to {MOST_SLOTS}")
    if connection.protocol not in PROTOCOLS or connection.transport not in TRANSPORTS:
        raise ScheduleError(f"{name}: unknown protocol {connection.protocol!r} or transport {connection.transport!r}")
    path = connection.path
    if len(path) < 2 or path[0] != connection.src or path[-1] != connection.dst or not all(v in switches for v in path[1:-1]):
        raise ScheduleError(f"{name}: its path {'→'.join(map(str, path))} does not lead through switches from one to the other")
    for hop in pairwise(path):
        if hop not in links:
            raise ScheduleError(f"{name}: its path uses {hop[0]}→{hop[1]}, where there is no link")


def _check_names(program: Program, rank: int, step: Step, where: str) -> None:
    if not 0 <= step.share < len(program.weights) or not 0 <= step.shard < program.nshards:
        raise ScheduleError(f"{where}: there is no shard {step.shard}, share {step.share}")
    sources, sinks = {"nop": ((0, 0), (0, 0)), "copy": ((1, 1), (1, 64)), "reduce": ((2, 64), (1, 64))}.get(step.op, ((1, 0), (1, 0)))
    if not sources[0] <= len(step.srcs) <= sources[1] or not sinks[0] <= len(step.dsts) <= sinks[1]:
        raise ScheduleError(f"{where}: a {step.op} of {len(step.srcs)} sources to {len(step.dsts)} destinations")
    if len(step.srcs) + len(step.dsts) > MOST_OPERANDS:
        raise ScheduleError(f"{where}: {len(step.srcs) + len(step.dsts)} operands, at most {MOST_OPERANDS} are supported")
    for used in _connections(step):
        if not 0 <= used < len(program.connections) or rank not in (program.connections[used].src, program.connections[used].dst):
            raise ScheduleError(f"{where}: c{used} does not end at rank {rank}")
    for name, listed in (("wait", step.wait), ("signal", step.signal)):
        if len(set(listed)) != len(listed):
            raise ScheduleError(f"{where}: lists a connection twice under {name}")
    for operand in step.dsts:
        if operand.buffer == "input":
            raise ScheduleError(f"{where}: writes an input")
        if operand.connection is not None and program.connections[operand.connection].src != rank:
            raise ScheduleError(f"{where}: writes a slot of c{operand.connection}, which rank {rank} reads")
    for operand in step.srcs:
        if operand.connection is not None and program.connections[operand.connection].dst != rank:
            raise ScheduleError(f"{where}: reads a slot of c{operand.connection}, which rank {rank} writes")
    if len(set(step.dsts)) != len(step.dsts):
        raise ScheduleError(f"{where}: writes one place twice")
    for operand in (*step.srcs, *step.dsts):
        if (operand.connection is None) != (operand.buffer != "slot") or operand.buffer not in ("input", "output", "scratch", "slot"):
            raise ScheduleError(f"{where}: malformed operand {operand}")
        if operand.rank is not None and not 0 <= operand.rank < program.nranks:
            raise ScheduleError(f"{where}: there is no rank {operand.rank}")
    for after in step.after:
        channels = program.ranks[rank]
        if not 0 <= after.channel < len(channels) or not 0 <= after.step < len(channels[after.channel].steps) or after.lag < 0:
            raise ScheduleError(f"{where}: after names channel {after.channel}, step {after.step}, lag {after.lag}: there is no such thing")


def _connections(step: Step) -> list[int]:
    """Every connection a step names."""
    slots = [o.connection for o in (*step.srcs, *step.dsts) if o.connection is not None]
    return list(dict.fromkeys((*step.wait, *step.signal, *slots)))


def check_partition(program: Program) -> None:
    """The ranges that executors will use, as data: they tile the buffer, and a chunk fits a slot.

    Tried at counts around the corners: none, one, fewer elements than shares, ragged, and large.
    """
    from .._core import Partition

    for count, elem_size, chunk_bytes in ((0, 4, 64), (1, 4, 64), (5, 8, 16), (1021, 4, 256), (4099, 2, 1000), ((1 << 30) + 1, 4, 1 << 26)):
        partition = Partition(count, elem_size, program.nshards, program.weights, chunk_bytes)
        ranges = []
        for shard in range(program.nshards):
            for share in range(len(program.weights)):
                for iteration in range(partition.iterations(share)):
                    offset, length = partition.chunk_range(shard, share, iteration)
                    if length > partition.chunk_elements:
                        raise ScheduleError(f"partition: chunk {iteration} of shard {shard}, share {share} of {count} elements does not fit a slot")
                    if length:
                        ranges.append((offset, offset + length))
        at = 0
        for begin, end in sorted(ranges):
            if begin != at:
                raise ScheduleError(f"partition: of {count} elements, {'none covers' if begin > at else 'two ranges cover'} element {min(at, begin)}")
            at = end
        if at != count:
            raise ScheduleError(f"partition: of {count} elements, the ranges end at {at}")


# -- unrolling -------------------------------------------------------------------------------------------------------


@dataclass
class _Event:
    """One execution of a step."""

    rank: int
    channel: int
    index: int  # of the step in its channel
    iteration: int
    step: Step
    track: int  # which (rank, channel), as a number
    order: int  # position among its track's events, from 1
    before: list[_Event] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)  # connection -> sequence number of its current chunk
    clock: Clock | None = None

    def __str__(self) -> str:
        return f"rank {self.rank}, channel {self.channel}, step {self.index}, iteration {self.iteration}"


def verify_unrolled(program: Program, trips: Sequence[int]) -> None:
    """Prove a program for these trip counts, one per share. :func:`check_structure` must have passed."""
    tracks = _unroll(program, trips)
    _connect(program, tracks)
    order = _topological(tracks)
    memory = _Memory(len(tracks))
    for event in order:
        _execute(event, memory)
    _check_result(program, trips, memory)


def _unroll(program: Program, trips: Sequence[int]) -> list[list[_Event]]:
    tracks: list[list[_Event]] = []
    for rank, channels in enumerate(program.ranks):
        for c, channel in enumerate(channels):
            events: list[_Event] = []
            for iteration in range(max((trips[s.share] for s in channel.steps), default=0)):
                for s, step in enumerate(channel.steps):
                    if iteration < trips[step.share]:
                        events.append(_Event(rank, c, s, iteration, step, len(tracks), len(events) + 1))
            for previous, event in pairwise(events):
                event.before.append(previous)
            tracks.append(events)
    return tracks


def _connect(program: Program, tracks: list[list[_Event]]) -> None:
    """Number the chunks of every connection on both sides and draw the edges between them."""
    sent: dict[int, list[_Event]] = {i: [] for i in range(len(program.connections))}
    taken: dict[int, list[_Event]] = {i: [] for i in range(len(program.connections))}
    waits: list[tuple[_Event, int, int]] = []  # event, connection, sequence
    for events in tracks:
        held: set[int] = set()  # connections whose current chunk or slot this channel has waited for
        for event in events:
            for c in event.step.wait:
                if c in held:
                    raise ScheduleError(f"{event}: waits for c{c} again before signalling it")
                held.add(c)
            for c in _connections(event.step):
                done = sent[c] if program.connections[c].src == event.rank else taken[c]
                event.slots[c] = len(done)
                if c not in held:
                    raise ScheduleError(f"{event}: uses c{c} without having waited for it")
            waits += [(event, c, event.slots[c]) for c in event.step.wait]
            for c in event.step.signal:
                (sent[c] if program.connections[c].src == event.rank else taken[c]).append(event)
                held.discard(c)
        if held:
            raise ScheduleError(f"{events[-1]}: the channel ends without signalling c{min(held)}")
    for c, connection in enumerate(program.connections):
        if len(sent[c]) != len(taken[c]):
            raise ScheduleError(f"connection c{c} {connection.src}→{connection.dst}: {len(sent[c])} chunks are published, {len(taken[c])} are taken")
    for event, c, sequence in waits:
        connection = program.connections[c]
        if connection.dst == event.rank:
            event.before.append(sent[c][sequence])
        elif sequence >= connection.slots:
            event.before.append(taken[c][sequence - connection.slots])
    _connect_after(program, tracks)


def _connect_after(program: Program, tracks: list[list[_Event]]) -> None:
    number = {(rank, c): t for t, (rank, c) in enumerate((r, c) for r, chs in enumerate(program.ranks) for c in range(len(chs)))}
    for events in tracks:
        for event in events:
            for after in event.step.after:
                if event.iteration < after.lag:
                    continue
                target = (event.iteration - after.lag, after.step)
                passed = [e for e in tracks[number[event.rank, after.channel]] if (e.iteration, e.index) <= target]
                if passed:
                    event.before.append(passed[-1])


def _topological(tracks: list[list[_Event]]) -> list[_Event]:
    """An order in which every event follows what it waits for; vector clocks on the way."""
    events = [event for track in tracks for event in track]
    follows: dict[int, list[_Event]] = {id(e): [] for e in events}
    missing = {id(e): len(e.before) for e in events}
    for event in events:
        for earlier in event.before:
            follows[id(earlier)].append(event)
    ready = [e for e in events if not e.before]
    order: list[_Event] = []
    while ready:
        event = ready.pop()
        order.append(event)
        clock = np.zeros(len(tracks), dtype=np.int64)
        for earlier in event.before:
            assert earlier.clock is not None
            np.maximum(clock, earlier.clock, out=clock)
        clock[event.track] = event.order
        event.clock = clock
        for later in follows[id(event)]:
            missing[id(later)] -= 1
            if not missing[id(later)]:
                ready.append(later)
    if len(order) < len(events):
        raise ScheduleError(f"deadlock: {_cycle(events, order)}")
    return order


def _cycle(events: list[_Event], order: list[_Event]) -> str:
    """A cycle of waits among the events that never became ready."""
    ran = {id(e) for e in order}
    event = next(e for e in events if id(e) not in ran)
    trail: list[_Event] = []
    while event not in trail:
        trail.append(event)
        event = next(e for e in event.before if id(e) not in ran)
    loop = trail[trail.index(event) :]
    return " waits for ".join(str(e) for e in [*loop, event])


class _Memory:
    """Places, what they hold as expressions, and who touched them last."""

    def __init__(self, ntracks: int) -> None:
        self.ntracks = ntracks
        self.value: dict[Place, int] = {}
        self.cell: dict[Place, Cell] = {}  # what part of the buffer a slot's chunk is
        self.writer: dict[Place, _Event] = {}
        self.readers: dict[Place, list[_Event]] = {}
        self._expressions: dict[tuple[object, ...], int] = {}
        self._by_number: list[tuple[object, ...]] = []
        self._contributions: dict[int, Counter[tuple[object, ...]]] = {}

    def expression(self, *parts: object) -> int:
        """The number of an expression; equal expressions have equal numbers."""
        if parts not in self._expressions:
            self._expressions[parts] = len(self._by_number)
            self._by_number.append(parts)
        return self._expressions[parts]

    def read(self, place: Place, event: _Event) -> int:
        if place not in self.value:
            if place[0] != "input":
                raise ScheduleError(f"{event}: reads {_place(place)} before anything is written there")
            self.value[place] = self.expression("input", *place[1:])
        self._ordered(self.writer.get(place), event, place)
        self.readers.setdefault(place, []).append(event)
        return self.value[place]

    def write(self, place: Place, event: _Event, value: int) -> None:
        self._ordered(self.writer.get(place), event, place)
        # In place, an output is its rank's input: who reads the input must do so before.
        twin: Place = ("input", *place[1:]) if place[0] == "output" else place
        for reader in (*self.readers.get(place, ()), *(self.readers.get(twin, ()) if twin != place else ())):
            if reader is not event:
                self._ordered(reader, event, place)
        self.value[place] = value
        self.writer[place] = event
        self.readers[place] = []

    def check_input(self, place: Place, event: _Event) -> None:
        """In place, an input may be read once its output is written only if what was written is the input itself."""
        twin: Place = ("output", *place[1:])
        writer = self.writer.get(twin)
        if writer is not None and self.value[twin] != self.expression("input", *place[1:]):
            raise ScheduleError(f"{event}: reads {_place(place)}; called in place, ({writer}) has overwritten it")
        self._ordered(writer, event, place)

    def check_cell(self, place: Place, cell: Cell, event: _Event) -> None:
        """A slot holds the chunk it was filled with: read or completed as another one, its length would be wrong."""
        if self.cell.setdefault(place, cell) != cell:
            raise ScheduleError(f"{event}: takes {_place(place)} for (shard, share, chunk) {cell}, it holds {self.cell[place]}")

    def contributions(self, value: int) -> Counter[tuple[object, ...]]:
        """How often each input enters an expression."""
        if value not in self._contributions:
            parts = self._by_number[value]
            total: Counter[tuple[object, ...]] = Counter([parts[1:]] if parts[0] == "input" else [])
            for part in parts[1:] if parts[0] != "input" else ():
                assert isinstance(part, int)
                total += self.contributions(part)
            self._contributions[value] = total
        return self._contributions[value]

    @staticmethod
    def _ordered(earlier: _Event | None, later: _Event, place: Place) -> None:
        if earlier is None or earlier is later:
            return
        assert later.clock is not None
        if later.clock[earlier.track] < earlier.order:
            raise ScheduleError(f"{later}: touches {_place(place)}, and nothing orders it after ({earlier}), which does too")


def _execute(event: _Event, memory: _Memory) -> None:
    values = []
    for operand in event.step.srcs:
        place = _locate(event, operand)
        if place[0] == "input":
            memory.check_input(place, event)
        if place[0] == "slot":
            memory.check_cell(place, _cell(event), event)
        values.append(memory.read(place, event))
    if not event.step.dsts:
        return
    value = values[0] if event.step.op == "copy" else memory.expression("sum", *values)
    for operand in event.step.dsts:
        place = _locate(event, operand)
        if place[0] == "slot":
            memory.check_cell(place, _cell(event), event)
        memory.write(place, event, value)


def _cell(event: _Event) -> Cell:
    return event.step.shard, event.step.share, event.iteration


def _locate(event: _Event, operand: Operand) -> Place:
    if operand.connection is not None:
        # The slot is a place of its own per chunk: credit has ordered its reuse, and each chunk is written anew.
        return ("slot", operand.connection, event.slots[operand.connection])
    return (operand.buffer, event.rank if operand.rank is None else operand.rank, _cell(event))


def _place(place: Place) -> str:
    if place[0] == "slot":
        return f"chunk {place[2]} of c{place[1]}"
    assert isinstance(place[2], tuple)
    shard, share, iteration = place[2]
    return f"{place[0]} of rank {place[1]} (shard {shard}, share {share}, chunk {iteration})"


def _check_result(program: Program, trips: Sequence[int], memory: _Memory) -> None:
    """The postcondition of the collective, cell by cell."""
    cells = [(shard, share, i) for shard in range(program.nshards) for share, n in enumerate(trips) for i in range(n)]
    everyone = range(program.nranks)
    for cell in cells:
        if program.collective == "broadcast":
            promised = Counter([(program.root, cell)])
            receivers: Sequence[int] = everyone
        elif program.collective in ("allreduce", "reduce"):
            promised = Counter([(rank, cell) for rank in everyone])
            receivers = everyone if program.collective == "allreduce" else [program.root or 0]
        else:
            raise ScheduleError(f"the verifier does not know what {program.collective} promises")
        got = {rank: memory.value.get(("output", rank, cell)) for rank in receivers}
        for rank, value in got.items():
            where = f"output of rank {rank} (shard {cell[0]}, share {cell[1]}, chunk {cell[2]})"
            if value is None:
                raise ScheduleError(f"{where} is never written")
            if memory.contributions(value) != promised:
                raise ScheduleError(f"{where} holds {_contributions(memory, value)}, expected {program.collective}'s {len(promised)} inputs once each")
            if value != got[receivers[0]]:
                raise ScheduleError(f"{where} is summed in another order than on rank {receivers[0]}: results would differ in their last bits")


def _contributions(memory: _Memory, value: int) -> str:
    parts = memory.contributions(value)
    return " + ".join(f"{n} x input{key}" if n > 1 else f"input{key}" for key, n in sorted(parts.items(), key=str)[:9])
