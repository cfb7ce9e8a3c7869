"""What PCIe beside NVLink, and borrowed neighbours, add: planned and simulated. Prints the tables of docs/packing.md.

    python benchmarks/hybrid.py [--relays-only] [--hybrids-only]
"""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import combinations

import blinkcoll as bc
from blinkcoll.errors import PackingError, ScheduleError
from blinkcoll.packing import Plan, hybrid_candidates
from blinkcoll.packing.arborescences import depth
from blinkcoll.selection import fastest_plan
from blinkcoll.topology import Topology

NBYTES = 256 << 20
HYBRIDS = [
    ("a100-pcie-nvbridge", [0, 1]), ("a100-pcie-nvbridge", None), ("a6000-nvbridge", [0, 1]), ("a6000-nvbridge", None), ("ac922", [0, 1]), ("ac922", None),
    ("dgx1-p100", None), ("dgx1-v100", None), ("dgx-a100", None), ("dgx2", None),
]  # fmt: skip


def best_hybrid(topology: Topology, collective: str, root: int | None) -> tuple[Plan, float] | None:
    """The candidate that is simulated to be the fastest, and its algbw."""
    found = []
    for plan in hybrid_candidates(topology, collective, root, 32):
        try:
            found.append((bc.simulate(bc.schedule(plan, nbytes=NBYTES), NBYTES).algbw, plan))
        except ScheduleError:
            continue
    if not found:
        return None
    best = max(found, key=lambda pair: pair[0])
    return best[1], best[0]


def shape(plan: Plan) -> str:
    """Trees and the deepest of them."""
    return f"{len(plan.trees)} / {max(depth(t.root, t.down or t.up or ()) for t in plan.trees)}"


def hybrid_row(topology: Topology, collective: str) -> list[str]:
    """Without and with the other links."""
    root = 0 if collective == "broadcast" else None
    alone = fastest_plan(topology, collective, root, NBYTES).best
    full = bc.plan(topology, collective, root=root, method="hybrid")
    full.check()
    best = best_hybrid(topology, collective, root)
    simulated = NBYTES / alone.time_us / 1e3
    taken = f"{float(best[0].rate):.1f} | {shape(best[0])} | {best[1]:.1f}" if best else "- | - | -"
    none = "0, all links are its fastest already" if alone.plan.links == full.links else "0, no candidate fits 32 channels"
    gain = f"{best[1] - simulated:+.1f}" if best else none
    gpus = ",".join(str(d.index) for d in topology.devices)
    return [
        topology.name, gpus, collective, f"{float(alone.plan.rate):.1f} of {float(alone.plan.bound):.1f}", shape(alone.plan), f"{simulated:.1f}",
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
                alone = NBYTES / fastest_plan(topology, collective, root, NBYTES).best.time_us / 1e3
                best = best_hybrid(topology, collective, root)
                if best is not None and best[1] > alone:
                    gains.append((best[1] - alone, best[1] / alone))
        by = sorted(g for g, _ in gains)
        lines.append(f"| {layout} | {collective} | {len(gains)} of {total} | {by[0]:.1f} to {by[-1]:.1f}, median {by[len(by) // 2]:.1f} | {max(f for _, f in gains):.2f}x |")
    return "\n".join(lines)


def relay_row(topology: Topology, collective: str) -> list[str]:
    """Alone and with its relays; NCCL beside it."""
    root = 0 if collective == "broadcast" else None
    alone = topology.without_relays()
    before = fastest_plan(alone, collective, root, NBYTES).best
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
        topology.name, gpus, helpers, collective, f"{float(before.plan.rate):.1f}", f"{NBYTES / before.time_us / 1e3:.1f}", f"{float(full.rate):.1f} of {float(full.bound):.1f}",
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
