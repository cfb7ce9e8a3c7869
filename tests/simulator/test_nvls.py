"""Switches that copy and add, simulated: what every port carries, how near the plan's rate programs come, and H100s."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

import blinkcoll as bc
from blinkcoll.cost import default_chunk_bytes
from blinkcoll.cost.estimate import estimate_us
from blinkcoll.cost.parameters import FLUID, parameters_for
from blinkcoll.errors import SimulationError
from blinkcoll.schedules import lower_nvls
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines.nccl import nccl_program
from blinkcoll.simulator.baselines.nccl.nvls import nvls_chunk_bytes
from blinkcoll.simulator.traffic import links_crossed
from blinkcoll.topology import Device, Link, Switch, Topology

H100 = bc.load_topology("hgx-h100")
GIB = 1 << 30


def made(topology, collective, **options):
    root = 1 if collective in ("broadcast", "reduce") else None
    return lower_nvls(bc.plan(topology, collective, root=root, method="nvls"), **options)


def timed(program, nbytes, **options):
    return run(program, nbytes, chunk_bytes=default_chunk_bytes(program, nbytes), **options)


#: Per rank, how often all of the data crosses its port to the switch, and from it: (any rank, the root besides).
LOADS = {
    "allreduce": ((Fraction(9, 8), 0), (Fraction(9, 8), 0)), "broadcast": ((0, 1), (1, 0)), "reduce": ((1, 0), (0, 1)),
    "allgather": ((Fraction(1, 8), 0), (1, 0)), "reducescatter": ((1, 0), (Fraction(1, 8), 0)),
}  # fmt: skip


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("collective", LOADS)
def test_every_port_carries_what_the_switch_reads_and_writes(collective, registered):
    """By hand, divided by NCCL's efficiency of NVLS on Hopper; however many ranks a copy serves, a port carries it once."""
    nbytes = 1 << 20
    result = timed(made(H100, collective, registered=registered), nbytes)
    for way, (each, at_root) in zip(("out", "back"), LOADS[collective], strict=True):
        for rank in range(8):
            hop = (rank, "nvswitch") if way == "out" else ("nvswitch", rank)
            expected = nbytes * float(each + (at_root if rank == 1 else 0)) / 0.85
            assert result.link_bytes.get(hop, 0.0) == pytest.approx(expected, rel=1e-3), (way, rank)


def test_what_a_step_crosses_is_told_alike():
    program = made(H100, "allreduce", registered=True)
    (head,) = (step for step in program.ranks[3][0].steps if step.op == "reduce")
    crossed = links_crossed(program, 3, head)
    assert crossed[3, "nvswitch"] == crossed["nvswitch", 3] == pytest.approx(2 / 0.85)
    assert crossed[0, "nvswitch"] == crossed["nvswitch", 0] == pytest.approx(1 / 0.85)


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("collective", LOADS)
@pytest.mark.parametrize("n", [3, 8])
def test_without_latencies_programs_reach_the_plans_rate(n, collective, registered):
    whole = H100.subset(list(range(n)))
    topology = replace(whole, links=tuple(replace(link, latency_us=Fraction(0)) for link in whole.links))
    plan = bc.plan(topology, collective, root=1 if collective in ("broadcast", "reduce") else None, method="nvls")
    program = lower_nvls(plan, registered=registered)
    result = run(program, 4 * GIB, params=FLUID, chunk_bytes=default_chunk_bytes(program, GIB))
    assert 0.999 * plan.rate <= result.algbw <= plan.rate * (1 + 1e-9)


def test_planes_carry_what_their_ports_are_of_all():
    devices = tuple(Device(f"gpu{i}", arch="sm_90") for i in range(3))
    switches = tuple(Switch(f"s{p}", "nvswitch", multicast=True, reduce=True) for p in range(2))
    links = tuple(Link(a, b, "NVLINK", Fraction(rate)) for d in devices for s, rate in (("s0", 30), ("s1", 10)) for a, b in ((d.name, s), (s, d.name)))
    program = made(Topology("planes", devices, switches, links), "allreduce", registered=True)
    carried = timed(program, 1 << 20).link_bytes
    assert carried[0, "s0"] == pytest.approx(3 * carried[0, "s1"]) == pytest.approx((1 << 20) * (4 / 3) * 0.75 / 0.85, rel=1e-3)


def test_a_small_call_takes_what_nccl_says_it_does():
    """hwLatencies: 25 us for NVLS, launch included. Where a rank copies shards one by one it pays for each."""
    assert run(made(H100, "allreduce", registered=True), 8).time_us == pytest.approx(25, abs=0.5)
    assert run(nccl_program(H100, "allreduce", None, 8, algorithm="nvls"), 8).time_us == pytest.approx(28.5, abs=0.5)


@pytest.mark.parametrize(("n", "busbw"), [(5, 420), (6, 440), (7, 460), (8, 480)])
def test_nccls_nvls_on_h100s_as_published(n, busbw):
    """NCCL_ALGO=NVLS, 2 to 4 GiB (NVIDIA/nccl#1455): within 3 %, from links measured on two GPUs and NCCL's efficiency."""
    program = nccl_program(H100.subset(list(range(n))), "allreduce", None, 4 * GIB, algorithm="nvls")
    result = run(program, 4 * GIB, chunk_bytes=nvls_chunk_bytes(program, 4 * GIB), rates="measured")
    assert result.busbw == pytest.approx(busbw, rel=0.03)


def test_in_network_sums_beat_trees_where_docs_say():
    """docs/nvls.md: from 32 MiB on; below, trees have less to wait for."""
    trees = bc.plan(H100, "allreduce").schedule(nbytes=GIB)
    for registered in (False, True):
        nvls = made(H100, "allreduce", registered=registered)
        assert timed(nvls, 32 << 20).time_us < timed(trees, 32 << 20).time_us
        assert timed(nvls, 1 << 20).time_us > timed(trees, 1 << 20).time_us
        assert timed(nvls, GIB).algbw >= 1.25 * timed(trees, GIB).algbw


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("nbytes", [1 << 16, 16 << 20, 256 << 20, 4 * GIB])
def test_the_closed_form_is_near(nbytes, registered):
    program = made(H100, "allreduce", registered=registered)
    chunk = default_chunk_bytes(program, nbytes)
    assert estimate_us(program, nbytes, chunk_bytes=chunk) == pytest.approx(run(program, nbytes, chunk_bytes=chunk).time_us, rel=0.06)


@pytest.mark.parametrize("nbytes", [16 << 20, 64 << 20, 256 << 20, pytest.param(GIB, marks=pytest.mark.slow)])
def test_the_default_chunk_is_within_five_percent_of_the_best(nbytes):
    program = made(H100, "allreduce")
    best = min(run(program, nbytes, chunk_bytes=1 << power).time_us for power in range(14, 21))
    assert timed(program, nbytes).time_us <= 1.05 * best


def test_programs_that_copy_nothing_take_a_share_at_once():
    program = made(H100, "allreduce", registered=True)
    share = GIB / 8 / len(program.weights)
    assert share <= default_chunk_bytes(program, GIB) <= share + 32


def test_a_topology_without_such_switches_is_refused():
    program = made(H100, "allreduce")
    switches = tuple(replace(s, reduce=False) for s in H100.switches)
    with pytest.raises(SimulationError, match="no switch that adds or copies"):
        run(replace(program, topology=replace(H100, switches=switches)), 1 << 20, params=parameters_for(H100))
