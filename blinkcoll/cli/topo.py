"""``blinkcoll topo``: the layouts there are, a machine's links, the differences between two machines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..topology import Topology, layout_names, load_layout
from .options import Gpus, read_gpus, read_machine

app = typer.Typer(no_args_is_help=True, help="Show machines: named layouts, files, servers over a network.")

Source = Annotated[str, typer.Argument(help="A layout's name, a topology file of any known format, or NAME*N@RATE.", metavar="NAME|FILE")]
Arch = Annotated[str, typer.Option("--arch", help="The GPUs' architecture where a file does not say it: sm_80, gfx90a.", metavar="ARCH")]
AsJson = Annotated[bool, typer.Option("--json", help="blinkcoll's JSON, exact rates as p/q.")]
AsDot = Annotated[bool, typer.Option("--dot", help="A Graphviz graph.")]
Svg = Annotated[Path | None, typer.Option("--svg", help="Draw it into this file.", metavar="FILE")]


@app.command("list")
def list_layouts(names_only: Annotated[bool, typer.Option("--names", help="Names and aliases alone, one a line.")] = False) -> None:
    """The layouts that come with blinkcoll."""
    if names_only:
        typer.echo("\n".join(layout_names()))
        return
    rows: dict[str, tuple[Topology, list[str]]] = {}
    for name in layout_names():
        topology = load_layout(name)
        rows.setdefault(topology.name, (topology, []))[1].extend([name] if name != topology.name else [])
    width = max(map(len, rows))
    for name, (topology, aliases) in sorted(rows.items()):
        model = topology.devices[0].model or f"{topology.devices[0].kind} ranks"
        also = f"  (also {', '.join(aliases)})" if aliases else ""
        typer.echo(f"{name.ljust(width)}  {topology.nranks:3}x {model}, {', '.join(topology.kinds())}{also}")


@app.command()
def show(source: Source, gpus: Gpus = None, arch: Arch = "", as_json: AsJson = False, as_dot: AsDot = False, svg: Svg = None) -> None:
    """The links of a machine: a matrix, links per device, the PCIe tree; or the same as JSON, DOT or a picture."""
    present(read_gpus(read_machine(source, arch, "SOURCE"), gpus), as_json, as_dot, svg)


@app.command()
def diff(a: Source, b: Source, arch: Arch = "") -> None:
    """Where two machines differ, by ranks; exit 1 where they do."""
    from ..show.topology_diff import topology_diff

    one, other = read_machine(a, arch, "A"), read_machine(b, arch, "B")
    for topology in (one, other):
        say_notes(topology)
    lines = topology_diff(one, other)
    text = "\n".join(lines) if lines else f"{one.name} and {other.name} are the same machine"
    typer.echo(fitting(text, sys.stdout.encoding))
    if lines:
        raise typer.Exit(1)


def present(topology: Topology, as_json: bool, as_dot: bool, svg: Path | None) -> None:
    """A topology in the form asked for; its notes go to stderr."""
    from ..show.topology_dot import topology_dot
    from ..show.topology_svg import topology_svg
    from ..show.topology_text import topology_text

    if as_json and as_dot:
        raise typer.BadParameter("give one of --json and --dot")
    say_notes(topology)
    if svg is not None:
        write(svg, topology_svg(topology), "--svg")
    if as_json:
        typer.echo(topology.to_json())
    elif as_dot:
        typer.echo(fitting(topology_dot(topology), sys.stdout.encoding), nl=False)
    elif svg is None:
        typer.echo(fitting(topology_text(topology), sys.stdout.encoding))


def fitting(text: str, encoding: str | None) -> str:
    """The text as a stream of that encoding can show it: branches of trees in ASCII, ``?`` for what it has no sign for."""
    encoding = encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(str.maketrans("├└│─", "|`|-")).encode(encoding, "replace").decode(encoding)
    return text


def say_notes(topology: Topology) -> None:
    """What a parser or probe assumed or threw away, one line each on stderr."""
    while topology.parent is not None:
        topology = topology.parent
    for note in topology.notes:
        sys.stderr.write(fitting(f"# {note}\n", sys.stderr.encoding))


def write(path: Path, text: str, option: str) -> None:
    """A text file; a place that cannot be written to is bad usage of ``option``."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint=option) from None
