"""``blinkcoll bench --sweep``: every class of allocations of a machine at one size, as Blink's evaluation has them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..packing.collectives import ROOTED
from ..schedules.contract import SHARDED
from ..show.bench_result import BenchResult
from ..show.sweep_text import sweep_csv, sweep_json, sweep_text
from ..topology import Topology, unique_subsets
from .comparison import compare_with_baselines
from .progress import tracked

#: Where latency and throughput of the whole machine are shown.
_SPAN = (1 << 10, 1 << 15, 1 << 20, 1 << 25, 1 << 30)
#: Blink counts allocations of at least so many GPUs (section 2).
_FEWEST = 3


def allocation_classes(topology: Topology) -> list[Topology]:
    """One set of each class of three GPUs or more that fast links connect; of two where these connect no more; else all."""
    for fewest in range(min(_FEWEST, topology.nranks), 1, -1):
        if found := [part for k in range(fewest, topology.nranks + 1) for part in unique_subsets(topology, k)]:
            return found
    return [topology]


def sweep_report(topology: Topology, collectives: Sequence[str], nbytes: int, baselines: Sequence[str], as_json: bool, as_csv: bool) -> str:
    """The tables, or the rows as JSON or CSV."""
    classes = allocation_classes(topology)
    swept = {
        name: [_one(part, name, (nbytes,), baselines) for part in tracked(classes, f"sweeping {name}", len(classes))] for name in collectives
    }
    if as_json:
        return json.dumps(sweep_json(topology, swept, nbytes), indent=1)
    if as_csv:
        return sweep_csv(swept)
    whole = {name: _one(topology, name, _SPAN, baselines) for name in collectives}
    return sweep_text(topology, swept, whole, nbytes)


def _one(topology: Topology, collective: str, sizes: Sequence[int], baselines: Sequence[str]) -> BenchResult:
    unit = 4 * (topology.nranks if collective in SHARDED else 1)
    rounded = [max(1, nbytes // unit) * unit for nbytes in sizes]
    return compare_with_baselines(topology, collective, 0 if collective in ROOTED else None, rounded, 4, baselines)
