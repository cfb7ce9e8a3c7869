"""Programs for ranks in another order."""

from __future__ import annotations

import pytest
from runtime.oracle import assert_outputs
from schedules import unrolled
from schedules.test_families import complete, exact_sum, inputs_of

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import lower_double_trees, lower_rings
from blinkcoll.schedules.relabel import lower_in_order
from blinkcoll.simulator.baselines.ring import store_directly
from blinkcoll.topology import load_topology


@pytest.mark.parametrize("gpus", [(0, 1, 2, 3), (4, 0, 1), (7, 2, 5, 0, 3)], ids=str)
def test_a_ring_of_renamed_ranks_is_the_ring_in_that_order(gpus):
    """Rings take an order themselves: both ways must make the same program, peers' buffers included."""
    topology = load_topology("dgx1-v100").subset(gpus)
    order = [*range(1, len(gpus), 2), *range(0, len(gpus), 2)]
    named = lower_in_order(topology, order, lambda t: store_directly(lower_rings(t, [range(t.nranks)])))
    direct = store_directly(lower_rings(topology, [order]))
    assert named.connections == direct.connections
    bc.verify(named)
    for mine, theirs in zip(named.ranks, direct.ranks, strict=True):
        for a, b in zip(mine[0].steps, theirs[0].steps, strict=True):
            assert (a.op, a.srcs, a.dsts, a.wait, a.signal) == (b.op, b.srcs, b.dsts, b.wait, b.signal)


def test_the_root_is_renamed():
    program = lower_in_order(complete(4), [2, 0, 3, 1], lambda t: lower_rings(t, [range(4)], collective="broadcast", root=0))
    assert program.root == 2
    bc.verify(program, repeated=True)


@pytest.mark.parametrize("order", [(3, 1, 0, 2, 4), (4, 3, 2, 1, 0)])
def test_renamed_programs_compute_the_same(order):
    program = lower_in_order(complete(5), order, lower_double_trees)
    bc.verify(program, repeated=True)
    unrolled.verify(program)
    inputs = inputs_of(program, 203)
    with ThreadExecutor(program, max_count=203, chunk_bytes=64, timeout_s=30) as executor:
        assert_outputs("allreduce", None, inputs, executor.run(inputs), exact_sum)


def test_what_cannot_be_renamed_is_refused():
    with pytest.raises(ScheduleError, match="once, got"):
        lower_in_order(complete(3), [0, 1, 1], lower_double_trees)
    with pytest.raises(ScheduleError, match="shards belong to ranks"):
        lower_in_order(complete(3), [2, 1, 0], lambda t: lower_rings(t, [range(3)], collective="allgather"))
