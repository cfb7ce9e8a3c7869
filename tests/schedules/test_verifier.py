"""The verifier accepts what is right and names what is wrong, for every kind of damage."""

from __future__ import annotations

from dataclasses import replace

import pytest
from allocations import classes, name_of, spread
from hypothesis import given, settings
from hypothesis import strategies as st

import blinkcoll as bc
from blinkcoll.schedules import INPUT, OUTPUT, Channel, Connection, Operand, Program, Step, lower_rings, slot
from blinkcoll.schedules.verifier import critical_trips


@pytest.mark.parametrize("topology", classes(), ids=name_of)
def test_every_lowered_plan_is_accepted(topology):
    """`schedule` verifies; both collectives, one root each that is not rank 0."""
    bc.plan(topology, "allreduce").schedule(nbytes=1 << 20)
    bc.plan(topology, "broadcast", root=topology.nranks - 1).schedule(nbytes=1 << 20)
    bc.plan(topology, "reduce", root=1).schedule(nbytes=1 << 20)


def test_the_unrolled_counts_cover_the_corners():
    program = lower_rings(bc.load_topology("dgx1-v100"), [range(8), range(7, -1, -1)], slots=3)
    trips = critical_trips(program)
    assert {(n, n) for n in (0, 1, 2, 3, 4)} <= set(trips)
    assert max(max(t) for t in trips) >= 8 + 3 + 2
    assert any(a != b for a, b in trips)


def _small() -> Program:
    return bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce").schedule(nbytes=64)


def _with_step(program: Program, rank: int, channel: int, **changes) -> Program:
    ranks = [list(channels) for channels in program.ranks]
    step = replace(ranks[rank][channel].steps[0], **changes)
    ranks[rank][channel] = Channel((step, *ranks[rank][channel].steps[1:]))
    return replace(program, ranks=tuple(tuple(channels) for channels in ranks))


def _without_channel(program: Program, rank: int, channel: int) -> Program:
    ranks = [list(channels) for channels in program.ranks]
    del ranks[rank][channel]
    return replace(program, ranks=tuple(tuple(channels) for channels in ranks))


# In the program of {0, 1, 4}: rank 0 reduces slots c0, c1 to its output and c2, c3; ranks 1, 2 send (ch 0) and receive (ch 1).
DAMAGE = {
    "a channel is missing": (lambda p: _without_channel(p, 1, 1), "c2"),
    "no wait for arrival": (lambda p: _with_step(p, 1, 1, wait=()), "rank 1, channel 1, step 0.*without having waited"),
    "no wait for credit": (lambda p: _with_step(p, 1, 0, wait=()), "rank 1, channel 0, step 0.*without having waited"),
    "no signal to the parent": (lambda p: _with_step(p, 1, 0, signal=()), "waits for c0 again before signalling|ends without signalling"),
    "no credit given back": (lambda p: _with_step(p, 2, 1, signal=()), "waits for c3 again before signalling|ends without signalling"),
    "own input left out": (lambda p: _with_step(p, 0, 0, srcs=(slot(0), slot(1))), "output of rank 0"),
    "a child's sum left out": (lambda p: _with_step(p, 0, 0, srcs=(INPUT, slot(0))), "output of rank 0"),
    "a child's sum added twice": (lambda p: _with_step(p, 0, 0, srcs=(INPUT, slot(0), slot(0), slot(1))), "output of rank 0.*2 x"),
    "output not written": (lambda p: _with_step(p, 1, 1, dsts=(Operand("scratch"),)), "output of rank 1.*never written"),
    "a child not served": (lambda p: _with_step(p, 0, 0, dsts=(OUTPUT, slot(2))), "reads chunk 0 of c3 before anything is written"),
    "writes a slot it reads": (lambda p: _with_step(p, 1, 1, dsts=(OUTPUT, slot(2))), "writes a slot of c2, which rank 1 reads"),
    "reads a slot it writes": (lambda p: _with_step(p, 1, 0, srcs=(slot(0),)), "reads a slot of c0, which rank 1 writes"),
    "someone else's connection": (lambda p: _with_step(p, 1, 1, wait=(3,), signal=(3,), srcs=(slot(3),)), "c3 does not end at rank 1"),
    "writes the input": (lambda p: _with_step(p, 1, 1, dsts=(INPUT,)), "writes an input"),
    "reads the output before it is there": (lambda p: _with_step(p, 1, 0, srcs=(OUTPUT,)), "reads output of rank 1"),
    "a peer's output too early": (lambda p: _with_step(p, 1, 0, srcs=(Operand("output", rank=0),)), "reads output of rank 0"),
    "another share": (lambda p: _with_step(p, 1, 0, share=7), "no shard 0, share 7"),
    "two sources for a copy": (lambda p: _with_step(p, 1, 0, srcs=(INPUT, OUTPUT)), "a copy of 2 sources"),
    "a path where no link is": (lambda p: replace(p, connections=(Connection(1, 0, (1, 2, 0)), *p.connections[1:])), "does not lead through switches"),
    "a link that is not there": (lambda p: replace(p, connections=(*p.connections[:3], Connection(1, 2, (1, 2)))), "1→2, where there is no link"),
    "too many slots": (lambda p: replace(p, connections=(replace(p.connections[0], slots=1 << 40), *p.connections[1:])), "needs 1 to 32"),
    "an unknown protocol": (lambda p: replace(p, connections=(replace(p.connections[0], protocol="morse"), *p.connections[1:])), "unknown protocol 'morse'"),
    "an unknown transport": (lambda p: replace(p, connections=(replace(p.connections[0], transport="mail"), *p.connections[1:])), "unknown protocol 'simple' or transport 'mail'"),
    "a chunk size below 1": (lambda p: p.with_chunk_bytes(0), "chunk_bytes is 0"),
    "weights that are too large": (lambda p: replace(p, weights=(1 << 31,)), "do not cut a buffer"),
    "a root where none is": (lambda p: replace(p, root=1), "allreduce has no root"),
    "no slots": (lambda p: replace(p, connections=(replace(p.connections[0], slots=0), *p.connections[1:])), "0 slots"),
    "a rank too few": (lambda p: replace(p, ranks=p.ranks[:2]), "2 ranks, its topology 3"),
    "an unknown collective": (lambda p: replace(p, collective="gossip"), "does not know what gossip promises"),
    "a root that is not there": (lambda p: replace(p, collective="broadcast", root=5), "root among ranks 0..2, got 5"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage):
    wreck, message = DAMAGE[damage]
    with pytest.raises(bc.ScheduleError, match=message):
        bc.verify(wreck(_small()))


def test_a_ring_with_one_slot_deadlocks_and_is_refused():
    """Every rank needs its successor to take a chunk before it can take one itself."""
    with pytest.raises(bc.ScheduleError, match=r"deadlock: rank \d, channel 0.*waits for rank"):
        bc.verify(lower_rings(bc.load_topology("dgx1-v100").subset([0, 1, 2]), [[0, 1, 2]], slots=1))


def test_a_race_between_channels_of_a_rank_is_named():
    """One channel writes the output while another reads it, and nothing orders the two."""
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    write = Channel((Step("copy", 0, (INPUT,), (OUTPUT,)),))
    read = Channel((Step("copy", 0, (OUTPUT,), (slot(0),), wait=(0,), signal=(0,)),))
    receive = Channel((Step("copy", 0, (slot(0),), (OUTPUT,), wait=(0,), signal=(0,)),))
    program = Program("by hand", "broadcast", topology, 1, (1,), (Connection(0, 1, (0, 1)),), ((write, read), (receive,)), root=0)
    with pytest.raises(bc.ScheduleError, match=r"nothing orders it|before anything is written"):
        bc.verify(program)


def test_sums_in_another_order_are_refused():
    """Both ranks add up both inputs, each its own first: equal as numbers, unequal in their last bits."""
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    connections = (Connection(0, 1, (0, 1)), Connection(1, 0, (1, 0)))

    def channels(out: int, arrives: int) -> tuple[Channel, ...]:
        send = Step("copy", 0, (INPUT,), (slot(out),), wait=(out,), signal=(out,))
        add = Step("reduce", 0, (INPUT, slot(arrives)), (OUTPUT,), wait=(arrives,), signal=(arrives,))
        return (Channel((send, add)),)

    program = Program("by hand", "allreduce", topology, 1, (1,), connections, (channels(0, 1), channels(1, 0)))
    with pytest.raises(bc.ScheduleError, match="summed in another order"):
        bc.verify(program)


def test_overwriting_an_input_that_is_still_to_be_sent_is_refused():
    """Right with input and output apart, wrong in place: the output is written before the input has been read."""
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    connections = (Connection(1, 0, (1, 0)), Connection(0, 1, (0, 1)), Connection(0, 1, (0, 1)))
    root = Channel((Step("reduce", 0, (INPUT, slot(0)), (OUTPUT, slot(1)), wait=(0, 1), signal=(0, 1)), Step("copy", 0, (INPUT,), (slot(2),), wait=(2,), signal=(2,))))
    up = Channel((Step("copy", 0, (INPUT,), (slot(0),), wait=(0,), signal=(0,)),))
    down = Channel((Step("copy", 0, (slot(1),), (OUTPUT,), wait=(1,), signal=(1,)), Step("copy", 0, (slot(2),), (Operand("scratch"),), wait=(2,), signal=(2,))))
    program = Program("by hand", "allreduce", topology, 1, (1,), connections, ((root,), (up, down)))
    with pytest.raises(bc.ScheduleError, match="in place"):
        bc.verify(program)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damaged_step_of_a_real_program_slips_through(data):
    """Drop, redirect or desynchronise one step of a plan's program: refused, or still right by construction."""
    topology = data.draw(st.sampled_from(spread(6)))
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20)
    rank = data.draw(st.integers(0, program.nranks - 1))
    channel = data.draw(st.integers(0, len(program.ranks[rank]) - 1))
    step = program.ranks[rank][channel].steps[0]
    kind = data.draw(st.sampled_from(["source", "destination", "wait", "signal", "operation", "drop"]))
    if kind == "source":
        i = data.draw(st.integers(0, len(step.srcs) - 1))
        changes = {"srcs": step.srcs[:i] + step.srcs[i + 1 :]} if len(step.srcs) > 2 else {"srcs": (Operand("scratch"),), "op": "copy"}
    elif kind == "destination":
        i = data.draw(st.integers(0, len(step.dsts) - 1))
        changes = {"dsts": (*step.dsts[:i], Operand("scratch"), *step.dsts[i + 1 :])}
    elif kind == "wait":
        i = data.draw(st.integers(0, len(step.wait) - 1))
        changes = {"wait": step.wait[:i] + step.wait[i + 1 :]}
    elif kind == "signal":
        i = data.draw(st.integers(0, len(step.signal) - 1))
        changes = {"signal": step.signal[:i] + step.signal[i + 1 :]}
    elif kind == "operation":
        changes = {"op": "copy" if step.op == "reduce" else "reduce"}
    else:
        with pytest.raises(bc.ScheduleError):
            bc.verify(_without_channel(program, rank, channel))
        return
    with pytest.raises(bc.ScheduleError):
        bc.verify(_with_step(program, rank, channel, **changes))


def _two_shards(first: int, second: int) -> Program:
    """Broadcast 0→1→2 of two shards; rank 1 passes the slots on labelled as these shards."""
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 2])
    connections = tuple(Connection(a, a + 1, (a, a + 1), 2) for a in (0, 1, 0, 1))
    root = [Step("copy", 0, (INPUT,), (OUTPUT, slot(c)), wait=(c,), signal=(c,), shard=shard) for shard, c in ((0, 0), (1, 2))]
    middle = []
    for shard, label, c in ((0, first, 0), (1, second, 2)):
        middle.append(Step("copy", 0, (slot(c),), (OUTPUT,), wait=(c,), shard=shard))
        middle.append(Step("copy", 0, (slot(c),), (slot(c + 1),), wait=(c + 1,), signal=(c, c + 1), shard=label))
    last = [Step("copy", 0, (slot(c),), (OUTPUT,), wait=(c,), signal=(c,), shard=shard) for shard, c in ((0, 1), (1, 3))]
    ranks = tuple((Channel(tuple(steps)),) for steps in (root, middle, last))
    return Program("by hand", "broadcast", topology, 2, (1,), connections, ranks, root=0)


def test_a_slot_passed_on_as_another_shard_is_refused():
    """The shards may differ in length, so the label decides how much is moved."""
    bc.verify(_two_shards(0, 1))
    with pytest.raises(bc.ScheduleError, match=r"takes chunk 0 of c\d for"):
        bc.verify(_two_shards(1, 0))


def test_an_input_read_again_after_its_own_copy_is_right_in_place():
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    root = Channel((Step("copy", 0, (INPUT,), (OUTPUT,)), Step("copy", 0, (INPUT,), (slot(0),), wait=(0,), signal=(0,))))
    other = Channel((Step("copy", 0, (slot(0),), (OUTPUT,), wait=(0,), signal=(0,)),))
    bc.verify(Program("by hand", "broadcast", topology, 1, (1,), (Connection(0, 1, (0, 1)),), ((root,), (other,)), root=0))


def test_one_connection_for_two_shares_is_refused():
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    send = Channel(tuple(Step("copy", s, (INPUT,), (OUTPUT, slot(0)), wait=(0,), signal=(0,)) for s in (0, 1)))
    receive = Channel(tuple(Step("copy", s, (slot(0),), (OUTPUT,), wait=(0,), signal=(0,)) for s in (0, 1)))
    program = Program("by hand", "broadcast", topology, 1, (1, 1), (Connection(0, 1, (0, 1)),), ((send,), (receive,)), root=0)
    with pytest.raises(bc.ScheduleError, match="c0 carries share 0, this step is of share 1"):
        bc.verify(program)
