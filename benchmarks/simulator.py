"""How fast the simulator is: chunk-steps a second, and a 1 GiB all-reduce on 64 GPUs.

    python benchmarks/simulator.py
"""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import pairwise

from blinkcoll.cost import default_chunk_bytes
from blinkcoll.packing import make_plan
from blinkcoll.packing.plan import Plan, Tree
from blinkcoll.schedules import Program, lower_rings, lower_trees
from blinkcoll.simulator import run
from blinkcoll.topology import Device, Link, Switch, Topology, load_topology

GIB = 1 << 30


def cluster(nservers: int, gpus: int) -> Topology:
    """Servers of GPUs around one NVSwitch, each GPU with a NIC of 50 GB/s into one network."""
    devices, switches, links = [], [Switch("net", "network")], []

    def wire(a: str, b: str, kind: str, gb_s: int, latency_us: str) -> None:
        links.extend(Link(x, y, kind, Fraction(gb_s), Fraction(latency_us)) for x, y in ((a, b), (b, a)))

    for server in range(nservers):
        switches.append(Switch(f"nvs{server}", "nvswitch", server=server))
        for gpu in range(gpus):
            name = f"s{server}g{gpu}"
            devices.append(Device(name, arch="sm_90", server=server))
            wire(name, f"nvs{server}", "NVLINK", 370, "0.3")
            wire(name, "net", "NIC", 50, "2.5")
    return Topology("cluster", tuple(devices), tuple(switches), tuple(links))


def ring_of_64(nrings: int) -> Program:
    """Rings that leave each server from another GPU, as NCCL's do."""
    topology = cluster(8, 8)
    orders = [[8 * s + (g + r) % 8 for s in range(8) for g in range(8)] for r in range(nrings)]
    return lower_rings(topology, orders)


def trees_of_64(ntrees: int) -> Program:
    """A chain in each server, its heads joined as a binary tree; another head a tree."""
    topology = cluster(8, 8)
    trees = []
    for t in range(ntrees):
        down: list[tuple[int | str, ...]] = []
        for s in range(8):
            ranks = [8 * s + (t + i) % 8 for i in range(8)]
            down += [(a, f"nvs{s}", b) for a, b in pairwise(ranks)]
            down += [(ranks[0], "net", 8 * child + t % 8) for child in (2 * s + 1, 2 * s + 2) if child < 8]
        up = tuple(path[::-1] for path in down)
        trees.append(Tree(t % 8, Fraction(25), Fraction(1, ntrees), up, tuple(down)))
    rate = Fraction(25 * ntrees)
    return lower_trees(Plan(topology, "allreduce", "by hand", rate, rate, rate, None, ("NVLINK", "NIC"), trees=tuple(trees)))  # type: ignore[arg-type]


def main() -> None:
    cases = [
        ("dgx1-v100 exact trees", lower_trees(make_plan(load_topology("dgx1-v100"), "allreduce"))),
        ("dgx1-p100 exact trees", lower_trees(make_plan(load_topology("dgx1-p100"), "allreduce"))),
        ("dgx1-v100 ring", lower_rings(load_topology("dgx1-v100"), [range(8)] * 2)),
        ("64 GPUs, 8 rings", ring_of_64(8)),
        ("64 GPUs, 16 rings", ring_of_64(16)),
        ("64 GPUs, 8 trees", trees_of_64(8)),
    ]
    print("# 1 GiB all-reduce; steps/s of the event loop with the program prepared")
    print(f"{'program':24} {'chunk':>8} {'steps':>9} {'prepare s':>10} {'run s':>8} {'steps/s':>10} {'algbw GB/s':>11}")
    for name, program in cases:
        chunk_bytes = default_chunk_bytes(program, GIB)
        start = time.perf_counter()
        run(program, 16, chunk_bytes=chunk_bytes)
        prepared = time.perf_counter()
        result = run(program, GIB, chunk_bytes=chunk_bytes)
        took = time.perf_counter() - prepared
        print(f"{name:24} {chunk_bytes:8} {result.nsteps:9} {prepared - start:10.3f} {took:8.3f} {result.nsteps / took:10.0f} {result.algbw:11.2f}")


if __name__ == "__main__":
    main()
