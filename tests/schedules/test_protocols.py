"""The pass that changes protocols, what the verifier lets rest on lines, and the choice by size."""

from __future__ import annotations

from dataclasses import replace

import pytest
from allocations import name_of, spread

import blinkcoll as bc
from blinkcoll.cost.chunks import default_chunk_bytes
from blinkcoll.schedules import (
    INPUT,
    OUTPUT,
    SCRATCH,
    After,
    Channel,
    Connection,
    Operand,
    Program,
    Step,
    lower_barrier,
    lower_double_trees,
    lower_halving_doubling,
    lower_one_shot,
    lower_rings,
    lower_two_shot,
    slot,
)  # fmt: skip
from blinkcoll.schedules.protocols import with_protocol
from blinkcoll.simulator import run
from blinkcoll.simulator.protocols import fastest_protocol, protocol_variants

COLLECTIVES = ("broadcast", "reduce", "allreduce", "allgather", "reducescatter", "gather", "scatter", "alltoall")
SIZES = (*(1 << e for e in range(3, 25, 3)), 1 << 22, 1 << 26)


def _plan(topology, collective):
    return bc.plan(topology, collective, root=topology.nranks - 1 if collective in ("broadcast", "reduce", "gather", "scatter") else None)


def _protocols(program):
    return [c.protocol for c in program.connections]


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("topology", spread(5), ids=name_of)
def test_every_lowered_plan_is_proven_in_lines_and_back(topology, collective):
    simple = _plan(topology, collective).schedule(nbytes=1 << 20, protocol="simple")
    lines = with_protocol(simple, "LL")
    assert set(_protocols(lines)) == {"LL"}
    assert lines.hash != simple.hash
    bc.verify(lines, repeated=True)
    assert with_protocol(lines, "simple").hash == simple.hash
    assert bc.schedules.Program.from_json(lines.to_json()).hash == lines.hash


@pytest.mark.parametrize("lower", [lower_halving_doubling, lower_double_trees, lower_one_shot, lower_two_shot, lambda t: lower_rings(t, [range(8)])])
def test_the_classic_families_are_proven_in_lines(lower):
    lines = with_protocol(lower(bc.load_topology("dgx1-v100")), "LL")
    bc.verify(lines, repeated=True)
    assert set(_protocols(lines)) == {"LL"}


def test_connections_that_only_signal_stay_simple():
    assert set(_protocols(with_protocol(lower_barrier(bc.load_topology("dgx1-v100")), "LL"))) == {"simple"}


def test_a_protocol_that_does_not_exist_is_refused():
    with pytest.raises(bc.ScheduleError, match="no protocol is called 'morse'; known: simple, LL, LL128"):
        with_protocol(lower_rings(bc.load_topology("dgx1-v100"), [range(8)]), "morse")


def test_lines_of_128_bytes_go_over_nvlink_from_volta_on_only():
    volta = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    over_both = bc.plan(volta, "broadcast", root=1, method="hybrid").schedule(nbytes=64, protocol="LL128")
    assert {len(c.path) == 2: c.protocol for c in over_both.connections} == {True: "LL128", False: "simple"}
    assert set(_protocols(bc.plan(volta, "broadcast", root=1).schedule(nbytes=64, protocol="LL128"))) == {"LL128"}
    pascal = bc.load_topology("dgx1-p100")
    assert "LL128" not in _protocols(bc.plan(pascal, "allreduce").schedule(nbytes=64, protocol="LL128"))
    switched = bc.load_topology("dgx-a100")
    assert set(_protocols(bc.plan(switched, "allreduce").schedule(nbytes=64, protocol="LL128"))) == {"LL128"}


# -- what lines order --------------------------------------------------------------------------------------------------


def _two() -> bc.Topology:
    return bc.load_topology("dgx1-v100").subset([0, 1])


def _link(src: int, dst: int, protocol: str = "LL") -> Connection:
    return Connection(src, dst, (src, dst), 1, protocol)


def _use(op: str, srcs, dsts, *connections: int, **more) -> Step:
    return Step(op, 0, srcs, dsts, wait=connections, signal=connections, **more)


def _exchange(protocols: tuple[str, str], up: Step | None = None, down: Step | None = None) -> Program:
    """Rank 1 sends its input up c0 in one channel and takes the sum from c1 in another; rank 0 adds and answers."""
    root = Channel((_use("reduce", (INPUT, slot(0)), (OUTPUT, slot(1)), 0, 1),))
    up = up or _use("copy", (INPUT,), (slot(0),), 0)
    down = down or _use("copy", (slot(1),), (OUTPUT,), 1)
    return Program("by hand", "allreduce", _two(), 1, (1,), (_link(1, 0, protocols[0]), _link(0, 1, protocols[1])), ((root,), (Channel((up,)), Channel((down,)))))


@pytest.mark.parametrize("protocols", [("LL", "LL"), ("simple", "simple")], ids=str)
def test_a_result_may_overwrite_the_input_it_was_computed_from(protocols):
    bc.verify(_exchange(protocols), repeated=True)


@pytest.mark.parametrize("protocols", [("LL", "simple"), ("simple", "LL")], ids=str)
def test_a_mixture_whose_weak_accesses_nothing_orders_is_refused_in_place(protocols):
    """One of the two steps at rank 1 is by plain accesses, and no chain of releases and acquires joins them."""
    mixed = _exchange(protocols)
    with pytest.raises(bc.ScheduleError, match=r"nothing orders it after.*called in place"):
        bc.verify(mixed)
    bc.verify(replace(mixed, in_place=False))


def test_a_read_that_only_lines_order_after_a_write_is_refused():
    """Rank 1 puts its input by in scratch before it sends, and copies scratch to its output after the answer."""
    down = _use("reduce", (slot(1), SCRATCH), (OUTPUT,), 1)
    up = _use("copy", (INPUT,), (SCRATCH, slot(0)), 0)
    for protocol in ("LL", "simple"):
        program = _exchange((protocol, protocol), up, down)
        with pytest.raises(bc.ScheduleError, match="nothing orders it after" if protocol == "LL" else "expected allreduce"):
            bc.verify(program)


def test_a_write_over_what_another_value_was_computed_from_is_refused():
    """Rank 1's second reader of its input passes it to nobody: what overwrites the input does not depend on it."""
    program = _exchange(("LL", "LL"))
    other = Channel((_use("copy", (INPUT,), (slot(2),), 2),))
    sink = Channel((_use("copy", (slot(2),), (SCRATCH,), 2),))
    ranks = ((*program.ranks[0], sink), (*program.ranks[1], other))
    more = replace(program, connections=(*program.connections, _link(1, 0)), ranks=ranks)
    with pytest.raises(bc.ScheduleError, match=r"nothing orders it after.*called in place"):
        bc.verify(more)
    bc.verify(replace(more, in_place=False))


def test_a_peers_buffer_is_not_reached_on_the_word_of_lines():
    """Rank 0's step reads rank 1's input where it lies, after data has come from there in lines."""
    up = _use("copy", (INPUT,), (slot(0),), 0)
    hear = Channel((_use("copy", (slot(0),), (SCRATCH,), 0), _use("reduce", (INPUT, Operand("input", rank=1)), (OUTPUT, slot(1)), 1)))
    down = Channel((_use("copy", (slot(1),), (OUTPUT,), 1),))
    for protocol in ("simple", "LL"):
        program = Program("by hand", "allreduce", _two(), 1, (1,), (_link(1, 0, protocol), _link(0, 1, protocol)), ((hear,), (Channel((up,)), down)), in_place=False)
        if protocol == "simple":
            bc.verify(program, repeated=True)
        else:
            with pytest.raises(bc.ScheduleError, match="rank 1, and nothing says that this rank has begun"):
                bc.verify(program, repeated=True)


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (_use("copy", (INPUT,), (SCRATCH,), 0), "no data"),
        (Step("copy", 0, (INPUT,), (slot(0),), wait=(0,)), "no signal"),
        (Step("copy", 0, (INPUT,), (slot(0),), signal=(0,)), "no wait"),
        (Step("nop", 0, wait=(0,), signal=(0,), after=(After(1, 0),)), "a nop"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_use_of_lines_is_one_step(step, name):
    with pytest.raises(bc.ScheduleError, match="c0 is in lines: a step that uses it waits for it, reads or writes its slot once, and signals it"):
        bc.verify(_exchange(("LL", "LL"), up=step))


# -- the choice by size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize(("name", "every"), [("dgx1-v100", 2), ("dgx-a100", 2), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in ("dgx1-v100", "dgx-a100"))])
def test_the_protocol_by_size_is_within_3_percent_of_the_best(name, every, collective):
    topology = bc.load_topology(name).subset(range(6))
    program = _plan(topology, collective).schedule(nbytes=1 << 20, protocol="simple")
    for nbytes in SIZES[COLLECTIVES.index(collective) % every :: every]:
        nbytes -= nbytes % (4 * topology.nranks) if program.equal_shards else 0
        chosen = run(fastest_protocol(program, nbytes), nbytes).time_us
        slow = {"LL"} if nbytes >= 1 << 26 else set()  # to simulate, and to run
        best = min(run(p, nbytes).time_us for p in protocol_variants(program, nbytes) if slow.isdisjoint(_protocols(p)))
        assert chosen <= 1.03 * best, (nbytes, chosen, best)


def test_small_sizes_go_in_lines_and_large_ones_by_counters():
    plan = bc.plan(bc.load_topology("dgx1-v100"), "allreduce")
    small, large = plan.schedule(nbytes=1 << 10), plan.schedule(nbytes=1 << 28)
    assert (set(_protocols(small)), set(_protocols(large))) == ({"LL"}, {"simple"})
    assert plan.schedule(nbytes=1 << 10).hash == small.hash
    assert with_protocol(large, "LL").hash == small.hash, "nbytes picks the protocol and the chunk size, nothing else"


def test_chunks_in_lines_are_within_an_eighth_of_the_best_size():
    for gpus in ((0, 1, 4), range(8)):
        program = bc.plan(bc.load_topology("dgx1-v100").subset(gpus), "allreduce").schedule(nbytes=1 << 10)
        for nbytes in (1 << 12, 1 << 16, 1 << 20):
            chosen = run(program, nbytes, chunk_bytes=default_chunk_bytes(program, nbytes)).time_us
            best = min(run(program, nbytes, chunk_bytes=1 << e).time_us for e in range(9, 18))
            assert chosen <= 1.125 * best, (gpus, nbytes, chosen, best)
