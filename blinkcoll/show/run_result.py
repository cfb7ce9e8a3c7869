"""What a measured run found, as nccl-tests prints it, as JSON and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

from .. import __version__
from .bench_result import SCHEMA

#: Columns of ``--csv``, in order; rows of ``--json`` have the same names.
COLUMNS = (
    "collective", "root", "nbytes", "count", "type", "redop", "in_place", "library", "algorithm", "program", "time_us", "algbw", "busbw", "wrong"
)  # fmt: skip
#: How ranks' times become one (nccl-tests' ``-a``): its number, what is said of it.
AVERAGES = ("rank 0's time", "mean over ranks", "shortest over ranks", "longest over ranks")


@dataclass(frozen=True)
class Machine:
    """What was measured on."""

    cpu: str
    cores: int
    python: str
    numpy: str
    nranks: int
    topology: str
    fingerprint: str
    direct: bool
    warmups: int
    iterations: int
    average: int

    def header(self) -> list[str]:
        """Lines above a table."""
        reach = "read each other's memory" if self.direct else "do not read each other's memory"
        return [
            f"# blinkcoll {__version__} bench: measured, on {self.nranks} processes of this host",
            f"# {self.cpu}, {self.cores} cores for these processes{' (fewer than ranks)' if self.cores < self.nranks else ''}; Python {self.python}, numpy {self.numpy}",
            f"# topology {self.topology}, fingerprint {self.fingerprint}; ranks {reach}",
            f"# times: {AVERAGES[self.average]} of {self.iterations} iterations in a row, after {self.warmups} to warm up; #wrong: elements, of all ranks, against numpy",
        ]


@dataclass(frozen=True)
class RunRow:
    """One case, out of place or in place: µs, GB/s, and wrong elements on all ranks together. ``redop`` is "none" and ``root`` None where there is none."""

    collective: str
    root: int | None
    nbytes: int
    count: int
    type: str
    redop: str
    in_place: bool
    algorithm: str
    program: str
    time_us: float
    algbw: float
    busbw: float
    wrong: int


def columns(collective: str) -> list[str]:
    """The lines above a collective's rows."""
    timed = f" {'time':>9} {'algbw':>7} {'busbw':>7} {'#wrong':>6}"
    units = f" {'(us)':>9} {'(GB/s)':>7} {'(GB/s)':>7} {'':>6}"
    return [
        f"# {collective}",
        f"# {'':>10} {'':>12} {'':>8} {'':>6} {'':>5} {'out-of-place':^32} {'in-place':^32}".rstrip(),
        f"# {'size':>10} {'count':>12} {'type':>8} {'redop':>6} {'root':>5}{timed}{timed}",
        f"# {'(B)':>10} {'(elements)':>12} {'':>8} {'':>6} {'':>5}{units}{units}".rstrip(),
    ]


def line(rows: Sequence[RunRow]) -> str:
    """A line of one size; N/A where a placement is not among its rows."""
    row, by_place = rows[0], {r.in_place: r for r in rows}
    root = -1 if row.root is None else row.root
    timed = "".join(_timed(by_place.get(in_place)) for in_place in (False, True))
    return f"{row.nbytes:>12} {row.count:>12} {row.type:>8} {row.redop:>6} {root:>5}{timed}"


def footer(rows: Sequence[RunRow]) -> list[str]:
    """nccl-tests' last lines."""
    wrong = sum(row.wrong for row in rows)
    return [
        f"# Out of bounds values : {wrong} {'FAILED' if wrong else 'OK'}",
        f"# Avg bus bandwidth    : {sum(row.busbw for row in rows) / len(rows):.4f} (measured)",
    ]


def as_json(machine: Machine, rows: Iterable[RunRow]) -> dict[str, Any]:
    """What ``--json`` prints; its form is that of simulated runs."""
    about = asdict(machine)
    topology = {"name": about.pop("topology"), "fingerprint": about.pop("fingerprint"), "gpus": []}
    return {"schema": SCHEMA, "version": __version__, "topology": topology, "simulated": False, "machine": about, "rows": [_plain(row) for row in rows]}


def as_csv(rows: Iterable[RunRow]) -> str:
    """What ``--csv`` prints: a header and a line a row; an empty root where there is none."""
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_plain, rows))
    return text.getvalue().rstrip("\n")


def _plain(row: RunRow) -> dict[str, Any]:
    merged = asdict(row) | {"library": "blinkcoll"}
    return {column: merged[column] for column in COLUMNS}


def _timed(row: RunRow | None) -> str:
    if row is None:
        return f" {'N/A':>9} {'N/A':>7} {'N/A':>7} {'N/A':>6}"
    return f" {row.time_us:>9.2f} {row.algbw:>7.2f} {row.busbw:>7.2f} {row.wrong:>6}"
