"""How long a proof takes, Python's conversion included: the eight collectives' plans on 8 and 72 GPUs, and all families.

CPU time of the fastest of some runs; the limits are 20 ms for 8 GPUs and 1 s for 64.

    python benchmarks/verifier.py
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction

import blinkcoll as bc
from blinkcoll.schedules import (
    Program,
    lower_barrier,
    lower_double_trees,
    lower_halving_doubling,
    lower_one_shot,
    lower_rings,
    lower_two_shot,
)
from blinkcoll.topology import Device, Link, Switch, Topology, load_topology

COLLECTIVES = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter", "alltoall")
ROOTED = ("broadcast", "reduce", "gather", "scatter")
RUNS = 5


def star(n: int) -> Topology:
    """n GPUs behind one switch."""
    devices = tuple(Device(f"gpu{i}") for i in range(n))
    links = tuple(Link(*ends, "NVLINK", Fraction(720)) for d in devices for ends in ((d.name, "switch"), ("switch", d.name)))
    return Topology(f"star{n}", devices, (Switch("switch", "nvswitch"),), links)


def programs(topology: Topology):
    """Of plans, then of families."""
    n = topology.nranks
    for collective in COLLECTIVES:
        plan = bc.plan(topology, collective, root=0 if collective in ROOTED else None)
        yield f"plan, {collective}", bc.schedules.lower(plan)
    for lowering in (lower_one_shot, lower_two_shot, lower_halving_doubling, lower_double_trees, lower_barrier):
        yield lowering.__name__, lowering(topology)
    if n <= 16:
        yield "lower_rings, 4", lower_rings(topology, [range(n)] * 4)
    yield "lower_rings, 1", lower_rings(topology, [range(n)])


def proof_ms(program: Program) -> float:
    """CPU milliseconds of the fastest proof."""
    times = []
    for _ in range(RUNS):
        before = time.process_time()
        bc.verify(program, repeated=True)
        times.append(time.process_time() - before)
    return 1000 * min(times)


def main() -> int:
    """Print a table; 1 where a limit is missed."""
    missed = False
    for topology, limit_ms in ((load_topology("dgx1-v100"), 20), (load_topology("hgx-h100"), 20), (star(64), 1000)):
        print(f"# {topology.name}: {topology.nranks} GPUs, limit {limit_ms} ms")
        for name, program in programs(topology):
            ms = proof_ms(program)
            steps = sum(len(channel.steps) for channels in program.ranks for channel in channels)
            missed |= ms > limit_ms
            print(f"{name:24} {steps:7} steps {len(program.connections):6} connections {ms:9.1f} ms{'  MISSED' if ms > limit_ms else ''}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
