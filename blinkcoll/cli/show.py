"""``blinkcoll show``: a program in a file, as people read it or as a Graphviz graph."""

from __future__ import annotations

from typing import Annotated

import typer

from .verify import ProgramFile, read_program


def show(
    file: ProgramFile,
    dot: Annotated[bool, typer.Option("--dot", help="A Graphviz graph of the connections instead of the text.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="One screen: which ranks are joined how often, and what each share has.")] = False,
    share: Annotated[int | None, typer.Option("--share", help="With --dot: this share only.", min=0)] = None,
) -> None:
    """Show a program: connections, then one line a step. It is not verified here."""
    from ..schedules import program_summary, program_text
    from ..show.program_dot import program_dot

    program = read_program(file)
    if share is not None and (not dot or share >= len(program.weights)):
        raise typer.BadParameter(f"{share}: goes with --dot, and is one of 0..{len(program.weights) - 1}", param_hint="--share")
    if summary and dot:
        raise typer.BadParameter("goes without --dot", param_hint="--summary")
    text = program_summary if summary else program_text
    typer.echo(program_dot(program, share) if dot else text(program), nl=not dot)
