"""Which of the candidates win, and against whom they lose: all classes of allocations of the two DGX-1s, or whole layouts.

    python benchmarks/selection.py dgx1-p100 dgx1-v100 [--collectives allreduce,broadcast] [--cells cells.jsonl]
    python benchmarks/selection.py --layouts

A cell is a class, a collective and one of ten sizes, every third power of two from 8 B to 1 GiB. Everything is simulated.
``--cells`` keeps a line of JSON a cell, and does not simulate again what the file has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import lru_cache
from math import exp, log
from pathlib import Path
from typing import Any

from blinkcoll.errors import ScheduleError, SimulationError, TopologyError
from blinkcoll.packing.collectives import ROOTED
from blinkcoll.schedules import Program, verify
from blinkcoll.selection import SIZES, Request, default_channels, table_for
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import BASELINES, baseline_program
from blinkcoll.topology import Topology, layout_names, load_topology, unique_subsets

NBYTES = SIZES[:28:3]
COLLECTIVES = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter")
#: Layouts whose candidates take minutes to make or simulate.
SLOW = ("gb200-nvl72",)
Cell = dict[str, Any]


def cells(topology: Topology, collective: str) -> Iterator[Cell]:
    """A cell a size."""
    root = 0 if collective in ROOTED else None
    budget = default_channels(topology)
    table = table_for(Request(topology, collective, root, budget))
    for size in NBYTES:
        nbytes = table.contest.whole(size)
        i = table.choose(nbytes)
        winner, time_us = table.contest.candidates[i], table.contest.time_us(i, nbytes)
        ratios = {name: found for name in BASELINES if (found := _against(name, topology, collective, root, nbytes, budget, time_us)) is not None}
        yield {
            "topology": topology.name, "gpus": [d.index for d in topology.devices], "collective": collective, "nbytes": size,
            "winner": winner.name, "plan": winner.plan is not None, "ratios": ratios,
        }  # fmt: skip


def _against(name: str, topology: Topology, collective: str, root: int | None, nbytes: int, budget: int, time_us: float) -> tuple[float, str] | None:
    """How much faster the choice is than a baseline, and what keeps that from being a choice; None where it has no program."""
    try:
        program = baseline_program(name, topology, collective, root, nbytes)
    except SimulationError:
        return None
    kept_from = f"{program.nchannels} channels" if program.nchannels > budget else _refused(program)
    return run(program, nbytes).time_us / time_us, kept_from


@lru_cache(maxsize=256)
def _refused(program: Program) -> str:
    try:
        verify(program, repeated=True)
    except ScheduleError as error:
        return str(error)
    return ""


def summary(found: list[Cell]) -> str:
    """A line of a Markdown table: plans, classic families, NCCL's ratios."""
    nccl = [cell["ratios"]["nccl"][0] for cell in found if "nccl" in cell["ratios"]]
    plans = sum(cell["plan"] for cell in found)
    against = f"{exp(sum(map(log, nccl)) / len(nccl)):.2f}x, {max(nccl):.2f}x, {min(nccl):.3f}x" if nccl else "-"
    return f"{plans} | {len(found) - plans} | {against}"


def losses(found: list[Cell], tolerance: float = 0.0005) -> Iterator[str]:
    """Cells in which a baseline is faster, the most first."""
    lost = [(ratio, name, why, cell) for cell in found for name, (ratio, why) in cell["ratios"].items() if ratio < 1 - tolerance]
    for ratio, name, why, cell in sorted(lost, key=lambda entry: entry[0]):
        where = f"{cell['topology']} {','.join(map(str, cell['gpus']))} {cell['collective']} {cell['nbytes']}"
        yield f"{where}: {name} {1 / ratio:.3f}x faster than {cell['winner']}" + (f"; no choice: {why}" if why else "")


def _topologies(names: list[str], layouts: bool) -> Iterator[tuple[str, list[Topology]]]:
    for name in names:
        topology = load_topology(name)
        yield name, [t for k in range(3, topology.nranks + 1) for t in unique_subsets(topology, k)] if name.startswith("dgx1") else [topology]
    if layouts:
        every = {topology.name: topology for topology in map(load_topology, layout_names()) if topology.nranks > 1}  # some have several names
        for name, topology in every.items():
            if name not in SLOW:
                yield name, [topology]


def main() -> None:
    """Print the table, then the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--layouts", action="store_true")
    parser.add_argument("--collectives", default=",".join(COLLECTIVES))
    parser.add_argument("--cells", type=Path)
    options = parser.parse_args()
    kept = [json.loads(line) for line in options.cells.read_text().splitlines()] if options.cells and options.cells.exists() else []
    known = {(cell["topology"], tuple(cell["gpus"]), cell["collective"]) for cell in kept}
    every: list[Cell] = []
    print("| | a packed plan | a classic algorithm | `nccl`: geometric mean, most, least |\n| --- | --- | --- | --- |")
    for name, topologies in _topologies(options.names, options.layouts):
        for collective in options.collectives.split(","):
            found: list[Cell] = []
            for topology in topologies:
                key = (topology.name, tuple(d.index for d in topology.devices), collective)
                if key in known:
                    found += [c for c in kept if (c["topology"], tuple(c["gpus"]), c["collective"]) == key]
                    continue
                try:
                    made = list(cells(topology, collective))
                except TopologyError as error:
                    print(f"{name} {collective}: {error}")
                    continue
                found += made
                if options.cells:
                    with options.cells.open("a") as file:
                        file.writelines(json.dumps(cell) + "\n" for cell in made)
            print(f"| {name} {collective}, {len(topologies)} | {summary(found)} |", flush=True)
            every += found
    print(*losses(every), sep="\n")


if __name__ == "__main__":
    main()
