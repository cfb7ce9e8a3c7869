"""Nobody stores into another rank's memory before that rank has begun the call: a pass.

Rings that store what is complete straight into the next rank's output spare a copy, but a rank that is still in its last call would
find its result overwritten. Here every rank first tells those that store into its memory that it has begun, once an
iteration, and their first store waits for that.
"""

from __future__ import annotations

from dataclasses import replace

from ..topology import route
from .program import Channel, Connection, Program, Step


def begun_first(program: Program) -> Program:
    """``program`` with a signal back along every connection whose writer also stores into its reader's buffers."""
    connections = list(program.connections)
    ranks = [list(channels) for channels in program.ranks]
    for c, connection in enumerate(program.connections):
        if not _stores_into(program, c):
            continue
        begun = len(connections)
        connections.append(
            Connection(connection.dst, connection.src, route(program.topology, connection.dst, connection.src), connection.slots)
        )
        for channels, rank in ((ranks[connection.dst], connection.dst), (ranks[connection.src], connection.src)):
            for i, channel in enumerate(channels):
                uses = [s for s, step in enumerate(channel.steps) if c in step.wait or c in step.signal]
                if uses:
                    channels[i] = _tell(channel, begun) if rank == connection.dst else _heed(channel, uses[0], begun)
    return replace(program, connections=tuple(connections), ranks=tuple(map(tuple, ranks)))


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
    step = steps[use]
    steps[use] = replace(step, wait=(*step.wait, begun), signal=(*step.signal, begun))
    return Channel(tuple(steps))
