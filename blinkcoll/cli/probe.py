"""``blinkcoll probe``: the machine this runs on, or the one that a file shows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..topology import Topology
from .options import Gpus, read_gpus
from .topo import Arch, AsDot, AsJson, Svg, present, write


def probe(
    from_file: Annotated[
        str | None, typer.Option("--from", help="Read this file instead (- for standard input); its content tells the format.", metavar="FILE")
    ] = None,
    save: Annotated[Path | None, typer.Option("--save", help="Write the topology (JSON) there, for --topo.", metavar="FILE")] = None,
    gpus: Gpus = None,
    arch: Arch = "",
    as_json: AsJson = False,
    as_dot: AsDot = False,
    svg: Svg = None,
) -> None:
    """Find the links between the GPUs here, through NVML and sysfs, or read what another tool printed."""
    topology = read_gpus(_found(from_file, arch), gpus)
    if save is not None:
        write(save, topology.to_json() + "\n", "--save")
    present(topology, as_json, as_dot, svg)


def _found(from_file: str | None, arch: str) -> Topology:
    from ..topology import probe as probe_here
    from ..topology.formats import parse
    from ..topology.source import MOST_BYTES, decode_source, read_source

    if from_file is None:
        return probe_here()
    if from_file == "-":
        return parse(decode_source(sys.stdin.buffer.read(MOST_BYTES + 1), "standard input"), arch)
    return parse(read_source(Path(from_file)), arch)
