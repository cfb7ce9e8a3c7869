"""The same program by another protocol: a pass over connections.

LL (NCCL's name for it) stores four bytes of data and four of flag by one access, so a chunk needs neither fence nor
counter to be news, and half of the wire is flags. A connection suits where every use of it is one step on either side:
wait, one operand, signal. One that only signals stays as it is, because its readers rely on what the signal orders.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import ScheduleError
from .program import Program, Step
from .verifier import verify

#: What executors run; LL128 is for timing others' programs only (docs/programs.md, protocols).
EXECUTABLE = ("simple", "LL")


def with_protocol(program: Program, protocol: str) -> Program:
    """The same program, verified, with every connection that suits it by ``protocol``; the others stay simple.

    Raises
    ------
    ScheduleError
        Where executors do not have the protocol, or something in the program relies on an order that it does not give.

    Examples
    --------
    >>> import blinkcoll as bc
    >>> program = bc.plan(bc.load_topology("dgx1-v100"), "allreduce").schedule(nbytes=1 << 30, protocol="simple")
    >>> {c.protocol for c in with_protocol(program, "LL").connections}
    {'LL'}
    """
    if protocol not in EXECUTABLE:
        raise ScheduleError(f"executors have no protocol {protocol!r}; they have {', '.join(EXECUTABLE)}")
    suited = _carrying_data(program) if protocol != "simple" else set(range(len(program.connections)))
    made = replace(
        program, connections=tuple(replace(c, protocol=protocol if i in suited else "simple") for i, c in enumerate(program.connections))
    )
    verify(made, repeated=True)
    return made


def protocols_of(program: Program) -> str:
    """The protocols that a program's connections have, for people: ``"LL"``, ``"LL+simple"``, ``"-"`` without any."""
    return "+".join(sorted({c.protocol for c in program.connections})) or "-"


def _carrying_data(program: Program) -> set[int]:
    """Connections all of whose uses are single steps with data."""
    suited = set(range(len(program.connections)))
    for channels in program.ranks:
        for channel in channels:
            for step in channel.steps:
                suited -= {c for c in {*step.wait, *step.signal, *_slots(step)} if not _is_one_use(step, c)}
    return suited


def _slots(step: Step) -> list[int]:
    return [o.connection for o in (*step.srcs, *step.dsts) if o.connection is not None]


def _is_one_use(step: Step, connection: int) -> bool:
    return connection in step.wait and connection in step.signal and _slots(step).count(connection) == 1
