"""Nobody stores into another rank's memory before that rank has begun the call: two passes.

Rings that store what is complete straight into the next rank's output spare a copy, but a rank that is still in its last call would
find its result overwritten. By :func:`begun_first` every rank first tells those that store into its memory that it has begun, once an
iteration, and their first store waits for that: a hop more. By :func:`begun_meanwhile` the earlier half of an iteration's chunks goes through
slots, which may always be written, and a rank tells with its own first step; when the later half is stored that has long arrived.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import ScheduleError
from ..topology import Topology, route
from .program import OUTPUT, Channel, Connection, Operand, Program, Step, slot


def begun_before_stores(program: Program) -> Program:
    """``program`` safe to repeat, by :func:`begun_meanwhile` where that applies: it costs nothing."""
    try:
        return begun_meanwhile(program)
    except ScheduleError:
        return begun_first(program)


def begun_first(program: Program) -> Program:
    """``program`` with a signal back along every connection whose writer also stores into its reader's buffers."""
    connections = list(program.connections)
    ranks = [list(channels) for channels in program.ranks]
    for c, connection in enumerate(program.connections):
        if not _stores_into(program, c):
            continue
        begun = len(connections)
        connections.append(_back(program.topology, connection))
        for channels, rank in ((ranks[connection.dst], connection.dst), (ranks[connection.src], connection.src)):
            for i, channel in enumerate(channels):
                uses = [s for s, step in enumerate(channel.steps) if c in step.wait or c in step.signal]
                if uses:
                    channels[i] = _tell(channel, begun) if rank == connection.dst else _heed(channel, uses[0], begun)
    return replace(program, connections=tuple(connections), ranks=tuple(map(tuple, ranks)))


def begun_meanwhile(program: Program) -> Program:
    """``program`` with the earlier half of the stores along every such connection into slots, and a signal back that the next waits for.

    Raises
    ------
    ScheduleError
        Where a connection is used once only, or its reader's first step waits for it: :func:`begun_first` does for these.
    """
    connections = list(program.connections)
    ranks = [[list(channel.steps) for channel in channels] for channels in program.ranks]
    for c, connection in enumerate(program.connections):
        if not _stores_into(program, c):
            continue
        begun = len(connections)
        connections.append(_back(program.topology, connection))
        there = Operand("output", rank=connection.dst)
        for steps in ranks[connection.src]:
            uses = [s for s, step in enumerate(steps) if c in step.signal]
            if len(uses) == 1:
                raise ScheduleError(f"c{c} is used once an iteration: there is no later store")
            early = len(uses) // 2
            for s in uses[:early]:
                steps[s] = replace(steps[s], dsts=tuple(slot(c) if o == there else o for o in steps[s].dsts))
            if uses:
                steps[uses[early]] = _with_sync(steps[uses[early]], begun)
        for steps in ranks[connection.dst]:
            uses = [s for s, step in enumerate(steps) if c in step.wait]
            if uses and uses[0] == 0:
                raise ScheduleError(f"c{c}: rank {connection.dst} does nothing before it reads")
            for s in uses[: len(uses) // 2]:
                steps[s] = replace(steps[s], srcs=(slot(c),), dsts=(OUTPUT, *steps[s].dsts))
            if uses:
                steps[0] = _with_sync(steps[0], begun)
    return replace(program, connections=tuple(connections), ranks=tuple(tuple(Channel(tuple(steps)) for steps in channels) for channels in ranks))


def _back(topology: Topology, connection: Connection) -> Connection:
    """From its reader to its writer."""
    return Connection(connection.dst, connection.src, route(topology, connection.dst, connection.src), connection.slots)


def _with_sync(step: Step, connection: int) -> Step:
    return replace(step, wait=(*step.wait, connection), signal=(*step.signal, connection))


def _stores_into(program: Program, c: int) -> bool:
    connection = program.connections[c]
    return any(
        c in step.signal and any(o.rank == connection.dst and o.buffer == "output" for o in step.dsts)
        for channel in program.ranks[connection.src]
        for step in channel.steps
    )


def _tell(channel: Channel, begun: int) -> Channel:
    """Before all else: this rank has begun."""
    first = channel.steps[0]
    return Channel((Step("nop", first.share, wait=(begun,), signal=(begun,), shard=first.shard), *channel.steps))


def _heed(channel: Channel, use: int, begun: int) -> Channel:
    """The first store waits for it; later ones come after the first."""
    steps = list(channel.steps)
    steps[use] = _with_sync(steps[use], begun)
    return Channel(tuple(steps))
