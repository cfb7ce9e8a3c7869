"""A run within a limit: never given up wrongly, and mostly given up early."""

from __future__ import annotations

import pytest

import blinkcoll as bc
from blinkcoll.schedules.protocols import with_protocol
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import baseline_program
from blinkcoll.simulator.run import time_within
from blinkcoll.topology import load_topology

CHUNK = 1 << 16


def programs():
    sparse = load_topology("dgx1-v100").subset([0, 1, 2, 4, 7])
    for collective in ("allreduce", "broadcast", "allgather", "alltoall"):
        program = bc.plan(sparse, collective, root=0 if collective == "broadcast" else None).schedule(nbytes=1 << 20)
        yield pytest.param(program, id=collective)
    yield pytest.param(with_protocol(bc.plan(sparse, "allreduce").schedule(nbytes=1 << 20), "LL"), id="lines")
    yield pytest.param(bc.plan(sparse, "allreduce", method="hybrid").schedule(nbytes=1 << 20), id="through host memory")
    yield pytest.param(baseline_program("nccl", load_topology("hgx-h100"), "allreduce", None, 1 << 28), id="switches that add")
    yield pytest.param(baseline_program("nccl", sparse, "allreduce", None, 1 << 28), id="ring through a third GPU's memory")


@pytest.mark.parametrize("program", list(programs()))
@pytest.mark.parametrize("nbytes", [0, 40, 70_000, 5 << 20])
def test_a_run_within_the_limit_is_seen_to_its_end_with_the_same_time(program, nbytes):
    nbytes -= nbytes % (4 * program.nshards)
    time_us = run(program, nbytes, chunk_bytes=CHUNK).time_us
    for factor in (1 + 1e-12, 1.001, 2.0, float("inf")):
        assert time_within(program, nbytes, CHUNK, time_us * factor) == time_us
    below = time_within(program, nbytes, CHUNK, time_us * 0.999)
    assert below in (None, time_us), "what is above the limit is given up or complete"


@pytest.mark.parametrize("program", list(programs()))
def test_what_takes_far_longer_than_the_limit_is_given_up(program):
    nbytes = (16 << 20) // (4 * program.nshards) * 4 * program.nshards
    assert time_within(program, nbytes, CHUNK, run(program, nbytes, chunk_bytes=CHUNK).time_us / 2) is None


def test_a_run_that_was_given_up_leaves_nothing_behind():
    program = bc.plan(load_topology("dgx1-v100"), "allreduce").schedule(nbytes=1 << 20)
    before = run(program, 1 << 22, chunk_bytes=CHUNK, trace=True)
    assert time_within(program, 1 << 22, CHUNK, before.time_us / 2) is None
    assert run(program, 1 << 22, chunk_bytes=CHUNK, trace=True) == before
