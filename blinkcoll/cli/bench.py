"""``blinkcoll bench``: what a collective reaches on a layout, beside what a baseline reaches. Simulated."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .options import ELEMENT_BYTES, Gpus, Relays, Root, Topo, read_size, read_topology, sizes_between

_COLLECTIVES = ("allreduce", "broadcast")


def bench(
    topo: Topo,
    gpus: Gpus = None,
    relays: Relays = None,
    collective: Annotated[str, typer.Option("--collective", help="allreduce, broadcast, or all.", metavar="NAME")] = "allreduce",
    root: Root = None,
    minimum: Annotated[str, typer.Option("-b", "--minbytes", help="Smallest size.", metavar="SIZE")] = "8",
    maximum: Annotated[str, typer.Option("-e", "--maxbytes", help="Largest size.", metavar="SIZE")] = "1G",
    factor: Annotated[int, typer.Option("-f", "--stepfactor", help="Each size is the last times this.", min=2)] = 2,
    datatype: Annotated[str, typer.Option("-d", "--datatype", help=", ".join(ELEMENT_BYTES), metavar="TYPE")] = "float",
    compare: Annotated[str, typer.Option("--compare", help="Baselines, as many as wanted.", metavar="LIST")] = "nccl,baidu-ring",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Simulate a collective over sizes: time, bandwidth, the bound and the fraction of it reached, NCCL and a ring beside it."""
    from ..show.bench_table import bench_json, bench_text
    from .comparison import compare_with_baselines

    names = _collectives(collective)
    if datatype not in ELEMENT_BYTES:
        raise typer.BadParameter(f"{datatype!r}: one of {', '.join(ELEMENT_BYTES)}", param_hint="--datatype")
    sizes = sizes_between(read_size(minimum, "-b"), read_size(maximum, "-e"), factor, ELEMENT_BYTES[datatype])
    peers = list(dict.fromkeys(peer.strip() for peer in compare.split(",") if peer.strip()))
    topology = read_topology(topo, gpus, relays)
    if root is not None and "broadcast" not in names:
        raise typer.BadParameter(f"{', '.join(names)} has no root", param_hint="--root")
    if root is not None and not 0 <= root < topology.nranks:
        raise typer.BadParameter(f"{root} is not a rank of 0..{topology.nranks - 1}", param_hint="--root")
    results = [
        compare_with_baselines(topology, name, (root or 0) if name == "broadcast" else None, sizes, ELEMENT_BYTES[datatype], peers)
        for name in names
    ]
    if as_json:
        typer.echo(json.dumps(bench_json(topology, results), indent=1))
    else:
        typer.echo("\n\n".join(bench_text(result, datatype) for result in results))


def _collectives(text: str) -> list[str]:
    names = list(_COLLECTIVES) if text == "all" else [name.strip().replace("_", "") for name in text.split(",")]
    unknown = [name for name in names if name not in _COLLECTIVES]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: bench knows {', '.join(_COLLECTIVES)}, all", param_hint="--collective")
    return names
