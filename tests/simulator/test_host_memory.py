"""What the simulator makes of slots in host memory, against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

import blinkcoll as bc
from blinkcoll.cost.estimate import estimate_us
from blinkcoll.schedules import INPUT, OUTPUT, Channel, Connection, Program, Step, slot
from blinkcoll.simulator import FLUID, Launch, Parameters, Protocol, run

PATH = (0, "plx0", "cpu0", "plx0", 1)
TOPOLOGY = bc.load_topology("dgx1-v100").subset([0, 1])
#: 12 GB/s and 0.5 us a PCIe link.
RATE, WIRE_US = 12e3, 0.5


def send(transport="host", path=PATH, slots=4):
    """Rank 0's input to rank 1."""
    first = Step("copy", 0, (INPUT,), (OUTPUT, slot(0)), wait=(0,), signal=(0,))
    second = Step("copy", 0, (slot(0),), (OUTPUT,), wait=(0,), signal=(0,))
    connection = Connection(0, 1, path, slots, transport=transport)
    return Program("by hand", "broadcast", TOPOLOGY, 1, (1,), (connection,), ((Channel((first,)),), (Channel((second,)),)), root=0)


def params(busy_us=0.0, flag_us=0.0):
    return Parameters("by hand", Launch(0.0), 1e6, 1e9, (("simple", Protocol(busy_us=busy_us, flag_us=flag_us)),))


def test_one_chunk_goes_up_and_then_down():
    """Stores up, 12 GB/s; the flag is seen after two wires up and four of the read that sees it; the reader's first load
    takes a round trip of four wires; then 12 GB/s down."""
    nbytes = 120_000
    bc.verify(send())
    result = run(send(), nbytes, chunk_bytes=nbytes, params=params(busy_us=0.5, flag_us=2.3))
    once = nbytes / RATE
    assert result.time_us == pytest.approx(0.5 + once + (2 * WIRE_US + 2 * 2 * WIRE_US + 2.3) + (0.5 + 2 * 2 * WIRE_US) + once)


def test_both_parts_of_the_way_carry_every_byte():
    nbytes = 1 << 20
    result = run(send(), nbytes, chunk_bytes=1 << 16, params=params())
    assert result.link_bytes == {(0, "plx0"): nbytes, ("plx0", "cpu0"): nbytes, ("cpu0", "plx0"): nbytes, ("plx0", 1): nbytes}


def test_many_chunks_use_both_parts_at_once():
    nbytes = 64 << 20
    chunk_bytes = 1 << 18
    result = run(send(), nbytes, chunk_bytes=chunk_bytes, params=params())
    period = chunk_bytes / RATE + 2 * 2 * WIRE_US  # the reader's round trip and loads; the next chunk comes up meanwhile
    assert result.time_us == pytest.approx(nbytes / chunk_bytes * period, rel=0.01)


def test_the_uplink_of_a_pair_that_exchanges_is_shared_by_stores_and_loads_of_both():
    """Up: both GPUs' stores; down: both GPUs' loads: half of 12 GB/s each way for each."""
    program = bc.plan(TOPOLOGY, "allreduce", method="hybrid").schedule(nbytes=1 << 28)
    staged = [c for c in program.connections if c.transport == "host"]
    result = bc.simulate(program, 1 << 28)
    assert staged and result.link_bytes["plx0", "cpu0"] == pytest.approx(result.link_bytes["cpu0", "plx0"])
    assert result.link_bytes["plx0", "cpu0"] == pytest.approx(result.link_bytes[0, "plx0"] + result.link_bytes[1, "plx0"])
    assert bc.plan(TOPOLOGY, "allreduce", method="hybrid").rate == 20 + 6


@pytest.mark.parametrize("chunk_bytes", [1 << 14, 1 << 17, 1 << 20])
def test_the_closed_form_is_near_the_simulation(chunk_bytes):
    nbytes = 8 << 20
    simulated = run(send(), nbytes, chunk_bytes=chunk_bytes).time_us
    assert estimate_us(send(), nbytes, chunk_bytes=chunk_bytes) == pytest.approx(simulated, rel=0.25)


def test_hybrids_reach_their_rate_where_nothing_but_links_limits():
    for name, gpus in (("dgx1-v100", [0, 1, 4]), ("a6000-nvbridge", [0, 1]), ("ac922", [0, 1])):
        topology = bc.load_topology(name).subset(gpus)
        topology = replace(topology, links=tuple(replace(link, latency_us=Fraction(0)) for link in topology.links))
        plan = bc.plan(topology, "allreduce", method="hybrid")
        program = plan.schedule(nbytes=1 << 30, max_channels=64)
        algbw = run(program, 1 << 30, chunk_bytes=1 << 16, params=replace(FLUID)).algbw
        assert algbw == pytest.approx(float(plan.rate), rel=0.03)
        assert algbw <= float(plan.rate) * 1.0001


def test_relays_take_part_like_other_devices():
    topology = bc.load_topology("dgx1-v100").subset([0, 1], relays=[2, 3])
    plan = bc.plan(topology, "allreduce")
    program = plan.schedule(nbytes=1 << 28)
    result = run(program, 1 << 28, params=FLUID, chunk_bytes=1 << 16, trace=True)
    assert result.nranks == 2 and result.algbw == pytest.approx(80, rel=0.02)
    assert result.busbw == pytest.approx(result.algbw), "the factor is that of two ranks"
    assert {record.rank for record in result.trace} == {0, 1, 2, 3}
    one_process = run(program, 64, params=replace(FLUID, launch=Launch(0.0, per_rank_us=1.0)))
    assert one_process.time_us - run(program, 64, params=FLUID).time_us == pytest.approx(3.0), "four kernels are launched"
