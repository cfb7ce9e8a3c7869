"""Chains, stars and rings whose times can be written down, to 0.1 %."""

from __future__ import annotations

from fractions import Fraction

import pytest

from blinkcoll.errors import SimulationError
from blinkcoll.packing.plan import Plan, Tree
from blinkcoll.schedules import INPUT, OUTPUT, After, Channel, Connection, Program, Step, lower_rings, lower_trees, slot
from blinkcoll.simulator import Launch, Parameters, Protocol, run
from blinkcoll.topology import Device, Link, Switch, Topology

RATE = 20  # GB/s
WIRE = Fraction(7, 10)  # µs
BUSY, FLAG, LAUNCH = 0.5, 2.25, 8.0
PARAMS = Parameters(launch=Launch(LAUNCH), channel_gb_s=1000, memory_gb_s=1e6, protocols=(("simple", Protocol(busy_us=BUSY, flag_us=FLAG)),))
ALPHA = float(WIRE) + FLAG


def topology_of(n: int, pairs: set[tuple[int, int]]) -> Topology:
    links = tuple(Link(f"g{a}", f"g{b}", "NVLINK", Fraction(RATE), WIRE) for i, j in sorted(pairs) for a, b in ((i, j), (j, i)))
    return Topology("by hand", tuple(Device(f"g{i}") for i in range(n)), (), links)


def line(n: int) -> Topology:
    return topology_of(n, {(i, i + 1) for i in range(n - 1)})


def tree_program(topology: Topology, collective: str, down: tuple[tuple[int, ...], ...]) -> Program:
    up = tuple(path[::-1] for path in down)
    rate = Fraction(RATE)
    tree = Tree(0, rate, Fraction(1), up if collective != "broadcast" else None, down if collective != "reduce" else None)
    plan = Plan(topology, collective, "by hand", rate, rate, rate, None, ("NVLINK",), None if collective == "allreduce" else 0, (tree,))
    return lower_trees(plan, channel_gb_s=Fraction(1000), max_channels=2 if collective == "allreduce" else 1)  # one a tree and half


@pytest.mark.parametrize("n", [2, 3, 5, 8])
@pytest.mark.parametrize("nchunks", [1, 2, 16])
def test_chain_broadcast_is_a_pipeline(n, nchunks):
    chunk = 1 << 18
    program = tree_program(line(n), "broadcast", tuple((i, i + 1) for i in range(n - 1)))
    step = chunk / (RATE * 1e3) + BUSY
    last = BUSY + chunk / 1e6  # the last rank only copies, at the channel's own rate
    expected = LAUNCH + (n - 1) * (step + ALPHA) + (nchunks - 1) * step + last
    assert run(program, nchunks * chunk, chunk_bytes=chunk, params=PARAMS).time_us == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("nleaves", [1, 2, 4])
def test_star_allreduce_meets_at_its_root(nleaves):
    chunk, nchunks = 1 << 18, 8
    topology = topology_of(nleaves + 1, {(0, i) for i in range(1, nleaves + 1)})
    program = tree_program(topology, "allreduce", tuple((0, i) for i in range(1, nleaves + 1)))
    step = chunk / (RATE * 1e3) + BUSY
    expected = LAUNCH + 2 * (step + ALPHA) + (nchunks - 1) * step + BUSY + chunk / 1e6
    assert run(program, nchunks * chunk, chunk_bytes=chunk, params=PARAMS).time_us == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
@pytest.mark.parametrize("niterations", [1, 3])
def test_ring_allreduce_pays_latency_at_every_hop(n, niterations):
    chunk = 1 << 18
    program = lower_rings(topology_of(n, {tuple(sorted((i, (i + 1) % n))) for i in range(n)}), [range(n)])
    step = chunk / (RATE * 1e3) + BUSY
    # An iteration: 2(n - 1) hops, the last of which is only copied by its reader; the next iteration's first send
    # waits for that copy, which its rank does last.
    copy = BUSY + chunk / 1e6
    iteration = (2 * n - 2) * (step + ALPHA) + copy
    expected = LAUNCH + niterations * iteration
    assert run(program, n * niterations * chunk, chunk_bytes=chunk, params=PARAMS).time_us == pytest.approx(expected, rel=1e-3)


def test_a_slow_link_in_the_middle_sets_the_pace_and_credits_hold_the_writer_back():
    # 0 -> 1 is fast, 1 -> 2 ten times slower; with s slots rank 0 is at most s chunks ahead of rank 1.
    fast, slow = (Link("g0", "g1", "NVLINK", Fraction(100)), Link("g1", "g2", "NVLINK", Fraction(10)))
    topology = Topology("neck", tuple(Device(f"g{i}") for i in range(3)), (), (fast, slow))
    program = tree_program(topology, "broadcast", ((0, 1), (1, 2)))
    chunk, nchunks = 1 << 18, 32
    result = run(program, nchunks * chunk, chunk_bytes=chunk, params=PARAMS, trace=True)
    sends = [r for r in result.trace if r.rank == 0]
    relays = [r for r in result.trace if r.rank == 1]
    for i in range(4, nchunks):
        assert sends[i].start_us >= relays[i - 4].end_us
    assert {r.cause for r in sends[6:]} == {"credit"}
    slow_step = chunk / 1e4 + BUSY
    assert relays[-1].end_us - relays[0].end_us == pytest.approx((nchunks - 1) * slow_step, rel=1e-3)


def test_two_flows_share_a_link_and_one_gets_it_all_when_the_other_ends():
    # Two pairs of ranks send over one switch link of 20 GB/s: 1 MB and 3 MB.
    ends = tuple(Device(f"g{i}") for i in range(4))
    ups = tuple(Link(f"g{i}", "s0", "PCIE", Fraction(100)) for i in (0, 1))
    downs = tuple(Link("s1", f"g{i}", "PCIE", Fraction(100)) for i in (2, 3))
    topology = Topology("shared", ends, (Switch("s0", "pcie"), Switch("s1", "pcie")), (*ups, Link("s0", "s1", "PCIE", Fraction(20)), *downs))

    def send(c: int, share: int) -> Channel:
        return Channel((Step("copy", share, (INPUT,), (slot(c),), wait=(c,), signal=(c,)),))

    def receive(c: int, share: int) -> Channel:
        return Channel((Step("copy", share, (slot(c),), (OUTPUT,), wait=(c,), signal=(c,)),))

    program = Program(
        "by hand", "alltoall", topology, 1, (1, 3), (Connection(0, 2, (0, "s0", "s1", 2)), Connection(1, 3, (1, "s0", "s1", 3))),
        ((send(0, 0),), (send(1, 1),), (receive(0, 0),), (receive(1, 1),)),
    )  # fmt: skip
    params = Parameters(launch=Launch(0), channel_gb_s=1e6, memory_gb_s=1e9, protocols=(("simple", Protocol()),))
    result = run(program, 4_000_000, chunk_bytes=4_000_000, params=params, trace=True)
    ends_us = {r.rank: r.end_us for r in result.trace}
    assert ends_us[0] == pytest.approx(100, rel=1e-3)  # 1 MB at 10 GB/s
    assert ends_us[1] == pytest.approx(200, rel=1e-3)  # 1 MB at 10 and 2 MB at 20 GB/s
    assert result.link_bytes["s0", "s1"] == pytest.approx(4_000_000)


def test_after_orders_two_channels_of_a_rank():
    topology = line(1)
    first = Channel((Step("copy", 0, (INPUT,), (OUTPUT,)),))
    second = Channel((Step("copy", 0, (INPUT,), (OUTPUT,), after=(After(0, 0),)),))
    program = Program("by hand", "broadcast", topology, 1, (1,), (), ((first, second),), root=0)
    params = Parameters(launch=Launch(0), channel_gb_s=1, memory_gb_s=1e6, protocols=(("simple", Protocol()),))
    result = run(program, 3000, chunk_bytes=1008, params=params, trace=True)
    done = {(r.channel, r.iteration): r.end_us for r in result.trace}
    started = {(r.channel, r.iteration): r.start_us for r in result.trace}
    for i in range(3):
        assert started[1, i] >= done[0, i]
    assert result.time_us == pytest.approx(1.008 + 3.0, rel=1e-6)


def test_ll_moves_half_a_payload_per_byte_on_the_wire():
    topology = line(2)
    program = Program(
        "by hand", "broadcast", topology, 1, (1,), (Connection(0, 1, (0, 1), protocol="LL"),),
        ((Channel((Step("copy", 0, (INPUT,), (slot(0),), wait=(0,), signal=(0,)),)),),
         (Channel((Step("copy", 0, (slot(0),), (OUTPUT,), wait=(0,), signal=(0,)),)),)), root=0,
    )  # fmt: skip
    params = Parameters(launch=Launch(0), channel_gb_s=1e6, memory_gb_s=1e9, protocols=(("simple", Protocol()), ("LL", Protocol(efficiency=0.5))))
    result = run(program, 1_000_000, chunk_bytes=1_000_000, params=params)
    assert result.time_us == pytest.approx(100 + 0.7, rel=1e-3)
    assert result.link_bytes[0, 1] == pytest.approx(2_000_000)


def test_a_deadlock_names_who_waits_for_what():
    topology = line(2)
    wait_first = Channel((Step("copy", 0, (slot(1),), (slot(0),), wait=(0, 1), signal=(0, 1)),))
    also = Channel((Step("copy", 0, (slot(0),), (slot(1),), wait=(0, 1), signal=(0, 1)),))
    program = Program(
        "by hand", "broadcast", topology, 1, (1,), (Connection(0, 1, (0, 1)), Connection(1, 0, (1, 0))), ((wait_first,), (also,)), root=0
    )
    with pytest.raises(SimulationError, match="rank 0 channel 0 step 0 iteration 0 waits for a chunk on c1"):
        run(program, 4096)


@pytest.mark.parametrize(("kwargs", "match"), [({"nbytes": 7}, "whole number"), ({"nbytes": 1 << 43}, "2\\^40"), ({"nbytes": 8, "elem_size": 0}, "whole number"), ({"nbytes": 8, "rates": "best"}, "best"), ({"nbytes": 8, "chunk_bytes": 0}, "chunk_bytes")])
def test_bad_arguments_are_refused(kwargs, match):
    with pytest.raises(SimulationError, match=match):
        run(lower_rings(line(2), [(0, 1)]), **kwargs)
