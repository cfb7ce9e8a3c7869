from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkcoll.cost import MiadTuner
from blinkcoll.errors import SimulationError
from blinkcoll.packing import make_plan
from blinkcoll.schedules import lower_trees
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import baseline_program
from blinkcoll.topology import load_topology

LEAST, MOST = 1 << 12, 1 << 21


def tune(time_of, start=LEAST, repeats=1):
    tuner = MiadTuner(start=start, least=LEAST, most=MOST, repeats=repeats)
    calls = 0
    while not tuner.settled:
        tuner.report(time_of(tuner.chunk_bytes))
        calls += 1
        assert calls < 200
    return tuner, calls


@pytest.mark.parametrize(("name", "gpus"), [("dgx1-v100", (0, 1, 4)), ("dgx1-v100", (0, 2, 3)), ("dgx1-v100", tuple(range(7))), ("dgx1-p100", tuple(range(8)))], ids=str)
@pytest.mark.parametrize("nbytes", [1 << 16, 1 << 20, 1 << 24, pytest.param(1 << 28, marks=pytest.mark.slow)])
def test_within_five_percent_of_the_best_chunk_on_the_simulator(name, gpus, nbytes):
    topology = load_topology(name).subset(gpus)
    for program in (
        lower_trees(make_plan(topology, "allreduce")),
        lower_trees(make_plan(topology, "broadcast", 0)),
        baseline_program("baidu-ring", topology, "allreduce", None, nbytes),
    ):
        times: dict[int, float] = {}

        def time_of(chunk: int, program=program, times=times) -> float:
            if chunk not in times:
                times[chunk] = run(program, nbytes, chunk_bytes=chunk).time_us
            return times[chunk]

        tuner, _ = tune(time_of)
        best = min(time_of(int(2 ** (k / 4)) // 16 * 16) for k in range(48, 85))
        assert time_of(tuner.chunk_bytes) <= 1.05 * best, (program.collective, tuner.chunk_bytes, best)


@given(st.floats(0.5, 50), st.floats(1e-6, 1e-2), st.floats(1e5, 1e9))
def test_one_peak_is_found(per_chunk_us, per_byte_us, nbytes):
    def time_of(chunk):
        return nbytes / chunk * per_chunk_us + chunk * per_byte_us + nbytes / 2e4

    tuner, calls = tune(time_of)
    best = min(time_of(chunk) for chunk in range(LEAST, MOST + 1, 1024))
    assert time_of(tuner.chunk_bytes) <= 1.05 * best
    assert calls <= 30


def test_the_fastest_of_several_calls_counts():
    noise = iter([9.0, 1.0] * 100)
    tuner, _ = tune(lambda chunk: 100 + abs(chunk - 65536) / 1e3 + next(noise), repeats=2)
    assert tuner.chunk_bytes == 65536
    assert tuner.tried[65536] == 101.0


def test_growth_up_to_the_end_of_the_range_stays_there():
    tuner, _ = tune(lambda chunk: 1e6 / chunk)
    assert tuner.chunk_bytes == MOST


def test_reports_after_settling_change_nothing():
    tuner, _ = tune(lambda chunk: 1e6 / chunk)
    tuner.report(0.0)
    assert tuner.chunk_bytes == MOST


@pytest.mark.parametrize("kwargs", [{"start": 1, "least": 2, "most": 4}, {"start": 4, "least": 4, "most": 2}, {"start": 4, "least": 4, "most": 8, "factor": 1}])
def test_impossible_ranges_are_refused(kwargs):
    with pytest.raises(SimulationError, match="MIAD"):
        MiadTuner(**kwargs)
