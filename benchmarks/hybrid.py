"""What PCIe beside NVLink, and borrowed neighbours, add: planned and simulated. Prints the tables of docs/hybrids-and-relays.md.

    python benchmarks/hybrid.py [--relays-only] [--hybrids-only]
"""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import combinations

import blinkcoll as bc
from blinkcoll.errors import PackingError, ScheduleError
from blinkcoll.packing import Plan
from blinkcoll.packing.arborescences import depth
from blinkcoll.selection import Request, table_for
from blinkcoll.topology import Topology

NBYTES = 256 << 20
HYBRIDS = [
    ("a100-pcie-nvbridge", [0, 1]), ("a100-pcie-nvbridge", None), ("a6000-nvbridge", [0, 1]), ("a6000-nvbridge", None), ("ac922", [0, 1]), ("ac922", None),
    ("dgx1-p100", None), ("dgx1-v100", None), ("dgx-a100", None), ("dgx2", None),
]  # fmt: skip


def fastest(topology: Topology, collective: str, root: int | None, hybrid: bool) -> tuple[Plan, float] | None:
    """Of selection's packed candidates, hybrids or those of the fastest links alone: the fastest, simulated, and its algbw."""
    contest = table_for(Request(topology, collective, root, 32)).contest
    kind = [i for i in contest.allowed if (plan := contest.candidates[i].plan) is not None and (plan.method == "hybrid") == hybrid]
    best = None
    for i in sorted(kind, key=lambda i: contest.floor_us(i, NBYTES)):
        if best is None or contest.floor_us(i, NBYTES) < best[0]:
            found = contest.time_us(i, NBYTES), i
            best = found if best is None else min(best, found)
    if best is None:
        return None
    plan = contest.candidates[best[1]].plan
    assert plan is not None
    return plan, NBYTES / best[0] / 1e3


def alone_on(topology: Topology, collective: str, root: int | None) -> tuple[Plan, float]:
    """The fastest plan over the fastest links."""
    found = fastest(topology, collective, root, hybrid=False)
    assert found is not None
    return found


def shape(plan: Plan) -> str:
    """Trees and the deepest of them."""
    return f"{len(plan.trees)} / {max(depth(t.root, t.down or t.up or ()) for t in plan.trees)}"


def hybrid_row(topology: Topology, collective: str) -> list[str]:
    """Without and with the other links."""
    root = 0 if collective == "broadcast" else None
    alone, simulated = alone_on(topology, collective, root)
    full = bc.plan(topology, collective, root=root, method="hybrid")
    full.check()
    best = fastest(topology, collective, root, hybrid=True)
    taken = f"{float(best[0].rate):.1f} | {shape(best[0])} | {best[1]:.1f}" if best else "- | - | -"
    none = "0, all links are its fastest already" if alone.links == full.links else "0, no candidate fits 32 channels"
    gain = f"{best[1] - simulated:+.1f}" if best else none
    gpus = ",".join(str(d.index) for d in topology.devices)
    return [
        topology.name, gpus, collective, f"{float(alone.rate):.1f} of {float(alone.bound):.1f}", shape(alone), f"{simulated:.1f}",
        f"{float(full.rate):.1f} of {float(full.bound_all):.1f}", f"{float(full.gap) * 100:.1f} %", taken, gain,
    ]  # fmt: skip


def gains_on(layout: str) -> str:
    """Over the classes of a machine: in how many a hybrid is simulated to be faster, and by how much."""
    lines = []
    for collective in ("broadcast", "allreduce"):
        root = 0 if collective == "broadcast" else None
        gains, total = [], 0
        for k in range(3, 9):
            for topology in bc.load_topology(layout).unique_subsets(k):
                total += 1
                _, alone = alone_on(topology, collective, root)
                best = fastest(topology, collective, root, hybrid=True)
                if best is not None and best[1] > alone:
                    gains.append((best[1] - alone, best[1] / alone))
        by = sorted(g for g, _ in gains)
        lines.append(f"| {layout} | {collective} | {len(gains)} of {total} | {by[0]:.1f} to {by[-1]:.1f}, median {by[len(by) // 2]:.1f} | {max(f for _, f in gains):.2f}x |")
    return "\n".join(lines)


def relay_row(topology: Topology, collective: str) -> list[str]:
    """Alone and with its relays; NCCL beside it."""
    root = 0 if collective == "broadcast" else None
    before, alone = alone_on(topology.without_relays(), collective, root)
    plans = []
    for options in ({}, {"max_trees": 15}, {"max_trees": 8}, {"max_trees": 4}):
        try:
            plan = bc.plan(topology, collective, root=root, **options)
            plan.check()
            plans.append((bc.simulate(plan.schedule(nbytes=NBYTES), NBYTES).algbw, plan))
        except (PackingError, ScheduleError):
            continue
    simulated, plan = max(plans, key=lambda pair: pair[0])
    full = plans[0][1]
    gpus, helpers = (",".join(str(d.index) for d in devices) for devices in (topology.devices, topology.relays))
    return [
        topology.name, gpus, helpers, collective, f"{float(before.rate):.1f}", f"{alone:.1f}", f"{float(full.rate):.1f} of {float(full.bound):.1f}",
        shape(plan), f"{simulated:.1f}",
    ]  # fmt: skip


def best_neighbours(layout: str, gpus: list[int], count: int) -> Topology:
    """With the ``count`` idle devices that lift the all-reduce most; the first such."""
    whole = bc.load_topology(layout)
    idle = [d.index for d in whole.devices if d.index not in gpus]
    rates: list[tuple[Fraction, Topology]] = []
    for helpers in combinations(idle, count):
        topology = whole.subset(gpus, relays=helpers)
        rates.append((bc.plan(topology, "allreduce", links=["NVLINK"]).rate, topology))
    return max(rates, key=lambda pair: pair[0])[1]


def main() -> None:
    if "--relays-only" not in sys.argv:
        print("| machine | GPUs | collective | fastest links: rate of bound | trees / depth | simulated | hybrid: rate of bound_all | gap | its best: rate | trees / depth | simulated | gain |")
        print("| --- " * 12 + "|")
        for layout, gpus in HYBRIDS:
            whole = bc.load_topology(layout)
            topology = whole if gpus is None else whole.subset(gpus)
            for collective in ("broadcast", "allreduce"):
                print("| " + " | ".join(hybrid_row(topology, collective)) + " |", flush=True)
        print("\n| machine | collective | classes that gain | by, GB/s | most |")
        print("| --- " * 5 + "|")
        for layout in ("dgx1-p100", "dgx1-v100"):
            print(gains_on(layout), flush=True)
    if "--hybrids-only" not in sys.argv:
        print("\n| machine | GPUs | relays | collective | alone: rate | simulated | with relays: rate of bound | trees / depth | simulated |")
        print("| --- " * 9 + "|")
        for gpus, count in (([0, 1], 1), ([0, 1], 2), ([0, 1], 6), ([0, 3], 2), ([0, 1, 4], 1), ([0, 1, 4], 2), ([0, 1, 4], 5), ([0, 1, 2, 3], 4), ([0, 1, 4, 5, 6], 3)):
            for collective in ("broadcast", "allreduce"):
                print("| " + " | ".join(relay_row(best_neighbours("dgx1-v100", gpus, count), collective)) + " |", flush=True)
        for collective in ("broadcast", "allreduce"):
            print("| " + " | ".join(relay_row(bc.load_topology("dgx-a100").subset([0, 1, 2, 3], relays=[4, 5, 6, 7]), collective)) + " |", flush=True)


if __name__ == "__main__":
    main()
