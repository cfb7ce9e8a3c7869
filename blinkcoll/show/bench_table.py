"""Bench results as nccl-tests prints them, with baselines, the bound and the program chosen beside, and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

from .. import __version__
from ..schedules.contract import REDUCING
from ..simulator.baselines import BASELINES
from .bench_result import BenchResult, BenchRow, Timing, geometric_mean
from .numbers import count, gb_s, size_text

#: With more baselines than this only their ratios are shown, to keep lines short; JSON and CSV have all.
_MOST_IN_FULL = 2


def bench_text(result: BenchResult, datatype: str) -> str:
    """Header, a line a size, footer, verdict."""
    plan = result.plan
    redop = result.redop if plan.collective in REDUCING else "none"
    root = -1 if plan.root is None else plan.root
    lines = [*_header(result), *_columns(result.peers)]
    for row in result.rows:
        ours = row.ours
        beside = "".join(_beside(ours, peer, len(result.peers)) for peer in row.peers)
        lines.append(
            f"{row.nbytes:>12} {row.count:>12} {datatype:>8} {redop:>6} {root:>5} {ours.time_us:>10.2f} {ours.algbw:>7.2f} {ours.busbw:>7.2f} "
            f"{ours.reached:>6.1f}{beside}  {ours.algorithm}"
        )
    best = result.best.ours
    lines += [
        f"# Avg bus bandwidth    : {sum(row.ours.busbw for row in result.rows) / len(result.rows):.4f} (simulated)",
        f"# Best algbw           : {best.algbw:.2f} GB/s, {best.reached:.1f} % of the bound (simulated)",
    ]
    for i, peer in enumerate(result.peers):
        if ratios := [ratio for ratio, _ in result.ratios(i)]:
            lines.append(f"# Against {peer:<13}: {geometric_mean(ratios):.2f}x geometric mean, {max(ratios):.2f}x at best, {min(ratios):.2f}x at worst")
    return "\n".join([*lines, *verdict(result)])


def verdict(result: BenchResult) -> list[str]:
    """Two lines in words: against the first baseline, and against the bound."""
    best = result.best
    planned = sum(row.ours.kind == "plan" for row in result.rows)
    second = (
        f"{best.ours.reached:.1f} % of the bound of {gb_s(best.ours.bound)} GB/s{f' ({best.ours.model})' if best.ours.model else ''} is reached at {size_text(best.nbytes)}; "
        f"{planned} of {count(len(result.rows), 'size')} run a packed plan{', the others a classic algorithm' if planned < len(result.rows) else ''}."
    )
    return [f"# Verdict: {_against(result)}", f"#          {second}"]


def _against(result: BenchResult) -> str:
    compared = [i for i in range(len(result.peers)) if result.ratios(i)]
    if not compared:
        return f"{result.plan.collective} takes {result.rows[0].ours.time_us:.1f} us at least; nothing here to compare it with."
    ratios, name = result.ratios(compared[0]), result.peers[compared[0]]
    most, row = max(ratios, key=lambda pair: pair[0])
    least, slow = min(ratios, key=lambda pair: pair[0])
    if least < 0.9995:
        timing = slow.peers[compared[0]]
        assert timing is not None
        more = f", where that runs {timing.nchannels} channels" if timing.nchannels > result.max_channels else ""
        ends = f"{1 / least:.2f}x slower at {size_text(slow.nbytes)}{more}"
        if most < 1.0005:
            return f"never faster than {name}; {ends}."
        ends = f"but {ends}"
    elif most < 1.0005:
        return f"as fast as {name} at every size."
    else:
        ends = f"as fast at {size_text(slow.nbytes)}" if least < 1.005 else f"{least:.2f}x at {size_text(slow.nbytes)}"
        ends = f"never slower; {ends}"
    return f"up to {most:.2f}x faster than {name} (at {size_text(row.nbytes)}), {geometric_mean([r for r, _ in ratios]):.2f}x in the geometric mean, {ends}."


def _beside(ours: Timing, peer: Timing | None, npeers: int) -> str:
    if npeers > _MOST_IN_FULL:
        return f"  {'-':>7}" if peer is None else f"  {peer.time_us / ours.time_us:>6.2f}x"
    if peer is None:
        return f"  {'-':>10} {'-':>7} {'-':>7}"
    return f"  {peer.time_us:>10.2f} {peer.algbw:>7.2f} {peer.time_us / ours.time_us:>6.2f}x"


def _header(result: BenchResult) -> list[str]:
    plan, topology = result.plan, result.plan.topology
    gpus = ",".join(str(d.index if d.index is not None else d.name) for d in topology.devices)
    beside = " with relays " + ",".join(d.name for d in topology.relays) if topology.relays else ""
    parts = count(*next((len(found), what) for found, what in ((plan.trees, "tree"), (plan.partitions, "partition"), (plan.flows, "flow")) if found))
    planned = "" if plan.optimal else f", {float(plan.rate / plan.bound) * 100:.1f} % of it planned"
    lines = [
        f"# blinkcoll {__version__} {plan.collective}: SIMULATED (event-driven; planning rates, link and protocol latencies), not measured",
        f"# topology {topology.name}, GPUs {gpus} as ranks 0..{topology.nranks - 1}{beside}, fingerprint {topology.fingerprint}",
        f"# plan: {parts} over {'+'.join(plan.links)}, rate {gb_s(plan.rate)} GB/s; bound {gb_s(plan.bound)} GB/s{planned}",
        f"# bound: {plan.certificate.describe(topology)}",
    ]
    for algorithm, rows in _by_algorithm(result.rows).items():
        lines.append(
            f"# {algorithm}: program {rows[0].ours.program}, {count(rows[0].ours.nchannels, 'channel')}, verified; "
            + (f"held to {gb_s(rows[0].ours.bound)} GB/s ({rows[0].ours.model}); " if rows[0].ours.model else "")
            + (f"at {size_text(rows[0].nbytes)}" if len(rows) == 1 else f"{len(rows)} sizes from {size_text(rows[0].nbytes)} to {size_text(rows[-1].nbytes)}")
        )
    for i, peer in enumerate(result.peers):
        algorithms = dict.fromkeys(t.algorithm for row in result.rows if (t := row.peers[i]) is not None)
        label = f"[{i + 1}] {peer}" if len(result.peers) > _MOST_IN_FULL else peer
        most = result.beyond_budget(i)
        beyond = f"; up to {count(most, 'channel')}, blinkcoll runs at most {result.max_channels} (--max-channels)" if most else ""
        lines.append(f"# {label}: {BASELINES[peer].title}: {', '.join(algorithms) or 'no program'}{beyond}")
    return [*lines, *(f"# {gap}" for gap in result.gaps), "#"]


def _by_algorithm(rows: Sequence[BenchRow]) -> dict[str, list[BenchRow]]:
    found: dict[str, list[BenchRow]] = {}
    for row in rows:
        found.setdefault(row.ours.algorithm, []).append(row)
    return found


def _columns(peers: Sequence[str]) -> list[str]:
    if len(peers) > _MOST_IN_FULL:
        names = "".join(f"  {f'[{i}]':>7}" for i in range(1, len(peers) + 1))
        units = "".join(f"  {'faster':>7}" for _ in peers)
    else:
        names = "".join(f"  {peer:>10} {'algbw':>7} {'faster':>7}" for peer in peers)
        units = "".join(f"  {'(us)':>10} {'(GB/s)':>7} {'':>7}" for _ in peers)
    return [
        f"# {'size':>10} {'count':>12} {'type':>8} {'redop':>6} {'root':>5} {'time':>10} {'algbw':>7} {'busbw':>7} {'bound':>6}{names}  program",
        f"# {'(B)':>10} {'(elements)':>12} {'':>8} {'':>6} {'':>5} {'(us)':>10} {'(GB/s)':>7} {'(GB/s)':>7} {'(%)':>6}{units}".rstrip(),
    ]
