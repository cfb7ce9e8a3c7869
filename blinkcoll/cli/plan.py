"""``blinkcoll plan``: the trees, their rates, the bound and its proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import Gpus, Root, Topo, read_size, read_topology


def plan(
    topo: Topo,
    gpus: Gpus = None,
    collective: Annotated[str, typer.Option("--collective", help="broadcast, reduce, allreduce ...", metavar="NAME")] = "allreduce",
    root: Root = None,
    as_json: Annotated[bool, typer.Option("--json", help="Exact rates as p/q, for machines.")] = False,
    program: Annotated[Path | None, typer.Option("--program", help="Write the verified program (JSON) there.", metavar="FILE")] = None,
    nbytes: Annotated[str, typer.Option("--nbytes", help="The size the program is meant for.", metavar="SIZE")] = "64M",
) -> None:
    """Pack trees over the links there are, and prove how good they are."""
    from .. import api
    from ..show.plan_text import plan_json, plan_text

    size = read_size(nbytes, "--nbytes")
    topology = read_topology(topo, gpus)
    made = api.plan(topology, collective, root=root)
    made.check()
    made.certificate.check(topology)
    if program is not None:
        try:
            program.write_text(made.schedule(nbytes=size).to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"{program}: {error.strerror}", param_hint="--program") from None
    typer.echo(json.dumps(plan_json(made), indent=1) if as_json else plan_text(made))
