"""The closed form against the simulator, and against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from blinkcoll.cost import Launch, Parameters, Protocol, default_chunk_bytes, estimate_us
from blinkcoll.errors import SimulationError
from blinkcoll.packing import make_plan
from blinkcoll.schedules import Channel, Connection, Program, Step, lower_rings, lower_trees, slot
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import baseline_program
from blinkcoll.topology import Device, Link, Topology, load_topology

SIZES = [8, 1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 28]
CASES = [("dgx1-v100", (0, 1, 4)), ("dgx1-v100", (0, 2, 3)), ("dgx1-v100", tuple(range(7))), ("dgx1-p100", (0, 1, 2, 4, 5))]


def ratio(program: Program, nbytes: int) -> float:
    chunk_bytes = default_chunk_bytes(program, nbytes)
    return estimate_us(program, nbytes, chunk_bytes=chunk_bytes) / run(program, nbytes, chunk_bytes=chunk_bytes).time_us


@pytest.mark.parametrize(("name", "gpus"), CASES, ids=str)
@pytest.mark.parametrize("nbytes", SIZES)
def test_trees_agree_with_the_simulator(name, gpus, nbytes):
    topology = load_topology(name).subset(gpus)
    for collective, root in (("allreduce", None), ("broadcast", 0)):
        found = ratio(lower_trees(make_plan(topology, collective, root)), nbytes)
        assert 0.9 <= found <= 1.2, (collective, found)


@pytest.mark.parametrize("name", ["dgx1-v100", "dgx1-p100"])
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
@pytest.mark.parametrize("nbytes", SIZES)
def test_rings_and_chains_agree_with_the_simulator(name, collective, nbytes):
    program = baseline_program("baidu-ring", load_topology(name), collective, 0, nbytes)
    assert ratio(program, nbytes) == pytest.approx(1, abs=0.04)


def test_a_ring_by_hand():
    # Three ranks, 20 GB/s, wire 0.5, flag 1.5, busy 0.25, launch 5: 4 hops and a local copy at 1000 GB/s.
    links = tuple(Link(f"g{a}", f"g{b}", "NVLINK", Fraction(20), Fraction(1, 2)) for a in range(3) for b in range(3) if a != b)
    program = lower_rings(Topology("triangle", tuple(Device(f"g{i}") for i in range(3)), (), links), [range(3)])
    params = Parameters(launch=Launch(5.0), channel_gb_s=1000, memory_gb_s=1e6, protocols=(("simple", Protocol(busy_us=0.25, flag_us=1.5)),))
    expected = 5 + 4 * (0.25 + 60_000 / 20e3 + 2.0) + 0.25 + 60_000 / 1e6
    assert estimate_us(program, 180_000, chunk_bytes=60_000, params=params) == pytest.approx(expected)


def test_few_slots_pace_a_long_wire():
    # One slot: a chunk goes, is taken, and its slot comes back before the next may go.
    link = Link("g0", "g1", "NVLINK", Fraction(20), Fraction(10))
    pair = Topology("pair", (Device("g0"), Device("g1")), (), (link, replace(link, src="g1", dst="g0")))
    program = lower_trees(make_plan(pair, "broadcast", 0), slots=1)
    nbytes, chunk = 1 << 20, 1 << 16
    assert estimate_us(program, nbytes, chunk_bytes=chunk) == pytest.approx(run(program, nbytes, chunk_bytes=chunk).time_us, rel=1e-6)


def test_steps_that_wait_for_each_other_have_no_time():
    topology = load_topology("dgx1-v100").subset([0, 1])
    wait_first = Channel((Step("copy", 0, (slot(1),), (slot(0),), wait=(0, 1), signal=(0, 1)),))
    also = Channel((Step("copy", 0, (slot(0),), (slot(1),), wait=(0, 1), signal=(0, 1)),))
    program = Program("by hand", "broadcast", topology, 1, (1,), (Connection(0, 1, (0, 1)), Connection(1, 0, (1, 0))), ((wait_first,), (also,)), root=0)
    with pytest.raises(SimulationError, match="wait for each other"):
        estimate_us(program, 4096)
