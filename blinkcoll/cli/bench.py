"""``blinkcoll bench``: what a collective reaches on a layout, beside what baselines reach, simulated; or measured on this host."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Annotated

import typer

from ..packing.collectives import COLLECTIVES, ROOTED
from ..schedules.contract import REDUCING, SHARDED
from ..topology import Topology
from .options import ELEMENT_BYTES, Gpus, Relays, Root, read_size, read_topology, sizes_between

_OPS = ("sum", "prod", "min", "max", "avg")
_DEFAULT_COMPARE = "nccl,baidu-ring"
_SWEEP_COMPARE = "nccl-2.4,nccl-2.7,nccl"


def bench(
    topo: Annotated[str | None, typer.Option("--topo", help="A layout's name or a topology file. With --run: what to plan for instead of this host.", metavar="NAME|FILE")] = None,
    gpus: Gpus = None,
    relays: Relays = None,
    collective: Annotated[str | None, typer.Option("--collective", help="Names, as many as wanted, or all (eight). [default: allreduce]", metavar="LIST")] = None,
    root: Root = None,
    minimum: Annotated[str | None, typer.Option("-b", "--minbytes", help="Smallest size. [default: 8]", metavar="SIZE")] = None,
    maximum: Annotated[str | None, typer.Option("-e", "--maxbytes", help="Largest size. [default: 1G; with --run 64M]", metavar="SIZE")] = None,
    factor: Annotated[int | None, typer.Option("-f", "--stepfactor", help="Each size is the last times this. [default: 2]", min=2)] = None,
    step: Annotated[str | None, typer.Option("-i", "--stepbytes", help="Each size is the last plus this, instead of -f.", metavar="SIZE")] = None,
    datatype: Annotated[str, typer.Option("-d", "--datatype", help=", ".join(ELEMENT_BYTES), metavar="TYPE")] = "float",
    op: Annotated[str, typer.Option("-o", "--op", help=f"{', '.join(_OPS)}: shown; a simulated time does not depend on it.", metavar="OP")] = "sum",
    max_channels: Annotated[int | None, typer.Option("--max-channels", help="Channels that blinkcoll's program may run on a rank; baselines run as many as they do. [default: 32, more over switches that add]", min=1)] = None,
    number: Annotated[int | None, typer.Option("-n", help="With --run: ranks. [default: the cores there are] Else the same as --iters.", min=1)] = None,
    iterations: Annotated[int | None, typer.Option("--iters", help="Runs to average. [default with --run: 20] Simulated runs repeat exactly: one is made.", min=1)] = None,
    warmups: Annotated[int | None, typer.Option("-w", "--warmup_iters", help="Runs before. [default with --run: 5] None where runs are simulated.", min=0)] = None,
    run: Annotated[bool, typer.Option("--run", help="Measure: run the collectives between processes of this host and check results.")] = False,
    average: Annotated[int | None, typer.Option("-a", "--average", help="With --run: time of rank 0, mean, shortest, longest (0-3). [default: 1]", min=0, max=3)] = None,
    compare: Annotated[str | None, typer.Option("--compare", help="Baselines, as many as wanted, or all. [default: nccl,baidu-ring]", metavar="LIST")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated rows instead of tables.")] = False,
    plot: Annotated[str | None, typer.Option("--plot", help="Draw bandwidth by size; pdf, png or svg (needs matplotlib).", metavar="FILE")] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Every class of allocations at one size (-b, 500 MB by default).")] = False,
    model: Annotated[str | None, typer.Option("--model", help="A training step: alexnet, vgg16, resnet18 or resnet50.", metavar="NAME")] = None,
    bucket: Annotated[str | None, typer.Option("--bucket", help="With --model: bytes of a gradient bucket. [default: 25M]", metavar="SIZE")] = None,
    images_s: Annotated[float | None, typer.Option("--images-per-second", help="With --model: one GPU's training speed, instead of the published.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="With --model: images a GPU and step. [default: as published]", min=1)] = None,
) -> None:
    """Simulate collectives over sizes: time, bandwidth, the bound and the fraction of it reached, NCCL and others beside it; or measure (--run)."""
    if as_json and as_csv:
        raise typer.BadParameter("--json or --csv, not both", param_hint="--csv")
    if sweep and model is not None:
        raise typer.BadParameter("--sweep or --model, not both", param_hint="--model")
    if model is None and (bucket is not None or images_s is not None or batch is not None):
        raise typer.BadParameter("--bucket, --images-per-second and --batch belong to --model", param_hint="--model")
    if datatype not in ELEMENT_BYTES:
        raise typer.BadParameter(f"{datatype!r}: one of {', '.join(ELEMENT_BYTES)}", param_hint="--datatype")
    if op not in _OPS:
        raise typer.BadParameter(f"{op!r}: one of {', '.join(_OPS)}", param_hint="-o")
    if run:
        from .benchrun import RunOptions, run_bench

        _refuse("--run", {"--gpus": gpus, "--relays": relays, "--compare": compare, "--plot": plot, "--sweep": sweep or None, "--model": model,
                          "--max-channels": max_channels})  # fmt: skip
        run_bench(RunOptions(topo, number, _collectives(collective or "allreduce"), root, minimum or "8", maximum or "64M", factor, step, datatype, op,
                             iterations, warmups, 1 if average is None else average), as_json, as_csv)  # fmt: skip
        return
    if topo is None:
        raise typer.BadParameter("what to simulate is needed (or --run, to measure)", param_hint="--topo")
    if average is not None:
        raise typer.BadParameter("times of single ranks are measured, not simulated: it belongs to --run", param_hint="-a")
    if number is not None or iterations is not None or warmups is not None:
        sys.stderr.write("blinkcoll: simulated runs repeat exactly: one is made a size, without warm-up; -n and -w change nothing\n")
    if model is not None:
        _refuse("--model", {"--root": root, "-b": minimum, "-e": maximum, "-f": factor, "-i": step, "--collective": collective, "--plot": plot,
                            "--max-channels": max_channels})  # fmt: skip
        from .training import training_report

        topology = read_topology(topo, gpus, relays)
        typer.echo(training_report(topology, gpus is None, model, bucket, (images_s, batch), _baselines(compare, _SWEEP_COMPARE), as_json, as_csv))
        return
    if sweep:
        from .sweep import sweep_report

        _refuse("--sweep", {"--gpus": gpus, "--relays": relays, "--root": root, "-e": maximum, "-f": factor, "-i": step, "--plot": plot, "--max-channels": max_channels})
        names = _collectives(collective or "allreduce,broadcast")
        nbytes = 500_000_000 if minimum is None else read_size(minimum, "-b")
        typer.echo(sweep_report(read_topology(topo, None, None), names, nbytes, _baselines(compare, _SWEEP_COMPARE), as_json, as_csv))
        return
    _over_sizes(read_topology(topo, gpus, relays), _collectives(collective or "allreduce"), root, (minimum or "8", maximum or "1G", factor, step), datatype, op,
                _baselines(compare, _DEFAULT_COMPARE), max_channels, as_json, as_csv, plot)  # fmt: skip


def _over_sizes(
    topology: Topology, names: list[str], root: int | None, span: tuple[str, str, int | None, str | None], datatype: str, op: str,
    peers: list[str], max_channels: int | None, as_json: bool, as_csv: bool, plot: str | None,
) -> None:  # fmt: skip
    from ..show.bench_result import bench_csv, bench_json
    from ..show.bench_table import bench_text
    from .comparison import compare_with_baselines
    from .progress import tracked

    if root is not None and not any(name in ROOTED for name in names):
        raise typer.BadParameter(f"{', '.join(names)} has no root", param_hint="--root")
    if root is not None and not 0 <= root < topology.nranks:
        raise typer.BadParameter(f"{root} is not a rank of 0..{topology.nranks - 1}", param_hint="--root")
    if plot is not None:
        from ..show.bench_plot import check_plot, write_plot

        check_plot(plot)
    minimum, maximum, factor, step = span
    if factor is not None and step is not None:
        raise typer.BadParameter("-i or -f, not both", param_hint="-i")
    smallest, largest, elem_size = read_size(minimum, "-b"), read_size(maximum, "-e"), ELEMENT_BYTES[datatype]
    plus = None if step is None else read_size(step, "-i")
    results = []
    for name in names:
        whole = elem_size * (topology.nranks if name in SHARDED else 1)
        sizes = sizes_between(smallest, largest, factor or 2, whole, plus)
        at = (root or 0) if name in ROOTED else None
        watched = partial(tracked, label=f"simulating {name}", total=len(sizes))
        results.append(compare_with_baselines(topology, name, at, sizes, elem_size, peers, op if name in REDUCING else "none", max_channels, watched))
    if plot is not None:
        write_plot(results, plot)
        sys.stderr.write(f"blinkcoll: drew {plot}\n")
    if as_json:
        typer.echo(json.dumps(bench_json(topology, results), indent=1))
    else:
        typer.echo(bench_csv(results) if as_csv else "\n\n".join(bench_text(result, datatype) for result in results))


def _refuse(mode: str, given: dict[str, object]) -> None:
    """Options that a mode has no use for are errors, not silence."""
    useless = [name for name, value in given.items() if value is not None]
    if useless:
        raise typer.BadParameter(f"{mode} takes no {', '.join(useless)}", param_hint=mode)


def _collectives(text: str) -> list[str]:
    names = list(COLLECTIVES) if text == "all" else [name.strip().replace("_", "") for name in text.split(",")]
    unknown = [name for name in names if name not in COLLECTIVES]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: bench knows {', '.join(COLLECTIVES)}, all", param_hint="--collective")
    return list(dict.fromkeys(names))


def _baselines(text: str | None, default: str) -> list[str]:
    """Names of baselines; none where the text is empty."""
    from ..simulator.baselines import BASELINES

    text = default if text is None else text
    names = list(BASELINES) if text == "all" else list(dict.fromkeys(peer.strip() for peer in text.split(",") if peer.strip()))
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: no such baseline; known: {', '.join(sorted(BASELINES))}, all", param_hint="--compare")
    return names
