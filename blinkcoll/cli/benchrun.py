"""``blinkcoll bench --run``: collectives between processes of this host, measured and checked."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ..cost.factors import algbw_gb_s, busbw_gb_s
from ..packing.collectives import ROOTED
from ..schedules.contract import REDUCING, SHARDED
from ..show.run_result import Machine, RunRow, as_csv, as_json, columns, footer, line
from .options import ELEMENT_BYTES, read_machine, read_size, sizes_between

#: More processes than this are taken for a mistake.
_MOST_RANKS = 256
#: nccl-tests' number of timed iterations, and of those before.
_ITERATIONS, _WARMUPS = 20, 5
#: How long a call may go on without any progress.
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks for, as text where it is not read yet."""

    topo: str | None
    nranks: int | None
    collectives: list[str]
    root: int | None
    minimum: str
    maximum: str
    factor: int | None
    step: str | None
    datatype: str
    op: str
    iterations: int | None
    warmups: int | None
    average: int

    @property
    def world_size(self) -> int:
        """Processes to start: as many as there are cores for them, where nothing was said; two at least."""
        return self.nranks or max(2, len(os.sched_getaffinity(0)))


def run_bench(options: RunOptions, in_json: bool, in_csv: bool) -> None:
    """Measure, print, and exit 1 where a result was wrong."""
    from ..runtime.knownanswers import NUMPY_NAMES, Case

    cases = [Case(name, nbytes // ELEMENT_BYTES[options.datatype], NUMPY_NAMES[options.datatype], options.op if name in REDUCING else "sum", root)
             for name, nbytes, root in _sizes(options)]  # fmt: skip
    rows: list[RunRow] = []
    machine = None
    last = ""
    for found in _measure(options, cases):
        if isinstance(found, Machine):
            machine = found
            if not in_json and not in_csv:
                typer.echo("\n".join(machine.header()))
            continue
        rows += found
        if in_json or in_csv:
            continue
        if found[0].collective != last:
            last = found[0].collective
            typer.echo("\n".join(["#", *columns(last)]))
        typer.echo(line(found))
    assert machine is not None and rows
    if in_json:
        typer.echo(json.dumps(as_json(machine, rows), indent=1))
    else:
        typer.echo(as_csv(rows) if in_csv else "\n".join(footer(rows)))
    if any(row.wrong for row in rows):
        raise typer.Exit(1)


def _sizes(options: RunOptions) -> Iterator[tuple[str, int, int | None]]:
    """Every collective, size and root, once the options are known to make sense."""
    from ..runtime.knownanswers import NUMPY_NAMES
    from ..runtime.launch import DTYPES

    n = options.world_size
    if not 1 <= n <= _MOST_RANKS:
        raise typer.BadParameter(f"{n} ranks: expected 1 to {_MOST_RANKS}", param_hint="-n")
    if options.factor is not None and options.step is not None:
        raise typer.BadParameter("-i or -f, not both", param_hint="-i")
    if options.root is not None and not any(name in ROOTED for name in options.collectives):
        raise typer.BadParameter(f"{', '.join(options.collectives)} has no root", param_hint="--root")
    if options.root is not None and not 0 <= options.root < n:
        raise typer.BadParameter(f"{options.root} is not a rank of 0..{n - 1}", param_hint="--root")
    reducing = [name for name in options.collectives if name in REDUCING]
    if reducing and NUMPY_NAMES[options.datatype] not in DTYPES:
        raise typer.BadParameter(f"{options.datatype} is only copied on host ranks, not reduced ({', '.join(reducing)})", param_hint="--datatype")
    if options.topo is not None and (have := read_machine(options.topo).nranks) < n:
        raise typer.BadParameter(f"{n} ranks: {options.topo} has {have} devices", param_hint="-n")
    smallest, largest = read_size(options.minimum, "-b"), read_size(options.maximum, "-e")
    step = None if options.step is None else read_size(options.step, "-i")
    for name in options.collectives:
        whole = ELEMENT_BYTES[options.datatype] * (n if name in SHARDED else 1)
        for nbytes in sizes_between(smallest, largest, options.factor or 2, whole, step):
            yield name, nbytes, (options.root or 0) if name in ROOTED else None


def _measure(options: RunOptions, cases: list[Any]) -> Iterator[Machine | list[RunRow]]:
    """What is measured on, then the rows of each case."""
    from ..runtime.measure import describe_job, placements
    from ..runtime.rankprocesses import RankProcesses

    n = options.world_size
    warmups = _WARMUPS if options.warmups is None else options.warmups
    iterations = _ITERATIONS if options.iterations is None else options.iterations
    environment = {} if options.topo is None else {"BLINKCOLL_TOPO": options.topo}
    collected: dict[tuple[int, bool], dict[int, dict[str, Any]]] = {}
    finished: list[RunRow] = []
    with RankProcesses(n, "blinkcoll.runtime.measure:run_job", describe_job(cases, warmups, iterations, _TIMEOUT_S), environment) as ranks:
        for rank, message in ranks.messages():
            if "topology" in message:
                yield _machine(message, n, (warmups, iterations, options.average))
                continue
            key = (message["case"], message["in_place"])
            collected.setdefault(key, {})[rank] = message
            if len(collected[key]) < n:
                continue
            case = cases[message["case"]]
            finished.append(_row(case, options, collected.pop(key)))
            if len(finished) == len(placements(case.collective)):
                yield finished
                finished = []


def _row(case: Any, options: RunOptions, found: dict[int, dict[str, Any]]) -> RunRow:
    times = [found[rank]["time_us"] for rank in sorted(found)]
    time_us = (times[0], sum(times) / len(times), min(times), max(times))[options.average]
    redop = case.op if case.collective in REDUCING else "none"
    return RunRow(
        case.collective, case.root, case.nbytes, case.count, options.datatype, redop, found[0]["in_place"], found[0]["algorithm"], found[0]["program"],
        time_us, algbw_gb_s(case.nbytes, time_us), busbw_gb_s(case.collective, len(times), case.nbytes, time_us), sum(m["wrong"] for m in found.values()),
    )  # fmt: skip


def _machine(message: dict[str, Any], nranks: int, how: tuple[int, int, int]) -> Machine:
    import numpy as np

    topology = message["topology"]
    return Machine(_cpu(), len(os.sched_getaffinity(0)), platform.python_version(), np.__version__, nranks,
                   topology["name"], topology["fingerprint"], message["direct"], *how)  # fmt: skip


def _cpu() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    names = [value.strip() for key, _, value in (entry.partition(":") for entry in text.splitlines()) if key.strip() == "model name"]
    return names[0] if names else platform.machine()
