"""Which steps share a channel: all of them are there, within the budget, the quick ones first."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from schedules import unrolled

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.packing import make_plan
from blinkcoll.schedules import lower, lower_forest
from blinkcoll.topology import load_topology

V100 = load_topology("dgx1-v100")


def stores(step) -> int:
    return sum(o.connection is not None for o in step.dsts)


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("collective", ["allgather", "reducescatter", "alltoall", "gather", "scatter"])
def test_programs_of_few_channels_are_right(collective, budget):
    topology = V100.subset([0, 1, 2, 3, 4])
    program = lower(make_plan(topology, collective, root=1 if collective in ("gather", "scatter") else None), max_channels=budget)
    assert program.nchannels <= budget
    bc.verify(program, repeated=True)
    if budget in (1, 3):
        unrolled.verify(program)


@pytest.mark.parametrize("budget", [2, 3, 5, 32])
@pytest.mark.parametrize("collective", ["broadcast", "reduce", "allreduce"])
def test_forests_of_few_channels_are_right(collective, budget):
    plan = make_plan(V100.subset([0, 1, 2, 3, 4]), collective, root=None if collective == "allreduce" else 3)
    program = lower_forest(plan, max_channels=budget)
    assert program.nchannels <= budget
    bc.verify(program, repeated=True)
    unrolled.verify(program)
    sent = Counter((c.src, c.dst) for c in program.connections)
    parts = program.nshards * len(program.weights)
    carried: dict[tuple[int, int], Fraction] = {}
    for tree in plan.trees:
        for path in (*(tree.up or ()), *(tree.down or ())):
            carried[path[0], path[-1]] = carried.get((path[0], path[-1]), Fraction(0)) + tree.weight
    assert {pair: Fraction(n, parts) for pair, n in sent.items()} == carried, "each link carries its part of the data"


def test_steps_that_store_nothing_share_channels_before_others_do():
    """An all-gather of 48 parts on eight V100s, of which a rank is an inner one in about half."""
    program = lower(make_plan(V100, "allgather"), max_channels=32)
    shared = 0
    for channels in program.ranks:
        for share in range(len(program.weights)):
            mine = [channel.steps for channel in channels if channel.steps[0].share == share]
            quick = [steps for steps in mine if not any(map(stores, steps))]
            shared += any(len(steps) > 1 for steps in quick)
            assert len(quick) <= 1 or all(len(steps) == 1 for steps in mine if any(map(stores, steps)))
    assert shared > 8


def test_ranks_behind_a_switch_begin_with_different_ones():
    """Each rank's channels begin with steps for other roots, so that no root gets from all at once."""
    program = lower(make_plan(load_topology("gb200-nvl72"), "reducescatter"), max_channels=32)
    first = Counter(channel.steps[0].shard for channels in program.ranks for channel in channels)
    assert max(first.values()) <= 2 * min(first.values()) and len(first) == 72


def test_more_shares_than_channels_are_refused():
    with pytest.raises(ScheduleError, match="max_channels=1: 2 shares need a channel each"):
        lower_forest(make_plan(V100.subset([0, 1, 4]), "allreduce"), max_channels=1)


def test_what_arrives_waits_until_what_it_overwrites_has_left():
    """An all-to-all in place: in another channel than the departure's, an arrival comes after it."""
    program = lower(make_plan(V100.subset([0, 1, 2, 3]), "alltoall"), max_channels=32)
    for channels in program.ranks:
        departs = {(s.share, s.shard): c for c, ch in enumerate(channels) for s in ch.steps if any(o.buffer == "input" for o in s.srcs)}
        for c, channel in enumerate(channels):
            for step in channel.steps:
                arrives = any(o.buffer == "output" for o in step.dsts) and step.srcs[0].connection is not None
                elsewhere = arrives and departs[step.share, step.shard] != c
                assert [a.channel for a in step.after] == ([departs[step.share, step.shard]] if elsewhere else [])
