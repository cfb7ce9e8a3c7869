"""How long a proof takes, Python's conversion included: all families on 8 GPUs and on 64, and the largest on 72.

CPU time of the fastest of some runs; the limits are 20 ms for 8 GPUs and 1 s for 64 and more.

    python benchmarks/verifier.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import blinkcoll as bc
from blinkcoll.packing import make_plan
from blinkcoll.schedules import (
    Program,
    has_exchanges,
    lower_barrier,
    lower_double_trees,
    lower_forest,
    lower_halving_doubling,
    lower_nvls,
    lower_one_shot,
    lower_rings,
    lower_two_shot,
    with_protocol,
)
from blinkcoll.schedules.hierarchical import lower_hierarchical
from blinkcoll.topology import Device, Link, Switch, Topology, load_topology

COLLECTIVES = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter", "alltoall")
ROOTED = ("broadcast", "reduce", "gather", "scatter")
ACROSS = ("allreduce", "broadcast", "reduce")
RUNS = 5

Made = Iterator[tuple[str, Callable[[], Program]]]


def star(n: int, **switch: bool) -> Topology:
    """n GPUs behind one switch."""
    devices = tuple(Device(f"gpu{i}", arch="sm_90") for i in range(n))
    links = tuple(Link(*ends, "NVLINK", Fraction(720)) for d in devices for ends in ((d.name, "switch"), ("switch", d.name)))
    return Topology(f"star{n}", devices, (Switch("switch", "nvswitch", **switch),), links)


def plans(topology: Topology, **options: object) -> Made:
    """Of all collectives, the all-to-all for unequal pieces too, by counters and in lines."""
    for collective in COLLECTIVES:
        plan = bc.plan(topology, collective, root=0 if collective in ROOTED else None, **options)
        yield f"plan, {collective}", lambda plan=plan: bc.schedules.lower(plan)
        yield f"plan, {collective}, LL", lambda plan=plan: with_protocol(bc.schedules.lower(plan), "LL")
    yield "plan, alltoallv", lambda: bc.schedules.lower(plan, uneven=True)


def classic(topology: Topology) -> Made:
    """The families for any graph of joined ranks, by counters and in lines."""
    n = topology.nranks
    for lowering in (lower_one_shot, lower_two_shot, lower_halving_doubling, lower_double_trees, lower_barrier):
        yield lowering.__name__, lambda lowering=lowering: lowering(topology)
        yield f"{lowering.__name__}, LL", lambda lowering=lowering: with_protocol(lowering(topology), "LL")
    for collective in ("allreduce", "allgather", "reducescatter", "broadcast"):
        root = 0 if collective == "broadcast" else None
        yield f"lower_rings, {collective}", lambda c=collective, r=root: lower_rings(topology, [range(n)] * (4 if n <= 16 else 1), collective=c, root=r)
    halves = [range(n // 2), range(n // 2, n)]
    yield "lower_hierarchical", lambda: lower_hierarchical(topology, halves, [range(n // 2)])


def forests(topology: Topology) -> Made:
    """Trees that share channels."""
    for collective in ACROSS:
        plan = make_plan(topology, collective, 0 if collective in ROOTED else None)
        yield f"lower_forest, {collective}", lambda plan=plan: lower_forest(plan, max_channels=4)


def over_switches(topology: Topology) -> Made:
    """Of plans for switches that copy and add, staged and registered."""
    for collective in ("allreduce", "broadcast", "reduce", "allgather", "reducescatter"):
        plan = bc.plan(topology, collective, root=0 if collective in ROOTED else None, method="nvls")
        yield f"nvls, {collective}", lambda plan=plan: lower_nvls(plan)
        yield f"nvls registered, {collective}", lambda plan=plan: lower_nvls(plan, registered=True)


def hybrids(topology: Topology) -> Made:
    """PCIe and host memory beside NVLink."""
    for collective in ("allreduce", "broadcast", "reduce", "allgather", "reducescatter"):
        plan = bc.plan(topology, collective, root=0 if collective in ROOTED else None, method="hybrid")
        yield f"hybrid, {collective}", lambda plan=plan: bc.schedules.lower(plan, max_channels=64)


def across_servers(topology: Topology) -> Made:
    """Three-phase plans, their exchanges opaque and as connections."""
    for collective in ACROSS:
        plan = bc.plan(topology, collective, root=0 if collective in ROOTED else None, method="three-phase")
        opaque = bc.schedules.lower(plan, max_channels=256)
        assert has_exchanges(opaque)
        yield f"three-phase, {collective}", lambda opaque=opaque: opaque
        yield f"three-phase, expanded, {collective}", lambda opaque=opaque: bc.schedules.expand_exchanges(opaque)


MACHINES: tuple[tuple[str, Callable[[], Topology], tuple[Callable[[Topology], Made], ...], int], ...] = (
    ("dgx1-v100", lambda: load_topology("dgx1-v100"), (plans, classic, forests, hybrids), 20),
    ("hgx-h100", lambda: load_topology("hgx-h100"), (plans, classic, forests, over_switches), 20),
    ("star64", lambda: star(64, multicast=True, reduce=True), (plans, classic, over_switches), 1000),
    ("gb200-nvl72", lambda: load_topology("gb200-nvl72"), (over_switches, classic), 1000),
    ("hgx-h100*8@50", lambda: load_topology("hgx-h100*8@50"), (across_servers,), 1000),
)


def proof_ms(program: Program, runs: int = RUNS) -> float:
    """CPU milliseconds of the fastest proof."""
    times = []
    for _ in range(runs):
        before = time.process_time()
        bc.verify(program, repeated=program.algorithm != "hierarchical")
        times.append(time.process_time() - before)
    return 1000 * min(times)


def main() -> int:
    """Print a table; 1 where a limit is missed."""
    missed = 0
    for name, make, families, limit_ms in MACHINES:
        topology = make()
        print(f"# {name}: {topology.nranks} GPUs, limit {limit_ms} ms")
        for family in families:
            for what, lowering in family(topology):
                program = lowering()
                ms = proof_ms(program)
                steps = sum(len(channel.steps) for channels in program.ranks for channel in channels)
                missed += ms > limit_ms
                print(f"{what:36} {steps:7} steps {len(program.connections):6} connections {ms:9.1f} ms{'  MISSED' if ms > limit_ms else ''}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
