"""``blinkcoll verify``: is the program in a file right, for every count?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ScheduleError, TopologyError

if TYPE_CHECKING:
    from ..schedules import Program

ProgramFile = Annotated[Path, typer.Argument(help="A program as JSON, as `blinkcoll plan --program` writes it.", metavar="FILE")]


def verify(file: ProgramFile) -> None:
    """Prove a program for all counts: no deadlock, no race, and the result that its collective promises."""
    from .. import schedules

    program = read_program(file)
    try:
        schedules.verify(program)
    except ScheduleError as error:
        raise ScheduleError(f"{file}: {error}") from None
    ways = "in place and out of place" if program.in_place else "out of place"
    typer.echo(f"{file}: program {program.hash} is a right {program.collective} of {program.nranks} ranks for every count, {ways}")
    try:
        schedules.verify(program, repeated=True)
        typer.echo("a rank may begin its next call as soon as its own has ended")
    except ScheduleError as error:
        typer.echo(f"all ranks must begin and end a call together: {error}")


def read_program(file: Path) -> Program:
    """The program in a file; what cannot be read is a usage error, what is no program a ScheduleError."""
    from .. import schedules

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise typer.BadParameter(f"{file}: {reason}", param_hint="FILE") from None
    try:
        return schedules.Program.from_json(text)
    except (ScheduleError, TopologyError) as error:
        raise type(error)(f"{file}: {error}") from None
