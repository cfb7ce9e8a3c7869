"""Bench results as nccl-tests prints them, with the bound and a baseline beside; and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from .. import __version__
from ..packing import Plan
from ..schedules import Program
from ..topology import Topology
from .numbers import count, gb_s

SCHEMA = 1


@dataclass(frozen=True)
class BenchRow:
    """One size: our simulated time in µs and bandwidths in GB/s, and the baseline's."""

    nbytes: int
    count: int
    time_us: float
    algbw: float
    busbw: float
    peer_time_us: float
    peer_algbw: float
    peer_busbw: float


@dataclass(frozen=True)
class BenchResult:
    """Rows of one collective, and what was simulated."""

    plan: Plan
    program: Program
    peer_program: Program
    peer: str
    rows: tuple[BenchRow, ...]


def bench_text(result: BenchResult, datatype: str) -> str:
    """Header, a line a size, footer."""
    plan = result.plan
    redop, root = ("none", str(plan.root)) if plan.collective == "broadcast" else ("sum", "-1")
    lines = [*_header(result), *_columns(result.peer)]
    for row in result.rows:
        share = row.algbw / float(plan.bound) * 100
        lines.append(
            f"{row.nbytes:>12} {row.count:>12} {datatype:>8} {redop:>6} {root:>5} {row.time_us:>10.2f} {row.algbw:>7.2f} {row.busbw:>7.2f} "
            f"{share:>6.1f}  {row.peer_time_us:>10.2f} {row.peer_algbw:>7.2f} {row.peer_time_us / row.time_us:>6.2f}x"
        )
    ratios = [row.peer_time_us / row.time_us for row in result.rows]
    best = max(result.rows, key=lambda row: row.algbw)
    lines += [
        f"# Avg bus bandwidth    : {sum(r.busbw for r in result.rows) / len(result.rows):.4f} (simulated)",
        f"# Best algbw           : {best.algbw:.2f} GB/s, {best.algbw / float(plan.bound) * 100:.1f} % of the bound (simulated)",
        f"# Against {result.peer:<13}: {exp(sum(map(log, ratios)) / len(ratios)):.2f}x geometric mean, {max(ratios):.2f}x at best, {min(ratios):.2f}x at worst",
    ]
    return "\n".join(lines)


def _header(result: BenchResult) -> list[str]:
    plan, topology = result.plan, result.plan.topology
    gpus = ",".join(str(d.index if d.index is not None else d.name) for d in topology.devices)
    depth = "" if plan.rate == plan.bound else f", {float(plan.rate / plan.bound) * 100:.1f} % of it planned"
    return [
        f"# blinkcoll {__version__} {plan.collective}: SIMULATED (event-driven; planning rates, link and protocol latencies), not measured",
        f"# topology {topology.name}, GPUs {gpus} as ranks 0..{topology.nranks - 1}, fingerprint {topology.fingerprint}",
        f"# plan: {count(len(plan.trees), 'tree')} over {'+'.join(plan.links)}, rate {gb_s(plan.rate)} GB/s; bound {gb_s(plan.bound)} GB/s{depth}",
        f"# bound: {plan.certificate.describe(topology)}",
        f"# program {result.program.hash}: {count(len(result.program.weights), 'share')}, at most {count(result.program.nchannels, 'channel')} a rank, verified",
        f"# {result.peer} {result.peer_program.hash}: {count(len(result.peer_program.weights), 'share')}, at most {count(result.peer_program.nchannels, 'channel')} a rank, verified",
        "#",
    ]


def _columns(peer: str) -> list[str]:
    return [
        f"# {'size':>10} {'count':>12} {'type':>8} {'redop':>6} {'root':>5} {'time':>10} {'algbw':>7} {'busbw':>7} {'bound':>6}  {peer:>10} {'algbw':>7} {'faster':>7}",
        f"# {'(B)':>10} {'(elements)':>12} {'':>8} {'':>6} {'':>5} {'(us)':>10} {'(GB/s)':>7} {'(GB/s)':>7} {'(%)':>6}  {'(us)':>10} {'(GB/s)':>7} {'':>7}",
    ]


def bench_json(topology: Topology, results: Sequence[BenchResult]) -> dict[str, Any]:
    """What ``--json`` prints: a row per collective, size and algorithm; rates in GB/s, times in µs."""
    rows = []
    for result in results:
        for row in result.rows:
            shared = {"collective": result.plan.collective, "root": result.plan.root, "nbytes": row.nbytes, "bound": _exact(result)}
            ours = {"algorithm": result.program.algorithm, "program": result.program.hash, "time_us": row.time_us, "algbw": row.algbw, "busbw": row.busbw}
            peer = {"algorithm": result.peer, "program": result.peer_program.hash, "time_us": row.peer_time_us, "algbw": row.peer_algbw, "busbw": row.peer_busbw}
            rows += [shared | ours, shared | peer]
    return {
        "schema": SCHEMA,
        "version": __version__,
        "topology": {"name": topology.name, "gpus": [d.index for d in topology.devices], "fingerprint": topology.fingerprint},
        "simulated": True,
        "rows": rows,
    }


def _exact(result: BenchResult) -> str:
    return str(result.plan.bound)
