"""Programs over switches that copy and add: proven, and refused where a barrier, a head or an order is wrong."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from schedules import unrolled
from schedules.mutants import spots, step_at, with_step

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.schedules import (
    OUTPUT,
    SCRATCH,
    Channel,
    Connection,
    Operand,
    Program,
    Step,
    lower_nvls,
    multicast,
    program_text,
    slot,
)
from blinkcoll.topology import Device, Link, Switch, Topology

COLLECTIVES = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter")
H100 = bc.load_topology("hgx-h100")


def star(ports, *, adds=True, copies=True) -> Topology:
    """A rank a port (GB/s), around one switch."""
    devices = tuple(Device(f"gpu{i}") for i in range(len(ports)))
    links = [Link(a, b, "NVLINK", Fraction(c)) for d, c in zip(devices, ports, strict=True) for a, b in ((d.name, "switch"), ("switch", d.name))]
    return Topology("star", devices, (Switch("switch", "nvswitch", multicast=copies, reduce=adds),), tuple(links))


def made(topology, collective, **options) -> Program:
    root = topology.nranks - 1 if collective in ("broadcast", "reduce") else None
    return lower_nvls(bc.plan(topology, collective, root=root, method="nvls"), **options)


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 8])
def test_every_allocation_is_proven_and_may_follow_itself(n, collective, registered):
    program = made(H100.subset(list(range(n))), collective, registered=registered)
    bc.verify(program, repeated=True)
    assert Program.from_json(program.to_json()) == program
    assert program.nchannels <= 32
    if n <= 3:
        unrolled.verify(made(H100.subset(list(range(n))), collective, registered=registered, max_channels=3))


@pytest.mark.parametrize("registered", [False, True])
def test_heads_of_unequal_rates_get_shards_in_proportion(registered):
    """Ports 30, 30, 30, 15: X = min(15, 105/5) = 15, slacks 15, 15, 15, 0: three heads of 5, the narrow rank is none."""
    program = made(star([30, 30, 30, 15]), "allreduce", registered=registered)
    bc.verify(program, repeated=True)
    heads = {s.shard: r for r, cs in enumerate(program.ranks) for ch in cs for s in ch.steps if any(o.buffer == "multicast" for o in s.srcs)}
    assert heads == {0: 0, 1: 1, 2: 2}
    # Ports 30, 30, 30, 18: X = 18, slacks 12, 12, 12, 0 again; 24, 30, 30, 30: X = 114/5, heads 6/5 and 3 x 36/5: 1 to 6.
    assert made(star([24, 30, 30, 30]), "allreduce").nshards == 19


def test_a_verified_program_for_eight_takes_milliseconds_and_shows_what_is_added_where():
    text = program_text(made(H100.subset([0, 1, 2]), "allreduce", max_channels=3))
    assert "reduce scratch of all ranks ÷ d → output, scratch of all ranks" in text
    assert "copy f · input → scratch" in text


def _spots_with(program, side):
    return spots(program, lambda step: any(o.buffer == "multicast" for o in getattr(step, side)))


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_head_that_does_not_wait_for_everybody_is_refused(collective, registered):
    """The barrier before the switch reads or stores: without any one of its waits somebody's data is not there yet."""
    program = made(star([20] * 3), collective, max_channels=3, registered=registered)
    head = spots(program, lambda step: any(o.buffer == "multicast" for o in (*step.srcs, *step.dsts)))[0]
    step = step_at(program, head)
    arriving = [c for c in step.wait if program.connections[c].dst == head[0]]
    assert len(arriving) == 2
    for c in arriving:
        # The signal still goes back, so that counts agree: only the waiting moves behind the data.
        late = Step("nop", step.share, wait=(c,), signal=(c,))
        steps = list(program.ranks[head[0]][head[1]].steps)
        steps[head[2]] = replace(step, wait=tuple(w for w in step.wait if w != c), signal=tuple(s for s in step.signal if s != c))
        steps.insert(head[2] + 1, late)
        ranks = [list(channels) for channels in program.ranks]
        ranks[head[0]][head[1]] = Channel(tuple(steps))
        mutant = replace(program, ranks=tuple(map(tuple, ranks)))
        with pytest.raises(ScheduleError, match=r"nothing orders it after|before anything is written|nothing says"):
            bc.verify(mutant, repeated=True)


def test_a_rank_that_copies_before_its_head_is_done_is_refused():
    program = made(star([20] * 3), "allreduce", max_channels=3)
    out = spots(program, lambda step: step.srcs == (SCRATCH,))[0]
    steps = program.ranks[out[0]][out[1]].steps
    c = steps[0].wait[0]
    moved = (replace(steps[0], wait=(), signal=()), Step("nop", 0, wait=(c,), signal=(c,)), *steps[1:])
    ranks = [list(channels) for channels in program.ranks]
    ranks[out[0]][out[1]] = Channel(moved)
    with pytest.raises(ScheduleError, match=r"nothing orders it after|before anything is written"):
        bc.verify(replace(program, ranks=tuple(map(tuple, ranks))))


def test_a_store_before_all_loads_is_refused():
    """Rank 1 stores its shard's sum where rank 0 has not read its own yet: another shard's head, one place."""
    program = made(star([20] * 3), "allreduce", max_channels=3)
    first, second = _spots_with(program, "srcs")[:2]
    other = step_at(program, first).shard
    mutant = with_step(program, second, shard=other)
    with pytest.raises(ScheduleError, match="nothing orders it after"):
        bc.verify(mutant)


def test_a_wrong_head_leaves_a_shard_without_a_sum():
    program = made(star([20] * 3), "reducescatter", max_channels=3)
    spot = _spots_with(program, "srcs")[0]
    with pytest.raises(ScheduleError, match="holds that rank's own shard only"):
        bc.verify(with_step(program, spot, shard=(step_at(program, spot).shard + 1) % 3))


def test_a_sum_that_every_rank_has_made_for_itself_is_refused():
    """A switch adds in an order of its own: two sums of it need not agree in their last bits."""
    topology = star([20] * 2)
    program = made(topology, "allreduce", max_channels=1, registered=True)
    own = Step("reduce", 0, (multicast("input"),), (OUTPUT,))
    ranks = []
    for (channel,) in program.ranks:
        before, middle, after = channel.steps
        step = replace(own, wait=middle.wait, signal=middle.signal)
        ranks.append((Channel((before, *(replace(step, shard=s, wait=step.wait if s == 0 else (), signal=step.signal if s == 1 else ()) for s in range(2)), after)),))
    with pytest.raises(ScheduleError, match="summed in another order than on rank 0"):
        bc.verify(replace(program, ranks=tuple(ranks), in_place=False))


@pytest.mark.parametrize(
    ("srcs", "dsts", "op", "message"),
    [
        ((multicast("scratch"), OUTPUT), (OUTPUT,), "reduce", "only source of a reduce"),
        ((multicast("scratch"),), (OUTPUT,), "copy", "only source of a reduce"),
        ((SCRATCH,), (multicast("input"),), "copy", "writes an input"),
        ((Operand("multicast", region="slot"),), (OUTPUT,), "reduce", "malformed operand"),
        ((Operand("multicast"),), (OUTPUT,), "reduce", "malformed operand|only source"),
        ((Operand("multicast", region="scratch", prescaled=True),), (OUTPUT,), "reduce", "malformed operand"),
        ((SCRATCH,), (OUTPUT, multicast("output")), "copy", "writes one place twice"),
        ((SCRATCH,), (multicast("scratch"), multicast("output")), "copy", "at most one destination of a step is of all ranks"),
    ],
)
def test_malformed_operands_are_refused(srcs, dsts, op, message):
    program = made(star([20] * 2), "allreduce", max_channels=3)
    spot = spots(program, lambda step: step.srcs == (SCRATCH,))[0]
    with pytest.raises(ScheduleError, match=message):
        bc.verify(with_step(program, spot, srcs=srcs, dsts=dsts, op=op))


def test_a_multicast_of_what_some_rank_does_not_have_is_refused():
    program = made(star([20] * 3), "reduce", max_channels=3)
    spot = _spots_with(program, "srcs")[0]
    with pytest.raises(ScheduleError, match="reduce has no output of rank 0"):
        bc.verify(with_step(program, spot, dsts=(multicast("output"),)))
    shards = made(star([20] * 3), "allgather", max_channels=3)
    copy = _spots_with(shards, "dsts")[0]
    with pytest.raises(ScheduleError, match=r"own shard only|a reduce in a allgather"):
        bc.verify(with_step(shards, copy, srcs=(multicast("input"),), op="reduce"))


@pytest.mark.parametrize(("options", "message"), [({"adds": False}, "adds the scratch"), ({"copies": False}, "stores to the scratch")])
def test_a_topology_whose_switches_cannot_is_refused(options, message):
    program = made(star([20] * 3), "allreduce", max_channels=3)
    with pytest.raises(ScheduleError, match=message):
        bc.verify(replace(program, topology=star([20] * 3, **options)))


def test_a_step_of_all_ranks_fills_no_lines():
    """Rank 0's store to everybody goes to a slot of rank 1 too: right by counters, and not to be moved as lines."""
    program = made(star([20] * 2), "broadcast", max_channels=3)
    spot = _spots_with(program, "dsts")[0]
    other = 1 - spot[0]
    c = len(program.connections)
    step = step_at(program, spot)
    more = with_step(program, spot, dsts=(*step.dsts, slot(c)), wait=(*step.wait, c), signal=(*step.signal, c))
    take = Channel((Step("copy", 0, (slot(c),), (SCRATCH,), wait=(c,), signal=(c,), shard=step.shard),))
    for protocol in ("simple", "LL"):
        ways = (*program.connections, Connection(spot[0], other, (spot[0], "switch", other), protocol=protocol))
        ranks = tuple((*channels, take) if rank == other else channels for rank, channels in enumerate(more.ranks))
        both = replace(more, connections=ways, ranks=ranks)
        if protocol == "simple":
            with pytest.raises(ScheduleError, match="nothing orders it after"):  # the copy and the switch write one scratch
                bc.verify(both)
        else:
            with pytest.raises(ScheduleError, match=f"c{c} is in lines, which go to or come from single ranks"):
                bc.verify(both)


def test_a_plan_without_a_switch_has_no_such_program():
    with pytest.raises(ScheduleError, match="uses no switch"):
        lower_nvls(bc.plan(H100, "allreduce"))
    with pytest.raises(ScheduleError, match="max_channels is 2"):
        made(H100, "allreduce", max_channels=2)


def test_schedule_lowers_an_nvls_plan_and_proves_it():
    program = bc.plan(H100, "allreduce", method="nvls").schedule(nbytes=64 << 20)
    assert (program.algorithm, program.nshards) == ("nvls", 8)
