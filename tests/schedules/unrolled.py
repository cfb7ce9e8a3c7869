"""The verifier's oracle: the chunk loop unrolled, every event and every physical slot on its own.

Nothing is shared with the verifier but the IR's types, and nothing is periodic here: the graph of all events of all
iterations is built for given trip counts, a cycle is a deadlock, and the events are executed on expressions, with
vector clocks that show any two accesses to one place, one of them a write, that no path orders. A slot is the memory
that it is: use q lies in slot q mod slots, so that a wrong credit shows as a race. An arrival in lines (LL) lets its reader
go on and tells it nothing but the chunk itself; a place that was read by units may be overwritten by units computed from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from blinkcoll.errors import ScheduleError
from blinkcoll.schedules.contract import view
from blinkcoll.schedules.program import Operand, Program, Step

Cell = tuple[int, int, int]  # shard, share, iteration
Place = tuple[object, ...]  # ("slot", connection, sequence) or (buffer, rank, cell)
Clock = np.ndarray[tuple[int], np.dtype[np.int64]]


def verify(program: Program) -> None:
    """Unroll at all critical trip counts, out of place and, where the program claims it, in place."""
    for trips in critical_trips(program):
        for in_place in (False, True) if program.in_place else (False,):
            verify_unrolled(program, trips, in_place)


def critical_trips(program: Program) -> list[tuple[int, ...]]:
    """Trip counts per share at which to unroll."""
    nshares = len(program.weights)
    slots = sorted({c.slots for c in program.connections}) or [1]
    depth = min(program.nranks, 16)
    counts = sorted({0, 1, 2, *(s + d for s in slots for d in (-1, 0, 1)), depth + slots[-1] + 2})
    equal = [(n,) * nshares for n in counts]
    unequal = [tuple((i + shift) % 3 + i % 2 * slots[-1] for i in range(nshares)) for shift in range(2)] if nshares > 1 else []
    return [*equal, *unequal]


def _connections(step: Step) -> list[int]:
    """Every connection a step names."""
    slots = [o.connection for o in (*step.srcs, *step.dsts) if o.connection is not None]
    return list(dict.fromkeys((*step.wait, *step.signal, *slots)))


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
    hinted: list[_Event] = field(default_factory=list)  # waits for these as well, and knows nothing by it
    origins: set[int] = field(default_factory=set)  # events whose data is in what it has read, by id
    slots: dict[int, int] = field(default_factory=dict)  # connection -> sequence number of its current chunk
    clock: Clock | None = None
    silent: bool = False  # waits and makes wait, and lets nobody know of anything
    handed: _Event | None = None  # of an exchange: where its members' sources meet
    givers: list[_Event] = field(default_factory=list)
    value: object = None

    def __str__(self) -> str:
        return f"rank {self.rank}, channel {self.channel}, step {self.index}, iteration {self.iteration}"


def verify_unrolled(program: Program, trips: Sequence[int], in_place: bool) -> None:
    """Prove a program for these trip counts, one per share."""
    tracks = _unroll(program, trips)
    _connect(program, tracks)
    order = _topological(tracks, _meet(tracks))
    memory = _Memory(program, in_place)
    for event in order:
        _execute(program, event, memory)
    _check_lifetimes(tracks)
    _check_result(program, trips, memory, tracks)


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
            (event.hinted if _in_lines(program, c) else event.before).append(sent[c][sequence])
        elif sequence >= connection.slots:
            event.before.append(taken[c][sequence - connection.slots])
    _connect_after(program, tracks)


def _in_lines(program: Program, connection: int) -> bool:
    return connection in program.carrying and program.connections[connection].protocol != "simple"


def _by_units(program: Program, event: _Event) -> bool:
    return any(o.connection is not None and _in_lines(program, o.connection) for o in (*event.step.srcs, *event.step.dsts))


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


def _meet(tracks: list[list[_Event]]) -> list[_Event]:
    """Two nodes for each call of an exchange: where all must have come before any goes on, and where what is given is handed over.

    An engine may make every member wait for every other, so deadlocks are judged by the one; it need not, so only who gets
    something learns what those that give knew, by the other.
    """
    uses: dict[tuple[int, frozenset[int]], dict[int, list[_Event]]] = {}
    for event in (e for track in tracks for e in track if e.step.op == "exchange"):
        uses.setdefault((event.step.share, frozenset(event.step.group)), {}).setdefault(event.rank, []).append(event)
    nodes = []
    for (_, group), of_rank in uses.items():
        if set(of_rank) != group or len({len(calls) for calls in of_rank.values()}) > 1:
            raise ScheduleError(f"exchange among {sorted(group)}: some rank takes no part, or not as often")
        for call in zip(*of_rank.values(), strict=True):
            if len({(e.step.group, e.step.shard, e.iteration, e.step.postscaled) for e in call}) > 1:
                raise ScheduleError(f"exchange among {sorted(group)}: {call[0]} and others disagree")
            members = sorted(call, key=lambda e: e.step.group.index(e.rank))
            gives, gets = [bool(e.step.srcs) for e in members], [bool(e.step.dsts) for e in members]
            if not (all(gives) and (all(gets) or not any(gets[1:])) and gets[0]) and not (not any(gives[1:]) and gives[0] and all(gets[1:])):
                raise ScheduleError(f"exchange among {sorted(group)}: {call[0]}: no all-reduce, reduce to the first or broadcast from it")
            first = members[0]
            handed = _Event(first.rank, first.channel, first.index, first.iteration, first.step, 0, 0)
            meeting = _Event(first.rank, first.channel, first.index, first.iteration, first.step, 0, 0, silent=True)
            handed.givers = [e for e in members if e.step.srcs]
            handed.before = [b for e in handed.givers for b in e.before]
            meeting.before = [handed, *(b for e in members for b in e.before)]
            meeting.hinted = [b for e in members for b in e.hinted]
            for event in members:
                event.before += [meeting] + [handed] * bool(event.step.dsts)
                event.handed = handed
            nodes += [handed, meeting]
    return nodes


def _topological(tracks: list[list[_Event]], nodes: Sequence[_Event] = ()) -> list[_Event]:
    """An order in which every event follows what it waits for; vector clocks on the way."""
    events = [*(event for track in tracks for event in track), *nodes]
    follows: dict[int, list[_Event]] = {id(e): [] for e in events}
    missing = {id(e): len(e.before) + len(e.hinted) for e in events}
    for event in events:
        for earlier in (*event.before, *event.hinted):
            follows[id(earlier)].append(event)
    ready = [e for e in events if not missing[id(e)]]
    order: list[_Event] = []
    while ready:
        event = ready.pop()
        order.append(event)
        clock = np.zeros(len(tracks), dtype=np.int64)
        for earlier in event.before:
            assert earlier.clock is not None
            np.maximum(clock, earlier.clock, out=clock)
        if event.order:
            clock[event.track] = event.order
        event.clock = clock * (not event.silent)
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
        event = next(e for e in (*event.before, *event.hinted) if id(e) not in ran)
    loop = trail[trail.index(event) :]
    return " waits for ".join(str(e) for e in [*loop, event])


def _holds(program: Program, buffer: str, owner: int, shard: int) -> bool:
    """Whether a rank's input or output has this shard."""
    n = program.nranks
    here = {"none": False, "own": shard == owner, "whole": True, "row": shard // n == owner, "column": shard % n == owner}
    return here[view(program.collective, buffer, owner, program.root)]


class _Memory:
    """Places, what they hold as expressions (nested tuples), and who touched them last."""

    def __init__(self, program: Program, in_place: bool) -> None:
        self.program, self.in_place = program, in_place
        self.value: dict[Place, object] = {}
        self.writer: dict[Place, _Event] = {}
        self.readers: dict[Place, list[_Event]] = {}

    def locate(self, event: _Event, operand: Operand) -> Place:
        if operand.connection is not None:
            return ("slot", operand.connection, event.slots[operand.connection] % self.program.connections[operand.connection].slots)
        owner = event.rank if operand.rank is None else operand.rank
        shard = event.step.shard if operand.shard is None else operand.shard
        cell: Cell = (shard, event.step.share, event.iteration)
        if operand.buffer != "scratch" and not _holds(self.program, operand.buffer, owner, shard):
            raise ScheduleError(f"{event}: rank {owner} has no such {operand.buffer}")
        buffer = "output" if operand.buffer == "input" and self.in_place else operand.buffer
        return (buffer, owner, cell)

    def at(self, place: Place) -> object | None:
        """What a place holds; inputs are there from the start."""
        if place not in self.value and place[0] in ("input", "output"):
            buffer, owner, cell = place
            there = buffer == "input" or self.in_place
            if there and _holds(self.program, "input", owner, cell[0]):
                return ("input", owner, cell)
        return self.value.get(place)

    def read(self, place: Place, event: _Event) -> object:
        value = self.at(place)
        if value is None:
            raise ScheduleError(f"{event}: reads {place} before anything is written there")
        writer = self.writer.get(place)
        if writer is not None:
            if not self._same_lines(place, writer, event):
                self._ordered(writer, event, place)
            event.origins |= {id(writer), *writer.origins}
        self.readers.setdefault(place, []).append(event)
        return value

    def _same_lines(self, place: Place, writer: _Event, reader: _Event) -> bool:
        """Whether the reader takes the very chunk whose flags the writer stored."""
        c = place[1]
        return place[0] == "slot" and _in_lines(self.program, c) and writer.slots[c] == reader.slots[c]

    def write(self, place: Place, event: _Event, value: object) -> None:
        self._ordered(self.writer.get(place), event, place)
        for reader in self.readers.get(place, ()):
            if not (id(reader) in event.origins and _by_units(self.program, reader) and _by_units(self.program, event)):
                self._ordered(reader, event, place)
        self.value[place] = value
        self.writer[place] = event
        self.readers[place] = []

    @staticmethod
    def _ordered(earlier: _Event | None, later: _Event, place: Place) -> None:
        if earlier is None or earlier is later:
            return
        assert later.clock is not None
        if later.clock[earlier.track] < earlier.order:
            raise ScheduleError(f"{later}: touches {place}, and nothing orders it after ({earlier}), which does too")


def _hand_over(event: _Event, memory: _Memory) -> None:
    """What the members of an exchange give, read in each one's name, as one value."""
    values = []
    for giver in event.givers:
        (operand,) = giver.step.srcs
        value = memory.read(memory.locate(giver, operand), giver)
        value = value[1] if operand.connection is not None else value
        values.append(("prescaled", value) if operand.prescaled else value)
    event.value = values[0] if len(values) == 1 else ("sum", *values)


def _execute(program: Program, event: _Event, memory: _Memory) -> None:
    if not event.order:
        return None if event.silent else _hand_over(event, memory)
    if event.handed is not None:
        return _store(program, event, event.handed.value, memory)
    values = []
    for operand in event.step.srcs:
        if operand.buffer == "multicast":
            # A sum that only this execution of this step makes, and whoever gets it.
            held = [memory.read(memory.locate(event, of_rank), event) for of_rank in _of_each_rank(program, operand)]
            values.append(("switched", str(event), *held))
            continue
        value = memory.read(memory.locate(event, operand), event)
        if operand.connection is not None:
            shard, value = value
            if shard != event.step.shard and program.collective != "alltoall":
                raise ScheduleError(f"{event}: reads a slot filled as shard {shard}")
        values.append(("prescaled", value) if operand.prescaled else value)
    in_switch = any(o.buffer == "multicast" for o in event.step.srcs)
    if in_switch and (event.step.op != "reduce" or len(values) != 1):
        raise ScheduleError(f"{event}: a switch's sum is the only source of a reduce")
    if event.step.dsts:
        _store(program, event, values[0] if event.step.op == "copy" or in_switch else ("sum", *values), memory)


def _store(program: Program, event: _Event, value: object, memory: _Memory) -> None:
    value = ("postscaled", value) if event.step.postscaled else value
    dsts = [d for operand in event.step.dsts for d in (_of_each_rank(program, operand) if operand.buffer == "multicast" else [operand])]
    places = [memory.locate(event, operand) for operand in dsts]
    if len(set(places)) < len(places):
        raise ScheduleError(f"{event}: writes one place twice")
    for operand, place in zip(dsts, places, strict=True):
        memory.write(place, event, value if operand.connection is None else (event.step.shard, value))


def _of_each_rank(program: Program, operand: Operand) -> list[Operand]:
    return [Operand(str(operand.region), rank=rank) for rank in range(program.nranks)]


def _check_lifetimes(tracks: list[list[_Event]]) -> None:
    """Peers' buffers are used only between their rank's first and last event."""
    for events in tracks:
        for event in events:
            listed = (*event.step.srcs, *event.step.dsts)
            owners = {o.rank for o in listed} | ({other[0].rank for other in tracks if other} if any(o.region in ("input", "output") for o in listed) else set())
            for owner in owners - {None, event.rank}:
                theirs = [other for track in tracks for other in track if other.rank == owner]
                assert event.clock is not None
                begun = any(event.clock[other.track] >= other.order for other in theirs)
                outlived = any(other.clock[event.track] >= event.order for other in theirs)
                if not begun or not outlived:
                    raise ScheduleError(f"{event}: uses a buffer of rank {owner} outside of its lifetime")


def _terms(value: object) -> Counter[object]:
    """How often each input enters an expression of sums."""
    if value[0] not in ("sum", "switched"):
        return Counter([value])
    total: Counter[object] = Counter()
    for part in value[1 if value[0] == "sum" else 2 :]:
        total += _terms(part)
    return total


def _check_result(program: Program, trips: Sequence[int], memory: _Memory, tracks: list[list[_Event]]) -> None:
    """The postcondition of the collective, cell by cell."""
    if program.collective == "barrier":
        return _check_barrier(program, tracks)
    for cell in ((shard, share, i) for shard in range(program.nshards) for share, n in enumerate(trips) for i in range(n)):
        sums = set()
        for rank in range(program.nranks):
            if not _holds(program, "output", rank, cell[0]):
                continue
            got = memory.at(("output", rank, cell))
            if got is None:
                raise ScheduleError(f"output of rank {rank}, {cell} is never written")
            if program.collective in ("allreduce", "reduce", "reducescatter"):
                sums.add(got)
                inputs = [("input", other, cell) for other in range(program.nranks)]
                terms = got
                if program.premultiplies:
                    inputs = [("prescaled", value) for value in inputs]
                if program.averages or program.premultiplies:
                    if got[0] != "postscaled":
                        raise ScheduleError(f"output of rank {rank}, {cell} is not scaled")
                    terms = got[1]
                if _terms(terms) != Counter(inputs):
                    raise ScheduleError(f"output of rank {rank}, {cell} is not every input once")
            elif got != ("input", *_origin(program, rank, cell)):
                raise ScheduleError(f"output of rank {rank}, {cell} holds {got}")
        if len(sums) > 1:
            raise ScheduleError(f"{cell} is summed in another order on some rank")


def _origin(program: Program, rank: int, cell: Cell) -> tuple[int, Cell]:
    """Whose input, and which part of it, ends up there."""
    shard, *rest = cell
    if program.collective in ("allgather", "gather"):
        return shard, cell
    if program.collective == "alltoall":
        return shard, (rank, *rest)
    if program.collective == "alltoallv":
        return shard // program.nranks, cell
    assert program.root is not None
    return program.root, cell


def _check_barrier(program: Program, tracks: list[list[_Event]]) -> None:
    for rank in range(program.nranks):
        for other in range(program.nranks):
            ends = [track[-1] for track in tracks if track and track[0].rank == rank]
            starts = [track[0] for track in tracks if track and track[0].rank == other]
            if rank != other and tracks[0] and not any(e.clock[s.track] >= 1 for e in ends for s in starts):
                raise ScheduleError(f"rank {rank} may leave before rank {other} has come")
