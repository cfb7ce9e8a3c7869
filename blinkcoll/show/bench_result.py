"""What a bench found: rows of one collective, in plain data that the tables, JSON, CSV and plots are made of."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from io import StringIO
from math import exp, log
from typing import Any

from .. import __version__
from ..packing import Plan
from ..schedules import Program
from ..schedules.trees import MAX_CHANNELS
from ..topology import Topology

SCHEMA = 3
#: Columns of ``--csv``, in order; rows of ``--json`` have the same names. ``model``: what ``bound`` bounds, links or switches.
COLUMNS = ("collective", "root", "nbytes", "library", "algorithm", "program", "time_us", "algbw", "busbw", "bound", "model")


@dataclass(frozen=True)
class Timing:
    """A simulated run of a program: µs, and GB/s.

    ``executed`` is the program; its hash, ``program``, is computed where it is shown. ``kind``: a "plan" of blinkcoll's, a "classic" family or a "baseline". ``bound``: GB/s, of the class of algorithms that the
    program belongs to, which ``model`` names where it is not that of the result's plan.
    """

    algorithm: str
    executed: Program = field(repr=False, compare=False)
    kind: str
    nchannels: int
    time_us: float
    algbw: float
    busbw: float
    bound: Fraction
    model: str = ""

    @property
    def program(self) -> str:
        """The program's hash."""
        return self.executed.hash

    @property
    def reached(self) -> float:
        """The part of the bound, in per cent."""
        return self.algbw / float(self.bound) * 100


@dataclass(frozen=True)
class BenchRow:
    """One size: our run, and each baseline's, None where it has no program for that size."""

    nbytes: int
    count: int
    ours: Timing
    peers: tuple[Timing | None, ...]


@dataclass(frozen=True)
class BenchResult:
    """Rows of one collective. ``plan`` has the bound; ``gaps`` say why baselines have no program for some sizes.

    ``max_channels``: what our programs are held to; baselines are not.
    """

    plan: Plan
    peers: tuple[str, ...]
    rows: tuple[BenchRow, ...]
    gaps: tuple[str, ...] = ()
    redop: str = "sum"
    max_channels: int = MAX_CHANNELS

    def beyond_budget(self, peer: int) -> int:
        """The most channels that a baseline runs, where that is more than ours may; else 0."""
        most = max((timing.nchannels for row in self.rows if (timing := row.peers[peer]) is not None), default=0)
        return most if most > self.max_channels else 0

    def ratios(self, peer: int) -> list[tuple[float, BenchRow]]:
        """By how much each row beats a baseline, where that has a program."""
        return [(timing.time_us / row.ours.time_us, row) for row in self.rows if (timing := row.peers[peer]) is not None]

    def model_of(self, timing: Timing) -> str:
        """What a timing's bound is a bound of."""
        return timing.model or "+".join(self.plan.links)

    @property
    def best(self) -> BenchRow:
        """The row of highest algbw."""
        return max(self.rows, key=lambda row: row.ours.algbw)


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return exp(sum(map(log, values)) / len(values))


def as_rows(results: Sequence[BenchResult]) -> list[dict[str, Any]]:
    """A dict a collective, size and library, with the names of ``COLUMNS``; rates in GB/s, times in µs."""
    rows = []
    for result in results:
        for row in result.rows:
            shared = {"collective": result.plan.collective, "root": result.plan.root, "nbytes": row.nbytes}
            for name, timing in zip(("blinkcoll", *result.peers), (row.ours, *row.peers), strict=True):
                if timing is not None:
                    told = shared | {"library": name, "bound": float(timing.bound), "model": result.model_of(timing)}
                    rows.append({column: told[column] if column in told else getattr(timing, column) for column in COLUMNS})
    return rows


def bench_json(topology: Topology, results: Sequence[BenchResult]) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "topology": {"name": topology.name, "gpus": [d.index for d in topology.devices], "fingerprint": topology.fingerprint},
        "simulated": True,
        "rows": as_rows(results),
    }


def bench_csv(results: Sequence[BenchResult]) -> str:
    """What ``--csv`` prints: a header and a line a row; an empty root where there is none."""
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_rows(results))
    return text.getvalue().rstrip("\n")
