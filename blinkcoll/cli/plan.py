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
_METHODS = ("auto", "exact", "hybrid", *_NCCL)


def plan(
    topo: Topo,
    gpus: Gpus = None,
    relays: Relays = None,
    collective: Annotated[str, typer.Option("--collective", help="broadcast, reduce, allreduce ...", metavar="NAME")] = "allreduce",
    root: Root = None,
    method: Annotated[str, typer.Option("--method", help="auto, exact, hybrid (PCIe beside NVLink); nccl, nccl-2.7, nccl-2.4: NCCL's own plan, explained.", metavar="NAME")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Exact rates as p/q, for machines.")] = False,
    program: Annotated[Path | None, typer.Option("--program", help="Write the verified program (JSON) there.", metavar="FILE")] = None,
    nbytes: Annotated[str, typer.Option("--nbytes", help="The size the program is meant for.", metavar="SIZE")] = "64M",
) -> None:
    """Pack trees over the links there are, and prove how good they are."""
    size = read_size(nbytes, "--nbytes")
    if method not in _METHODS:
        raise typer.BadParameter(f"{method!r}: one of {', '.join(_METHODS)}", param_hint="--method")
    topology = read_topology(topo, gpus, relays)
    if method in _NCCL:
        _plan_as_nccl(topology, collective, root, method, size, as_json, program)
    else:
        _pack(topology, collective, root, method, size, as_json, program)


def _pack(topology: Topology, collective: str, root: int | None, method: str, nbytes: int, as_json: bool, file: Path | None) -> None:
    from .. import api
    from ..show.plan_text import plan_json, plan_text

    made = api.plan(topology, collective, root=root, method=method)
    made.check()
    made.certificate.check(topology)
    if file is not None:
        _write(made.schedule(nbytes=nbytes), file)
    typer.echo(json.dumps(plan_json(made), indent=1) if as_json else plan_text(made))


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
