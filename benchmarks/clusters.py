"""Flat against three-phase plans on clusters of V100 DGX-1s: bounds, rates, gaps and simulated bandwidths, as a table.

    python benchmarks/clusters.py [--only REGEX] [--nbytes 268435456]

A row a cluster, NIC and collective: the flat bound and the flat plan that meets it (trees, depth), the best three-phase plan
(rate, gap to the flat bound, partitions), and what both are SIMULATED to reach. Programs run in as few channels a rank as
hold them, 32 where these do (shown in brackets). Every plan is checked; bandwidths are algbw in GB/s, of NICs in GB/s too.
"""

from __future__ import annotations

import argparse
import re
import sys

from blinkcoll import plan as make_plan
from blinkcoll import simulate
from blinkcoll.errors import ScheduleError
from blinkcoll.packing.arborescences import depth
from blinkcoll.topology import load_topology

NICS = ("1", "5", "12.5", "50")
#: GPUs of each server (indices of its own), by what the row is called.
CLUSTERS = {
    "8+8": [range(8)] * 2,
    "8+8+8+8": [range(8)] * 4,
    "3+5": [(0, 1, 4), (0, 1, 2, 3, 4)],
    "1+7": [(3,), (0, 1, 2, 3, 4, 5, 6)],
    "3+5+8+8": [(0, 1, 4), (0, 1, 2, 3, 4), range(8), range(8)],
}
COLLECTIVES = (("allreduce", None), ("broadcast", 0), ("reduce", 0))
BUDGETS = (32, 64, 128, 256)


def simulated(plan, nbytes):
    """algbw in the smallest budget of channels that holds the plan, and that many channels."""
    for budget in BUDGETS:
        try:
            program = plan.schedule(nbytes=nbytes, max_channels=budget)
        except ScheduleError:
            continue
        return f"{simulate(program, nbytes=nbytes).algbw:.1f} ({program.nchannels})"
    return f"more than {BUDGETS[-1]} channels"


def row(name, servers, nic, collective, root, nbytes):
    topology = load_topology(f"dgx1-v100*{len(servers)}@{nic}").subset([8 * s + gpu for s, gpus in enumerate(servers) for gpu in gpus])
    flat = make_plan(topology, collective, root=root, method="exact")
    three = make_plan(topology, collective, root=root, method="three-phase")
    for made in (flat, three):
        made.check()
    deepest = max(depth(tree.root, tree.up if tree.down is None else tree.down) for tree in flat.trees)
    return [
        name, nic, collective, *(f"{float(x):.4g}" for x in (flat.bound, flat.rate)), str(len(flat.trees)), str(deepest),
        f"{float(three.rate):.4g}", f"{float(three.gap) * 100:.0f} %", str(len(three.partitions)), simulated(flat, nbytes), simulated(three, nbytes),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose 'cluster nic collective' matches")
    parser.add_argument("--nbytes", type=int, default=256 << 20)
    args = parser.parse_args()
    print("| GPUs | NIC | collective | flat bound | flat rate | trees | depth | three-phase | gap | partitions | flat, simulated | three-phase, simulated |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, servers in CLUSTERS.items():
        for nic in NICS:
            for collective, root in COLLECTIVES:
                if re.search(args.only, f"{name} {nic} {collective}"):
                    print("| " + " | ".join(row(name, servers, nic, collective, root, args.nbytes)) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
