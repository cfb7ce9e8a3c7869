"""Collectives in which every rank has a shard reach their bound within 32 channels, where trees and paths share channels."""

from __future__ import annotations

import pytest
from allocations import classes, name_of

import blinkcoll as bc
from blinkcoll.topology import load_topology

SHARDED = ("allgather", "reducescatter", "gather", "scatter", "alltoall")
NBYTES = 1 << 30
#: The one of 300 that stays below nine tenths: paths of unequal rates that share channels.
LEAST = {("dgx1-v100-023467", "alltoall"): 0.89}


def reached(topology, collective):
    plan = bc.plan(topology, collective, root=topology.nranks - 1 if collective in ("gather", "scatter") else None)
    program = plan.schedule(nbytes=NBYTES)
    assert program.nchannels <= 32
    return bc.simulate(program, NBYTES).algbw / float(plan.bound)


@pytest.mark.parametrize("collective", SHARDED)
@pytest.mark.parametrize("layout", ["dgx1-v100", "dgx1-p100", "hgx-h100", "dgx2"])
def test_whole_machines_reach_nine_tenths_of_the_bound(layout, collective):
    assert reached(load_topology(layout), collective) >= 0.9


@pytest.mark.parametrize("collective", SHARDED)
@pytest.mark.parametrize("topology", classes()[:-1:6], ids=name_of)
def test_allocations_reach_most_of_the_bound(topology, collective):
    assert reached(topology, collective) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("collective", SHARDED)
@pytest.mark.parametrize("topology", classes(), ids=name_of)
def test_every_allocation_reaches_most_of_the_bound(topology, collective):
    assert reached(topology, collective) >= LEAST.get((name_of(topology), collective), 0.9)
