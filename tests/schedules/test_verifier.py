"""The verifier accepts what is right and names what is wrong, for every kind of damage."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from functools import cache

import pytest
from allocations import classes, name_of, spread
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import unrolled
from schedules.mutants import with_step
from schedules.unrolled import critical_trips

import blinkcoll as bc
from blinkcoll.schedules import (
    INPUT,
    OUTPUT,
    Channel,
    Connection,
    Operand,
    Program,
    Step,
    lower_direct,
    lower_rings,
    slot,
)


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
    return bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce").schedule(nbytes=64, protocol="simple")


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


def _input_sent_after_the_result(in_place: bool) -> Program:
    """Rank 0 writes its output first and sends its input after: right only where the two are apart."""
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    connections = (Connection(1, 0, (1, 0)), Connection(0, 1, (0, 1)))
    first = Step("reduce", 0, (INPUT, slot(0)), (OUTPUT,), wait=(0,), signal=(0,))
    then = Step("copy", 0, (INPUT,), (slot(1),), wait=(1,), signal=(1,))
    up = Channel((Step("copy", 0, (INPUT,), (slot(0),), wait=(0,), signal=(0,)),))
    down = Channel((Step("reduce", 0, (slot(1), INPUT), (OUTPUT,), wait=(1,), signal=(1,)),))
    return Program("by hand", "allreduce", topology, 1, (1,), connections, ((Channel((first, then)),), (up, down)), in_place=in_place)


def test_in_place_and_out_of_place_are_two_properties():
    bc.verify(_input_sent_after_the_result(in_place=False))
    with pytest.raises(bc.ScheduleError, match=r"output of rank 1 .*when called in place holds"):
        bc.verify(_input_sent_after_the_result(in_place=True))


@cache
def _allreduce(number: int, protocol: str) -> Program:
    return bc.plan(spread(6)[number], "allreduce").schedule(nbytes=1 << 20, protocol=protocol)



@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damaged_step_of_a_real_program_slips_through(data):
    """Drop, redirect or desynchronise one step of a plan's program: refused, or still right by construction."""
    program = _allreduce(data.draw(st.integers(0, 5)), data.draw(st.sampled_from(["simple", "LL"])))
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


@pytest.mark.parametrize("topology", spread(5), ids=name_of)
@pytest.mark.parametrize("collective", ["allreduce", "broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter", "alltoall"])
def test_the_unrolled_oracle_agrees_on_plans_of_all_eight(topology, collective):
    root = topology.nranks - 1 if collective in ("broadcast", "reduce", "gather", "scatter") else None
    protocol = "LL" if topology.nranks in (4, 5) else "simple"
    program = bc.plan(topology, collective, root=root).schedule(nbytes=1 << 20, max_channels=12 if topology.nranks == 8 else 32, protocol=protocol, slots=2)
    unrolled.verify(program)


@pytest.mark.parametrize("nranks", [1, 2, 3, 5])
@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("collective", ["allreduce", "broadcast", "allgather", "reducescatter"])
def test_the_unrolled_oracle_and_the_proof_say_the_same_of_rings(collective, nranks, slots):
    """Few slots make an all-reduce ring deadlock; the proof finds the same ones as unrolling does."""
    topology = bc.load_topology("dgx1-v100").subset(range(nranks))
    program = lower_rings(topology, [range(nranks)], collective=collective, root=0 if collective == "broadcast" else None, slots=slots)
    assert _verdict(bc.verify, program) == _verdict(unrolled.verify, program)


def _verdict(check, program: Program) -> bool:
    try:
        check(program)
    except bc.ScheduleError:
        return False
    return True


WRONG_CONTRACTS = {
    "a root where there is none": (lambda p: replace(p, root=0), "allgather has no root, got 0"),
    "not a shard a rank": (lambda p: replace(p, nshards=6), "a shard for each of 3 ranks, the program has 6"),
    "another collective": (lambda p: replace(p, collective="alltoall"), "output of rank .* holds input of rank"),
    "gather's outputs": (lambda p: replace(p, collective="gather", root=0), "gather has no output of rank 1"),
    "scatter's inputs": (lambda p: replace(p, collective="scatter", root=0), "output of rank 0, which holds that rank's own shard only"),
}


@pytest.mark.parametrize("damage", WRONG_CONTRACTS)
def test_an_allgather_that_is_called_something_else_is_refused(damage):
    wreck, message = WRONG_CONTRACTS[damage]
    program = bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allgather").schedule(nbytes=64)
    with pytest.raises(bc.ScheduleError, match=message):
        bc.verify(wreck(program))


def test_a_peers_buffer_is_read_only_while_its_rank_runs():
    """Without the last wait, rank 1 could leave, and its caller reuse the input, while rank 0 still reads it."""
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    ready, done = Connection(1, 0, (1, 0), 1), Connection(0, 1, (0, 1), 1)
    read = Step("reduce", 0, (INPUT, Operand("input", rank=1)), (OUTPUT,), wait=(0,), signal=(0,))
    tell = Step("nop", 0, wait=(0,), signal=(0,))
    finish = Step("nop", 0, wait=(1,), signal=(1,))
    right = Program("by hand", "reduce", topology, 1, (1,), (ready, done), ((Channel((read, finish)),), (Channel((tell, finish)),)), root=0)
    bc.verify(right, repeated=True)
    with pytest.raises(bc.ScheduleError, match="rank 0, channel 0, step 0, iteration 0: uses a buffer of rank 1, which does not wait until that is over"):
        bc.verify(replace(right, connections=(ready,), ranks=((Channel((read,)),), (Channel((tell,)),))), repeated=True)
    with pytest.raises(bc.ScheduleError, match="nothing says that this rank has begun"):
        early = replace(read, wait=(), signal=())
        bc.verify(replace(right, connections=(Connection(0, 1, (0, 1), 1),), ranks=((Channel((early, Step("nop", 0, wait=(0,), signal=(0,)))),), (Channel((Step("nop", 0, wait=(0,), signal=(0,)),)),))), repeated=True)


def test_a_channel_of_two_shares_is_refused():
    topology = bc.load_topology("dgx1-v100").subset([0])
    channel = Channel((Step("copy", 0, (INPUT,), (OUTPUT,)), Step("copy", 1, (INPUT,), (OUTPUT,))))
    with pytest.raises(bc.ScheduleError, match="a channel carries one share"):
        bc.verify(Program("by hand", "allreduce", topology, 1, (1, 1), (), ((channel,),)))


@pytest.mark.parametrize(("rank", "changes", "message"), [
    (0, {"postscaled": False}, "expected allreduce's 3 inputs once each, each prescaled, and the result postscaled"),
    (1, {"srcs": (INPUT,)}, "each prescaled"),
    (1, {"postscaled": True}, "each prescaled"),
])  # fmt: skip
def test_scaling_in_part_is_refused(rank, changes, message):
    with pytest.raises(bc.ScheduleError, match=message):
        bc.verify(_with_step(_small(), rank, 0, **changes))


@pytest.mark.parametrize("field", [{"shard": "x"}, {"share": 1 << 40}, {"wait": ("a",)}])
def test_what_is_no_number_is_refused(field):
    with pytest.raises(bc.ScheduleError, match="malformed"):
        bc.verify(_with_step(_small(), 0, 0, **field))


def test_a_peers_scratch_may_not_be_overwritten_by_the_next_call():
    """Rank 0 sends through rank 1's scratch. One call is right; in the next, rank 0 need not wait for rank 1's read."""
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    there = Operand("scratch", rank=1)
    root = Channel((Step("copy", 0, (INPUT,), (OUTPUT, there), wait=(0,), signal=(0,)),))
    other = Channel((Step("copy", 0, (Operand("scratch"),), (OUTPUT,), wait=(0,), signal=(0,)),))
    program = Program("by hand", "broadcast", topology, 1, (1,), (Connection(0, 1, (0, 1), 4),), ((root,), (other,)), root=0)
    bc.verify(program)
    with pytest.raises(bc.ScheduleError, match=r"nothing says that .* of the call before is done with it"):
        bc.verify(program, repeated=True)
    answered = replace(program, connections=(*program.connections, Connection(1, 0, (1, 0), 1)), ranks=(
        (Channel((*root.steps, Step("nop", 0, wait=(1,), signal=(1,)))),),
        (Channel((*other.steps, Step("nop", 0, wait=(1,), signal=(1,)))),),
    ))  # fmt: skip
    bc.verify(answered, repeated=True)


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
    with pytest.raises(bc.ScheduleError, match=r"reads chunk 0 of c\d as a chunk of shard"):
        bc.verify(_two_shards(1, 0))


def test_an_input_read_again_after_its_own_copy_is_right_in_place():
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    root = Channel((Step("copy", 0, (INPUT,), (OUTPUT,)), Step("copy", 0, (INPUT,), (slot(0),), wait=(0,), signal=(0,))))
    other = Channel((Step("copy", 0, (slot(0),), (OUTPUT,), wait=(0,), signal=(0,)),))
    bc.verify(Program("by hand", "broadcast", topology, 1, (1,), (Connection(0, 1, (0, 1)),), ((root,), (other,)), root=0))


def test_one_connection_for_two_shares_is_refused():
    topology = bc.load_topology("dgx1-v100").subset([0, 1])
    send = Channel((Step("copy", 0, (INPUT,), (OUTPUT, slot(0)), wait=(0,), signal=(0,)),))
    receive = Channel((Step("copy", 1, (slot(0),), (OUTPUT,), wait=(0,), signal=(0,)),))
    program = Program("by hand", "broadcast", topology, 1, (1, 1), (Connection(0, 1, (0, 1)),), ((send,), (receive,)), root=0)
    with pytest.raises(bc.ScheduleError, match="c0 carries share 0, this step is of share 1"):
        bc.verify(program)


def _joined(first: Program, second: Program) -> Program:
    """Two programs of one share, the same connections and as many channels, as the two shares of one."""
    n = len(first.connections)
    later = lambda c: None if c is None else c + n  # noqa: E731

    def moved(step: Step, nchannels: int) -> Step:
        srcs, dsts = (tuple(replace(o, connection=later(o.connection)) for o in side) for side in (step.srcs, step.dsts))
        after = tuple(replace(a, channel=a.channel + nchannels) for a in step.after)
        return replace(step, share=1, srcs=srcs, dsts=dsts, wait=tuple(map(later, step.wait)), signal=tuple(map(later, step.signal)), after=after)

    ranks = tuple((*a, *(Channel(tuple(moved(s, len(a)) for s in channel.steps)) for channel in b)) for a, b in zip(first.ranks, second.ranks, strict=True))
    return replace(first, weights=(1, 1), connections=first.connections + second.connections, ranks=ranks)


@pytest.mark.parametrize("lower", [lower_direct, lambda t, c: bc.plan(t, c).schedule(nbytes=1 << 10, protocol="simple", max_channels=3)], ids=["direct", "plan"])
@pytest.mark.parametrize("collective", ["allgather", "alltoall", "reducescatter"])
def test_a_share_that_differs_from_a_proven_one_in_anything_is_proven_anew(lower, collective):
    """Whatever is changed at one step of the second share, the verdict is that of the same change in the first."""
    program = lower(bc.load_topology("dgx1-v100").subset([0, 1, 2]), collective)
    if len(program.weights) > 1:
        program = _only_share(program)
    bc.verify(_joined(program, program))
    verdicts = Counter()
    for s, step in enumerate(program.ranks[0][0].steps):
        for changed in _changes(step, program.nshards):
            mutant = with_step(program, (0, 0, s), **{f.name: getattr(changed, f.name) for f in fields(changed)})
            first, second = _is_right(_joined(mutant, program)), _is_right(_joined(program, mutant))
            assert first == second, (s, changed)
            verdicts[first] += 1
    assert verdicts[False] > 0


def _only_share(program: Program) -> Program:
    """A program's first share as all of it."""
    used = sorted({c for channels in program.ranks for ch in channels for step in ch.steps if step.share == 0 for c in step.wait})
    number = {old: new for new, old in enumerate(used)} | {None: None}
    ranks = []
    for channels in program.ranks:
        places = {old: new for new, old in enumerate(c for c, ch in enumerate(channels) if ch.steps[0].share == 0)}
        ranks.append(tuple(Channel(tuple(_renumbered(step, number, places) for step in channels[c].steps)) for c in places))
    return replace(program, weights=(1,), connections=tuple(program.connections[c] for c in used), ranks=tuple(ranks))


def _renumbered(step: Step, number: dict, places: dict[int, int]) -> Step:
    srcs, dsts = (tuple(replace(o, connection=number[o.connection]) for o in side) for side in (step.srcs, step.dsts))
    after = tuple(replace(a, channel=places[a.channel]) for a in step.after)
    return replace(step, srcs=srcs, dsts=dsts, wait=tuple(map(number.get, step.wait)), signal=tuple(map(number.get, step.signal)), after=after)


def _is_right(program: Program) -> bool:
    try:
        bc.verify(program)
    except bc.ScheduleError:
        return False
    return True


def _changes(step: Step, nshards: int):
    """The step with one thing of it otherwise."""
    yield from (replace(step, shard=shard) for shard in range(nshards) if shard != step.shard)
    yield replace(step, postscaled=not step.postscaled)
    for side in ("srcs", "dsts"):
        operands = getattr(step, side)
        for i, o in enumerate(operands):
            others = [Operand("scratch"), replace(o, prescaled=not o.prescaled), replace(o, rank=1), *(replace(o, shard=shard) for shard in range(nshards) if o.connection is None)]
            yield from (replace(step, **{side: (*operands[:i], other, *operands[i + 1 :])}) for other in others)
