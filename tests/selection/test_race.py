"""A race of stand-ins for simulated runs: the fastest is found, and no other goes on for longer than it could still win."""

from __future__ import annotations

import random
from math import inf

import pytest

from blinkcoll.selection.race import Race


class Runner:
    """Takes ``time_us``; on the way there what it takes at least rises by ``stride_us``."""

    def __init__(self, time_us, least_us, stride_us):
        self.time_us, self.least_us, self.stride_us = time_us, least_us, stride_us
        self.advanced_to = 0.0

    def advance(self, within_us):
        while self.least_us <= within_us:
            self.advanced_to = self.least_us
            self.least_us += self.stride_us
            if self.least_us > self.time_us:
                return self.time_us
        return None


@pytest.mark.parametrize("nthreads", [1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_the_fastest_and_all_that_tie_with_it_come_to_their_end(seed, nthreads):
    rng = random.Random(seed)
    times = {(i, chunk): float(rng.randint(10, 40)) for i in range(30) for chunk in (16, 32)}
    runners = {run: Runner(time, time * rng.random(), 0.5) for run, time in times.items()}
    floors = {i: min(runners[i, chunk].least_us for chunk in (16, 32)) for i in range(30)}
    race = Race(floors, lambda i: [(chunk, runners[i, chunk]) for chunk in (16, 32)])
    race.run(nthreads)
    best = min(times.values())
    assert race.best_us == best
    assert {run for run, time in times.items() if time == best} <= set(race.times)
    assert all(race.times[run] == times[run] for run in race.times)
    assert not set(race.slower) & set(race.times)
    assert all(times[run] > best for run in race.slower)


def test_one_that_cannot_win_goes_no_further_than_the_winner_s_time():
    runners = {0: Runner(100.0, 1.0, 1.0), 1: Runner(50.0, 2.0, 1.0), 2: Runner(60.0, 3.0, 1.0)}
    race = Race({0: 0.0, 1: 0.0, 2: 0.0}, lambda i: [(16, runners[i])])
    race.run(1)
    assert set(race.times) == {(1, 16)}
    assert runners[0].advanced_to <= 51.0
    assert runners[2].advanced_to <= 51.0


def test_a_candidate_whose_floor_is_above_the_best_time_is_not_begun():
    begun = []

    def begin(i):
        begun.append(i)
        return [(16, Runner(10.0, 1.0, 1.0))]

    Race({0: 0.0, 1: 11.0}, begin).run(1)
    assert begun == [0]


def test_where_no_candidate_has_a_run_there_is_no_time():
    race = Race({0: 0.0, 1: 1.0}, lambda i: [])
    race.run(2)
    assert race.times == {}
    assert race.best_us == inf


@pytest.mark.parametrize("nthreads", [1, 2])
def test_an_error_of_a_run_is_the_race_s(nthreads):
    class Broken(Runner):
        def advance(self, within_us):
            if within_us > 0:
                raise RuntimeError("deadlocks")
            return None

    with pytest.raises(RuntimeError, match="deadlocks"):
        Race({0: 0.0}, lambda i: [(16, Broken(10.0, 1.0, 1.0))]).run(nthreads)
