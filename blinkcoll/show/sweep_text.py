"""A sweep over the classes of allocations as tables, with what Blink's paper reports beside it; and as JSON and CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from .. import __version__
from ..simulator.baselines import BASELINES
from ..topology import Topology
from .bench_result import COLUMNS, SCHEMA, BenchResult, as_rows, geometric_mean
from .numbers import size_text

#: Blink (Wang et al., MLSys 2020, abstract and section 5): against the NCCL of 2019, measured.
PAPER = {
    ("dgx1-v100", "broadcast"): "up to 6x, geometric mean 2x",
    ("dgx1-v100", "allreduce"): "up to 8x, geometric mean 2x",
    ("dgx1-p100", "broadcast"): "up to 3x, geometric mean 1.6x",
    ("dgx2", "allreduce"): "up to 3.5x the throughput, up to 3.3x lower latency",
}

Swept = Mapping[str, Sequence[BenchResult]]


def sweep_text(topology: Topology, swept: Swept, whole: Mapping[str, BenchResult], nbytes: int) -> str:
    """A table a collective: a line a class, then the means; and the whole machine over sizes."""
    blocks = []
    for collective, results in swept.items():
        peers = results[0].peers
        lines = [
            f"# blinkcoll {__version__} sweep: {collective} of {nbytes} bytes, SIMULATED (event-driven, planning rates on both sides), not measured",
            f"# topology {topology.name}, fingerprint {topology.fingerprint}: {len(results)} classes of allocations that fast links connect",
            *(f"# {peer}: {BASELINES[peer].title}" for peer in peers),
            *(f"# {gap}" for gap in dict.fromkeys(gap for result in results for gap in result.gaps)),
            "#",
            *_columns(peers, _width(results)),
            *(_line(result, _width(results)) for result in results),
            *_means(topology, collective, results),
            *_over_sizes(whole[collective]),
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _columns(peers: Sequence[str], width: int) -> list[str]:
    names = "".join(f"  {peer[:10]:>10} {'faster':>7}" for peer in peers)
    units = "".join(f"  {'(GB/s)':>10} {'':>7}" for _ in peers)
    gpus = f"# {'GPUs':<{max(0, width - 2)}}"
    return [
        f"{gpus} {'bound':>7} {'algbw':>7} {'bound':>6}{names}  program",
        f"{'#':<{len(gpus)}} {'(GB/s)':>7} {'(GB/s)':>7} {'(%)':>6}{units}".rstrip(),
    ]


def _line(result: BenchResult, width: int) -> str:
    row = result.rows[0]
    beside = "".join(
        f"  {'-':>10} {'-':>7}" if peer is None else f"  {peer.algbw:>10.2f} {peer.time_us / row.ours.time_us:>6.2f}x" for peer in row.peers
    )
    return f"{_gpus(result):<{width}} {float(row.ours.bound):>7.2f} {row.ours.algbw:>7.2f} {row.ours.reached:>6.1f}{beside}  {row.ours.algorithm}"


def _means(topology: Topology, collective: str, results: Sequence[BenchResult]) -> list[str]:
    reached = [result.rows[0].ours.reached / 100 for result in results]
    packed = sum(result.rows[0].ours.kind == "plan" for result in results)
    lines = [
        f"# of the bound: {geometric_mean(reached) * 100:.1f} % geometric mean, {min(reached) * 100:.1f} % at least",
        f"# a packed plan is taken for {packed} of {len(results)} classes, a classic algorithm for {len(results) - packed}",
    ]
    for i, peer in enumerate(results[0].peers):
        ratios = [(ratio, result) for result in results for ratio, _ in result.ratios(i)]
        if ratios:
            most = max(ratios, key=lambda pair: pair[0])
            slower = sum(ratio < 0.9995 for ratio, _ in ratios)
            lines.append(
                f"# against {peer:<9}: {most[0]:.2f}x at most (GPUs {_gpus(most[1])}), {geometric_mean([r for r, _ in ratios]):.2f}x geometric mean, "
                f"{min(r for r, _ in ratios):.2f}x at least; {'never slower' if not slower else f'slower on {slower}'}"
            )
    paper = PAPER.get((topology.name, collective))
    if paper:
        lines.append(f"# the paper      : {paper}, against the NCCL of 2019 and measured; docs/bench.md says where the difference comes from")
    return lines


def _over_sizes(result: BenchResult) -> list[str]:
    lines = [f"# all {result.plan.topology.nranks} GPUs over sizes, us:"]
    for row in result.rows:
        beside = ", ".join(
            f"{name} {peer.time_us:.2f} ({peer.time_us / row.ours.time_us:.2f}x)"
            for name, peer in zip(result.peers, row.peers, strict=True)
            if peer is not None
        )
        lines.append(f"#   {size_text(row.nbytes):>8}: {row.ours.time_us:>10.2f} by {row.ours.algorithm}; {beside or 'no baseline has a program'}")
    return lines


def sweep_json(topology: Topology, swept: Swept, nbytes: int) -> dict[str, Any]:
    """Rows as ``bench_json`` has them, each with its GPUs."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "topology": {"name": topology.name, "fingerprint": topology.fingerprint},
        "simulated": True,
        "nbytes": nbytes,
        "rows": _rows(swept),
    }


def sweep_csv(swept: Swept) -> str:
    """A line a class and library, GPUs first."""
    text = StringIO()
    writer = csv.DictWriter(text, ("gpus", *COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "gpus": " ".join(map(str, row["gpus"]))} for row in _rows(swept))
    return text.getvalue().rstrip("\n")


def _rows(swept: Swept) -> list[dict[str, Any]]:
    return [
        {"gpus": [d.index for d in result.plan.topology.devices]} | row
        for results in swept.values()
        for result in results
        for row in as_rows([result])
    ]


def _gpus(result: BenchResult) -> str:
    return ",".join(str(d.index if d.index is not None else d.name) for d in result.plan.topology.devices)


def _width(results: Sequence[BenchResult]) -> int:
    return max(6, *(len(_gpus(result)) for result in results))
