"""A run within a limit: never given up wrongly, and mostly given up early."""

from __future__ import annotations

import pytest

import blinkcoll as bc
from blinkcoll.schedules import lower_rings
from blinkcoll.schedules.protocols import with_protocol
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import baseline_program
from blinkcoll.simulator.run import Attempt
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
        assert Attempt(program, nbytes, CHUNK).advance(time_us * factor) == time_us
    below = Attempt(program, nbytes, CHUNK).advance(time_us * 0.999)
    assert below in (None, time_us), "what is above the limit is given up or complete"


@pytest.mark.parametrize("program", list(programs()))
def test_what_takes_far_longer_than_the_limit_is_given_up(program):
    nbytes = (16 << 20) // (4 * program.nshards) * 4 * program.nshards
    assert Attempt(program, nbytes, CHUNK).advance(run(program, nbytes, chunk_bytes=CHUNK).time_us / 2) is None


@pytest.mark.parametrize("program", list(programs()))
@pytest.mark.parametrize("nbytes", [40, 70_000, 5 << 20])
def test_a_run_that_was_given_up_goes_on_within_more_and_what_it_takes_at_least_rises_towards_its_time(program, nbytes):
    nbytes -= nbytes % (4 * program.nshards)
    time_us = run(program, nbytes, chunk_bytes=CHUNK).time_us
    attempt = Attempt(program, nbytes, CHUNK)
    least = []
    for part in range(50):
        assert attempt.advance(time_us * part / 50) in (None, time_us)
        least.append(attempt.least_us)
    assert attempt.advance(time_us * (1 + 1e-12)) == time_us
    assert least == sorted(least)
    assert least[0] > 0
    assert least[-1] <= time_us * (1 + 1e-12)


def test_two_runs_of_one_program_do_not_disturb_each_other():
    program = bc.plan(load_topology("dgx1-v100"), "allreduce").schedule(nbytes=1 << 20)
    small, large = (run(program, nbytes, chunk_bytes=CHUNK).time_us for nbytes in (1 << 20, 1 << 22))
    attempts = Attempt(program, 1 << 20, CHUNK), Attempt(program, 1 << 22, CHUNK)
    assert [attempt.advance(small / 2) for attempt in attempts] == [None, None]
    assert [attempt.advance(float("inf")) for attempt in attempts] == [small, large]


def test_ends_count_what_must_come_before_and_after():
    """A chain of hops, one chunk: the run takes as long as its longest way, and that is known before its first step."""
    topology = load_topology("dgx1-v100").subset([0, 1, 2, 3])
    program = lower_rings(topology, [[0, 1, 2, 3]], collective="broadcast", root=0)
    time_us = run(program, 1 << 10, chunk_bytes=CHUNK).time_us
    attempt = Attempt(program, 1 << 10, CHUNK)
    assert attempt.advance(0.0) is None
    assert attempt.least_us == pytest.approx(time_us, rel=1e-4)
