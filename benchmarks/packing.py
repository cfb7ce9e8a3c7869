"""How long planning takes: rate, certificate and trees (or flows), imports done, nothing cached, median of several runs.

    python benchmarks/packing.py [--runs 5] [--only REGEX] [--json]

Prints one row a machine and collective; a row over its limit (milliseconds, where there is one) is marked, and the
exit code is 1 then. The machines are those of the tests: named layouts, and fabrics built from published definitions.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "packing"))

from packing_fabrics import a100_boxes, mi250_boxes, star

from blinkcoll.packing import make_plan
from blinkcoll.topology import load_topology

TREES = ("broadcast", "allreduce", "allgather", "reducescatter")
#: Machine, how to build it, limit in ms for each of TREES, limit for all-to-all.
MACHINES = [
    ("dgx1-p100", lambda: load_topology("dgx1-p100"), dict.fromkeys(TREES, 20)),
    ("dgx1-v100", lambda: load_topology("dgx1-v100"), dict.fromkeys(TREES, 20)),
    ("dgx1-v100, all links", lambda: load_topology("dgx1-v100"), dict.fromkeys(TREES, 20)),
    ("8 on one NVSwitch", lambda: star(8, 300), dict.fromkeys(TREES, 20)),
    ("16 on 6 NVSwitches", lambda: star(16, 120, planes=6), dict.fromkeys(TREES, 20)),
    ("MI250 16 GCDs", lambda: mi250_boxes(1), dict.fromkeys(TREES, 20)),
    ("2 x DGX-A100", lambda: a100_boxes(2), dict.fromkeys(TREES, 20)),
    ("72 on one NVSwitch", lambda: star(72, 900), dict.fromkeys(TREES, 200)),
    ("72 on 18 NVSwitches", lambda: star(72, 900, planes=18), dict.fromkeys(TREES, 200)),
    ("2 x MI250", lambda: mi250_boxes(2), {"allgather": 500}),
    ("4 x MI250", lambda: mi250_boxes(4), {}),
    ("4 x DGX-A100", lambda: a100_boxes(4), {}),
    ("8 x DGX-A100", lambda: a100_boxes(8), {"allgather": 3000}),
]
ALLTOALL_LIMIT_MS = 2000


def measure(topology, collective, links, runs):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        plan = make_plan(topology, collective, 0 if collective == "broadcast" else None, links=links)
        times.append((time.perf_counter() - start) * 1e3)
    plan.check()
    return plan, statistics.median(times), max(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="machines and collectives whose 'machine collective' matches")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows, late = [], 0
    if not options.json:
        print(f"# {'machine':22} {'collective':14} {'algbw GB/s':>11} {'gap':>7} {'trees':>6} {'flows':>6} {'median ms':>10} {'max ms':>9} {'limit ms':>9}")
    for machine, build, limits in MACHINES:
        topology = build()
        links = "all" if "all links" in machine else "fastest"
        for collective in (*TREES, "alltoall"):
            if not re.search(options.only, f"{machine} {collective}"):
                continue
            plan, median, worst = measure(topology, collective, links, options.runs)
            limit = ALLTOALL_LIMIT_MS if collective == "alltoall" else limits.get(collective)
            over = limit is not None and median > limit
            late += over
            row = {"machine": machine, "collective": collective, "algbw_gb_s": float(plan.rate), "gap": float(plan.gap), "trees": len(plan.trees), "flows": len(plan.flows), "median_ms": median, "max_ms": worst, "limit_ms": limit}
            rows.append(row)
            if not options.json:
                print(f"  {machine:22} {collective:14} {float(plan.rate):11.3f} {float(plan.gap):7.2%} {len(plan.trees):6} {len(plan.flows):6} {median:10.2f} {worst:9.2f} {limit or '':>9}{'  LATE' if over else ''}", flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))
    return int(late > 0)


if __name__ == "__main__":
    sys.exit(main())
