"""The same program by another protocol: how a chunk's arrival is told.

``simple``: data, then a counter. ``LL``: every eight bytes carry four of data and four of flag, so that the data's arrival
is the news of it; half of the wire. ``LL128``: of every 128 bytes eight are flag, which needs stores of 128 bytes that
arrive whole. Both need the data in a connection's slots, because that is where flags can travel with it.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import ScheduleError
from .program import Program

#: What programs may be given.
EXECUTABLE = ("simple", "LL", "LL128")


def with_protocol(program: Program, name: str) -> Program:
    """``program`` with every connection by protocol ``name``.

    Raises
    ------
    ScheduleError
        Where there is no such protocol, or a step signals a peer whose data does not lie in that connection's slot.
    """
    if name not in EXECUTABLE:
        raise ScheduleError(f"no protocol is called {name!r}; known: {', '.join(EXECUTABLE)}")
    if name != "simple":
        bare = _without_data(program)
        if bare:
            raise ScheduleError(f"{program.algorithm}: {name} has its flags beside the data, but c{bare[0]} carries none")
    return replace(program, connections=tuple(replace(c, protocol=name) for c in program.connections))


def _without_data(program: Program) -> list[int]:
    """Connections that are only signals, for at least one step that writes them."""
    bare: set[int] = set()
    for rank, channels in enumerate(program.ranks):
        for channel in channels:
            for step in channel.steps:
                carried = {o.connection for o in (*step.srcs, *step.dsts)}
                bare.update(c for c in step.signal if program.connections[c].src == rank and c not in carried)
    return sorted(bare)
