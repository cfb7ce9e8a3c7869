"""Exchanges between servers: opaque steps with a contract, and what they amount to where no engine carries them.

The pass :func:`expand_exchanges` makes one-hop connections of each exchange, around its group's first member (the hub): the
others send it what they give, it adds up in the order of the group, as the contract says, and sends the result to those that
get. What comes out is an ordinary program, which the verifier proves by itself: it is not trusted to be equal.

So that a chunk is on its way while the next is being added up, a channel is cut at the exchange wherever nothing else ties its
two parts together; and what a member gives is sent by the step that computes it, where that is the step before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ..topology import route
from .program import After, Channel, Connection, Operand, Program, Step, slot
from .split import split_wide_steps

EXCHANGE = "exchange"


def has_exchanges(program: Program) -> bool:
    """Whether some step is one."""
    return any(step.op == EXCHANGE for channels in program.ranks for channel in channels for step in channel.steps)


def expand_exchanges(program: Program, *, slots: int = 4) -> Program:
    """The program with connections of its own in place of exchanges; itself where it has none.

    Parameters
    ----------
    slots
        Of each connection that has to be made because an exchange names no way; ways that are named keep theirs.

    Raises
    ------
    ScheduleError
        Where a hub adds up more than a step holds, and the program needs its scratch itself.
    TopologyError
        Where an exchange names no way and nothing leads from one member to another.
    """
    if not has_exchanges(program):
        return program
    calls = _Calls(program, slots)
    ranks = []
    for rank, channels in enumerate(program.ranks):
        made = _Rank(program, rank, calls)
        for c, channel in enumerate(channels):
            made.add(c, channel)
        ranks.append(tuple(Channel(tuple(steps)) for steps in made.channels))
    return split_wide_steps(replace(program, connections=tuple(calls.connections), ranks=tuple(ranks)))


class _Calls:
    """Every exchange's ways, by where its steps are: from each other member to the hub, and back."""

    def __init__(self, program: Program, slots: int) -> None:
        self.program, self.slots = program, slots
        self.connections = [replace(c, transport="peer") if c.transport == "c10d" else c for c in program.connections]
        self.towards: dict[tuple[int, int, int], dict[int, int]] = {}  # by (rank, channel, step), by member: a connection
        self.away: dict[tuple[int, int, int], dict[int, int]] = {}
        # How many steps read a place: (rank, buffer, share, shard).
        self.readers: Counter[tuple[int, str, int, int]] = Counter()
        groups: dict[tuple[int, tuple[int, ...]], dict[int, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
        for rank, channels in enumerate(program.ranks):
            for c, channel in enumerate(channels):
                for s, step in enumerate(channel.steps):
                    for o in step.srcs:
                        self.readers[rank if o.rank is None else o.rank, o.buffer, step.share, step.shard] += 1
                    if step.op == EXCHANGE:
                        groups[step.share, step.group][rank].append((rank, c, s))
        for (_, group), uses in groups.items():
            for call in zip(*(uses[rank] for rank in group), strict=True):
                self._add(group, call)

    def _step(self, place: tuple[int, int, int]) -> Step:
        rank, channel, step = place
        return self.program.ranks[rank][channel].steps[step]

    def _add(self, group: tuple[int, ...], call: Sequence[tuple[int, int, int]]) -> None:
        hub = group[0]
        named = {(self.connections[c].src, self.connections[c].dst): c for c in self._step(call[0]).over}
        towards = {m: self._way(named, m, hub) for m, place in zip(group[1:], call[1:], strict=True) if self._step(place).srcs}
        away = {m: self._way(named, hub, m) for m, place in zip(group[1:], call[1:], strict=True) if self._step(place).dsts}
        for place in call:
            self.towards[place], self.away[place] = towards, away

    def _way(self, named: dict[tuple[int, int], int], src: int, dst: int) -> int:
        if (src, dst) in named:
            return named[src, dst]
        self.connections.append(Connection(src, dst, route(self.program.topology, src, dst), self.slots))
        return len(self.connections) - 1


class _Rank:
    """A rank's channels as they are rewritten; those cut off come after the others."""

    def __init__(self, program: Program, rank: int, calls: _Calls) -> None:
        self.rank, self.calls = rank, calls
        self.channels: list[list[Step]] = [[] for _ in program.ranks[rank]]
        self.watched = {a.channel for channel in program.ranks[rank] for step in channel.steps for a in step.after}

    def add(self, number: int, channel: Channel) -> None:
        """A channel, cut at each exchange where that may be."""
        at = number
        for s, step in enumerate(channel.steps):
            if step.op != EXCHANGE:
                self.channels[at].append(step)
                continue
            place = (self.rank, number, s)
            free = number not in self.watched and not _tied(channel.steps[:s], channel.steps[s:])
            if self.rank == step.group[0]:
                at = self._as_hub(step, self.calls.towards[place], self.calls.away[place], at, free)
            else:
                at = self._as_member(step, self.calls.towards[place].get(self.rank), self.calls.away[place].get(self.rank), at, free)

    def _as_member(self, step: Step, out: int | None, back: int | None, at: int, free: bool) -> int:
        """Send what it gives, take what it gets; returns the channel that what follows belongs to."""
        sources = {o.connection for o in step.srcs}
        if out is not None:
            given = _only(step, sources) if back is not None else step
            if not (free and self._sent_at_once(at, step, given, (out,))):
                self.channels[at].append(_ordinary(given, step.srcs, (slot(out),), (out,), scaled=False))
        if back is not None:
            got = _only(step, {*step.wait, *step.signal} - sources)
            if free and self.channels[at]:
                self.channels.append([])
                at = len(self.channels) - 1
            self.channels[at].append(_ordinary(got, (slot(back),), step.dsts, (back,), scaled=False))
        return at

    def _as_hub(self, step: Step, towards: dict[int, int], away: dict[int, int], at: int, free: bool) -> int:
        """Add up what the others send, and send them what they get."""
        arriving, leaving = tuple(towards.values()), tuple(away.values())
        if not arriving and not step.dsts and free and not step.postscaled and self._sent_at_once(at, step, step, leaving):
            return at
        made = _ordinary(step, (*step.srcs, *map(slot, arriving)), (*step.dsts, *map(slot, leaving)), (*arriving, *leaving), scaled=step.postscaled)
        if arriving and free and self.channels[at]:
            made = replace(made, after=(After(at, len(self.channels[at]) - 1),))
            self.channels.append([])
            at = len(self.channels) - 1
        self.channels[at].append(made)
        return at

    def _sent_at_once(self, at: int, step: Step, given: Step, outs: tuple[int, ...]) -> bool:
        """Let the step before send what it stores where the exchange would read it; False where that is another place."""
        if not self.channels[at] or given.after or given.wait or given.signal:
            return False
        before, (source,) = self.channels[at][-1], step.srcs
        if source.connection is not None or source.prescaled or source not in before.dsts or before.shard != step.shard:
            return False
        # The store itself is in vain where the exchange alone reads it, and writes the place itself if it is an output.
        alone = self.calls.readers[self.rank, source.buffer, step.share, step.shard] == 1
        kept = tuple(o for o in before.dsts if o != source or not alone or not (source.buffer == "scratch" or source in step.dsts))
        self.channels[at][-1] = replace(before, dsts=(*kept, *map(slot, outs)), wait=(*before.wait, *outs), signal=(*before.signal, *outs))
        return True


def _ordinary(step: Step, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], over: tuple[int, ...], scaled: bool) -> Step:
    """An ordinary step in place of an exchange's, that waits for and signals these connections too."""
    op = "copy" if len(srcs) == 1 else "reduce"
    return replace(step, op=op, srcs=srcs, dsts=dsts, wait=(*step.wait, *over), signal=(*step.signal, *over), postscaled=scaled, group=(), over=())


def _only(step: Step, connections: set[int | None] | set[int]) -> Step:
    """The step with the synchronisation of these connections alone."""
    return replace(step, wait=tuple(c for c in step.wait if c in connections), signal=tuple(c for c in step.signal if c in connections))


def _tied(before: Sequence[Step], rest: Sequence[Step]) -> bool:
    """Whether the two parts of a channel share a connection or wait within the rank, so that they have to stay in one."""
    used = [{c for step in part for c in (*step.wait, *step.signal)} for part in (before, rest)]
    return bool(used[0] & used[1]) or any(step.after for step in rest)
