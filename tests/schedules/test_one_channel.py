"""Channels joined into one: the same results, for every collective that has several, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from runtime.oracle import assert_outputs, make_inputs

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import in_one_channel, lower, lower_two_shot, verify
from blinkcoll.topology import host_topology


@pytest.mark.parametrize("nranks", [2, 3, 5, 8, 16])
@pytest.mark.parametrize("collective", ["allgather", "reducescatter", "gather", "scatter", "alltoall"])
def test_joined_channels_do_the_same(collective, nranks):
    topology, root = host_topology(nranks, None), nranks - 1 if collective in ("gather", "scatter") else None
    apart = lower(bc.plan(topology, collective, root=root), slots=4)
    program = in_one_channel(apart)
    verify(program, repeated=True)
    assert {len(channels) for channels in program.ranks} == {1} and program.in_place == apart.in_place
    with ThreadExecutor(program, max_count=40 * nranks, chunk_bytes=64, timeout_s=60) as executor:
        for count in (0, nranks, 37 * nranks):
            inputs = make_inputs(collective, root, nranks, count, lambda rank, size: np.random.default_rng(rank).integers(-99, 99, size).astype(np.float32))
            for in_place in (False, *[True] * program.in_place):
                assert_outputs(collective, root, inputs, executor.run(inputs, in_place=in_place), lambda arrays: np.sum(arrays, axis=0), f"count {count}")


def test_ranks_tell_before_they_look():
    program = in_one_channel(lower(bc.plan(host_topology(3, None), "alltoall")))
    for (channel,) in program.ranks:
        reads = [any(operand.buffer == "slot" for operand in step.srcs) for step in channel.steps]
        assert reads == sorted(reads) and not any(step.after for step in channel.steps)


def test_shares_need_channels_of_their_own():
    with pytest.raises(ScheduleError, match="one share"):
        in_one_channel(lower_two_shot(host_topology(2, None), shares=2))
