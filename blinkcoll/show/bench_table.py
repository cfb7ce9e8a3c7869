"""Bench results as nccl-tests prints them, with the bound and baselines beside; and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from .. import __version__
from ..packing import Plan
from ..schedules import Program
from ..simulator.baselines import BASELINES
from ..topology import Topology
from .numbers import count, gb_s

SCHEMA = 1


@dataclass(frozen=True)
class Timing:
    """A simulated run of a program: µs, and GB/s."""

    algorithm: str
    program: str
    time_us: float
    algbw: float
    busbw: float


@dataclass(frozen=True)
class BenchRow:
    """One size: our run, and each baseline's, None where it has no program for that size."""

    nbytes: int
    count: int
    ours: Timing
    peers: tuple[Timing | None, ...]


@dataclass(frozen=True)
class BenchResult:
    """Rows of one collective, and what was simulated. ``gaps``: why baselines have no program for some sizes."""

    plan: Plan
    program: Program
    peers: tuple[str, ...]
    rows: tuple[BenchRow, ...]
    gaps: tuple[str, ...] = ()


def bench_text(result: BenchResult, datatype: str) -> str:
    """Header, a line a size, footer."""
    plan = result.plan
    redop, root = ("none", str(plan.root)) if plan.collective == "broadcast" else ("sum", "-1")
    lines = [*_header(result), *_columns(result.peers)]
    for row in result.rows:
        ours = row.ours
        beside = "".join(_beside(ours, peer) for peer in row.peers)
        lines.append(
            f"{row.nbytes:>12} {row.count:>12} {datatype:>8} {redop:>6} {root:>5} {ours.time_us:>10.2f} {ours.algbw:>7.2f} {ours.busbw:>7.2f} "
            f"{ours.algbw / float(plan.bound) * 100:>6.1f}{beside}"
        )
    best = max(row.ours.algbw for row in result.rows)
    lines += [
        f"# Avg bus bandwidth    : {sum(row.ours.busbw for row in result.rows) / len(result.rows):.4f} (simulated)",
        f"# Best algbw           : {best:.2f} GB/s, {best / float(plan.bound) * 100:.1f} % of the bound (simulated)",
    ]
    for i, peer in enumerate(result.peers):
        ratios = [p.time_us / row.ours.time_us for row in result.rows if (p := row.peers[i]) is not None]
        if not ratios:
            continue
        mean = exp(sum(map(log, ratios)) / len(ratios))
        lines.append(f"# Against {peer:<13}: {mean:.2f}x geometric mean, {max(ratios):.2f}x at best, {min(ratios):.2f}x at worst")
    return "\n".join(lines)


def _beside(ours: Timing, peer: Timing | None) -> str:
    if peer is None:
        return f"  {'-':>10} {'-':>7} {'-':>7}"
    return f"  {peer.time_us:>10.2f} {peer.algbw:>7.2f} {peer.time_us / ours.time_us:>6.2f}x"


def _header(result: BenchResult) -> list[str]:
    plan, topology = result.plan, result.plan.topology
    gpus = ",".join(str(d.index if d.index is not None else d.name) for d in topology.devices)
    beside = " with relays " + ",".join(d.name for d in topology.relays) if topology.relays else ""
    planned = "" if plan.optimal else f", {float(plan.rate / plan.bound) * 100:.1f} % of it planned"
    lines = [
        f"# blinkcoll {__version__} {plan.collective}: SIMULATED (event-driven; planning rates, link and protocol latencies), not measured",
        f"# topology {topology.name}, GPUs {gpus} as ranks 0..{topology.nranks - 1}{beside}, fingerprint {topology.fingerprint}",
        f"# plan: {count(len(plan.trees), 'tree')} over {'+'.join(plan.links)}, rate {gb_s(plan.rate)} GB/s; bound {gb_s(plan.bound)} GB/s{planned}",
        f"# bound: {plan.certificate.describe(topology)}",
        f"# program {result.program.hash}: {count(len(result.program.weights), 'share')}, at most {count(result.program.nchannels, 'channel')} a rank, verified",
    ]
    for i, peer in enumerate(result.peers):
        timings = [row.peers[i] for row in result.rows]
        programs = dict.fromkeys(f"{t.algorithm} {t.program}" for t in timings if t is not None)
        lines.append(f"# {peer}: {BASELINES[peer].title}: {', '.join(programs) or 'no program'}")
    return [*lines, *(f"# {gap}" for gap in result.gaps), "#"]


def _columns(peers: Sequence[str]) -> list[str]:
    names = "".join(f"  {peer:>10} {'algbw':>7} {'faster':>7}" for peer in peers)
    units = "".join(f"  {'(us)':>10} {'(GB/s)':>7} {'':>7}" for _ in peers)
    return [
        f"# {'size':>10} {'count':>12} {'type':>8} {'redop':>6} {'root':>5} {'time':>10} {'algbw':>7} {'busbw':>7} {'bound':>6}{names}".rstrip(),
        f"# {'(B)':>10} {'(elements)':>12} {'':>8} {'':>6} {'':>5} {'(us)':>10} {'(GB/s)':>7} {'(GB/s)':>7} {'(%)':>6}{units}".rstrip(),
    ]


def bench_json(topology: Topology, results: Sequence[BenchResult]) -> dict[str, Any]:
    """What ``--json`` prints: a row per collective, size and algorithm; rates in GB/s, times in µs."""
    rows = []
    for result in results:
        for row in result.rows:
            shared = {"collective": result.plan.collective, "root": result.plan.root, "nbytes": row.nbytes, "bound": str(result.plan.bound)}
            for name, timing in zip(("blinkcoll", *result.peers), (row.ours, *row.peers), strict=True):
                if timing is not None:
                    rows.append(shared | {"library": name} | vars(timing))
    return {
        "schema": SCHEMA,
        "version": __version__,
        "topology": {"name": topology.name, "gpus": [d.index for d in topology.devices], "fingerprint": topology.fingerprint},
        "simulated": True,
        "rows": rows,
    }
