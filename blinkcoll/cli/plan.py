"""``blinkcoll plan``: the trees, their rates, the bound and its proof; or what NCCL would plan, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Gpus, Relays, Root, Topo, read_size, read_topology

if TYPE_CHECKING:
    from ..schedules import Program
    from ..simulator.baselines.nccl import Choice, NcclPlan
    from ..topology import Topology

#: NCCL's releases by their ``--method``.
_NCCL = {"nccl": "2.30", "nccl-2.7": "2.7", "nccl-2.4": "2.4"}
_METHODS = ("auto", "exact", "blink", "hybrid", "nvls", "three-phase", *_NCCL)


def plan(
    topo: Topo,
    gpus: Gpus = None,
    relays: Relays = None,
    collective: Annotated[str, typer.Option("--collective", help="broadcast, reduce, allreduce ...", metavar="NAME")] = "allreduce",
    root: Root = None,
    method: Annotated[str, typer.Option("--method", help="auto, exact; blink: the paper's pipeline; hybrid: PCIe beside NVLink; nvls: switches that copy and add; three-phase: several servers, roots exchange; nccl, nccl-2.7, nccl-2.4: NCCL's own plan, explained.", metavar="NAME")] = "auto",
    max_trees: Annotated[int | None, typer.Option("--max-trees", help="The best rate with at most so many trees.", metavar="N")] = None,
    tolerance: Annotated[str | None, typer.Option("--tolerance", help="The fewest trees within this part of the bound: 1/20.", metavar="PART")] = None,
    minimise: Annotated[str | None, typer.Option("--minimise", help="trees or depth: few or shallow ones at the full rate.", metavar="WHAT")] = None,
    pareto: Annotated[bool, typer.Option("--pareto", help="A table of rate against trees and depth (10 s of search).")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="What limits the rate, what stays idle, which further GPU would help.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Exact rates as p/q, for machines.")] = False,
    program: Annotated[Path | None, typer.Option("--program", help="Write the verified program (JSON) there.", metavar="FILE")] = None,
    nbytes: Annotated[str, typer.Option("--nbytes", help="The size the program is meant for.", metavar="SIZE")] = "64M",
) -> None:
    """Pack trees over the links there are, and prove how good they are."""
    size = read_size(nbytes, "--nbytes")
    if method not in _METHODS:
        raise typer.BadParameter(f"{method!r}: one of {', '.join(_METHODS)}", param_hint="--method")
    wish = {name: value for name, value in (("max_trees", max_trees), ("tolerance", tolerance), ("minimise", minimise)) if value is not None}
    if (pareto or explain or wish) and method in _NCCL:
        raise typer.BadParameter(f"--pareto, --explain and wishes for trees do not apply to --method {method}", param_hint="--method")
    if pareto and (explain or wish or program is not None or method == "blink"):
        raise typer.BadParameter("a table of plans goes without --explain, --program, --method blink and wishes for trees", param_hint="--pareto")
    topology = read_topology(topo, gpus, relays)
    if method in _NCCL:
        _plan_as_nccl(topology, collective, root, method, size, as_json, program)
    elif pareto:
        _pareto(topology, collective, root, as_json)
    else:
        _pack(topology, collective, root, method, wish, size, as_json, program, explain)


def _pack(
    topology: Topology, collective: str, root: int | None, method: str, wish: dict[str, Any], nbytes: int, as_json: bool, file: Path | None, explain: bool
) -> None:
    from .. import api
    from ..show.plan_text import plan_json, plan_text

    made = api.plan(topology, collective, root=root, method=method, **wish)
    made.check()
    made.certificate.check(topology)
    if file is not None:
        _write(made.schedule(nbytes=nbytes), file)
        if made.partitions:
            typer.echo("# exchanges between servers are written as one-hop connections, as no engine is given", err=True)
    whole, words = plan_json(made) if as_json else {}, "" if as_json else plan_text(made)
    if explain:
        from ..packing.explain import explain_plan
        from ..show.explain_text import explain_json, explain_text

        facts = explain_plan(made)
        if as_json:
            whole["explanation"] = explain_json(facts)
        else:
            words = f"{words}\n\n{explain_text(facts)}"
    typer.echo(json.dumps(whole, indent=1) if as_json else words)


def _pareto(topology: Topology, collective: str, root: int | None, as_json: bool) -> None:
    from .. import api
    from ..show.plan_text import pareto_text, plan_json

    plans = api.pareto(topology, collective, root=root)
    for made in plans:
        made.check()
    typer.echo(json.dumps({"schema": 1, "plans": [plan_json(made) for made in plans]}, indent=1) if as_json else pareto_text(plans))


def _plan_as_nccl(topology: Topology, collective: str, root: int | None, method: str, nbytes: int, as_json: bool, file: Path | None) -> None:
    from ..packing.collectives import canonical, check_root
    from ..simulator.baselines import baseline_program
    from ..simulator.baselines.nccl import search

    topology = topology.without_relays()
    name = canonical(collective)
    root = check_root(name, root, topology.nranks)
    found = search(topology, version=_NCCL[method])
    choice = found.choose(nbytes, name)
    if file is not None:
        from .. import api

        made = baseline_program(method, topology, name, root, nbytes)
        api.verify(made)
        _write(made, file)
    if as_json:
        typer.echo(json.dumps(_nccl_json(found, name, root, nbytes, choice), indent=1))
    else:
        chosen = f"# {name} of {nbytes} bytes: {choice.algorithm} {choice.protocol}, {choice.nchannels} channel{'s' if choice.nchannels != 1 else ''}"
        typer.echo(f"{found.explain()}\n{chosen}")


def _nccl_json(found: NcclPlan, collective: str, root: int | None, nbytes: int, choice: Choice) -> dict[str, Any]:
    """What NCCL would plan, for machines; rates are GB/s as exact ``"p/q"``, by NCCL's own constants."""
    topology = found.topology
    return {
        "schema": 1,
        "topology": {"name": topology.name, "gpus": [d.index for d in topology.devices], "fingerprint": topology.fingerprint},
        "collective": collective,
        "root": root,
        "method": f"nccl-{found.version.name}",
        "release": found.version.release,
        "nchannels": found.nchannels,
        "nchannels_run": found.nchannels_run,
        "gb_s_per_channel": str(found.gb_s_per_channel),
        "path_type": found.path_type,
        "rings": [list(ring) for ring in found.rings],
        "trees": [list(tree) for tree in found.trees],
        "ring_busbw": str(found.ring_busbw),
        "tree_busbw": None if found.tree_busbw is None else str(found.tree_busbw),
        "nvls": None if found.nvls is None else {"heads": found.nvls.nchannels, "gb_s": str(found.nvls.gb_s)},
        "choice": {"nbytes": nbytes, "algorithm": choice.algorithm, "protocol": choice.protocol, "nchannels": choice.nchannels},
        "assumptions": list(found.assumptions),
    }


def _write(program: Program, file: Path) -> None:
    try:
        file.write_text(program.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="--program") from None
