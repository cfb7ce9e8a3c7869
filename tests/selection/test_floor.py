"""The floor never exceeds a simulated time, or a search that prunes by it would miss the fastest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blinkcoll.cost import estimate_us
from blinkcoll.schedules import lower_rings
from blinkcoll.selection import Request, table_for
from blinkcoll.simulator import parameters_for, run
from blinkcoll.simulator.floor import Floor
from blinkcoll.topology import load_topology

SETS = [("dgx1-v100", (0, 1, 4)), ("dgx1-p100", (0, 1, 2, 4, 5)), ("dgx2", (0, 1, 2, 3)), ("rtx4090x8", (0, 1, 5)), ("hgx-h100", (0, 1, 2, 3)), ("mi250x", (0, 1, 2))]


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "broadcast", "reducescatter", "alltoall"])
@pytest.mark.parametrize(("layout", "gpus"), SETS)
def test_no_simulated_time_is_below_its_floor(layout, gpus, collective):
    topology = load_topology(layout).subset(list(gpus))
    contest = table_for(Request(topology, collective, 0 if collective == "broadcast" else None, 32)).contest
    below = [
        (candidate.name, nbytes, contest.floor_us(i, nbytes), contest.time_us(i, nbytes))
        for i, candidate in enumerate(contest.candidates)
        for nbytes in (4, 8, 64, 1000, 1 << 12, 20000, 1 << 18, 1 << 22)
        if contest.floor_us(i, nbytes) > contest.time_us(i, nbytes) * (1 + 1e-9)
    ]
    assert not below


def test_floors_are_tight_for_large_sizes():
    contest = table_for(Request(load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce", None, 32)).contest
    i = contest.winner(1 << 30)
    assert 0.85 < contest.floor_us(i, 1 << 30) / contest.time_us(i, 1 << 30) <= 1


@pytest.mark.parametrize("name", ["dgx-a100*2@25", "dgx-a100"])
def test_floors_and_estimates_launch_for_as_many_ranks_as_the_simulator(name):
    topology = load_topology(name)
    params = parameters_for(topology, "one-process")
    at_once = replace(params, launch=replace(params.launch, per_rank_us=0.0))
    program = lower_rings(topology, [list(range(topology.nranks))], collective="allgather")
    for time_us in (
        lambda p: run(program, 1 << 10, params=p).time_us,
        lambda p: Floor(program, p).us(1 << 10),
        lambda p: estimate_us(program, 1 << 10, params=p),
    ):
        assert time_us(params) - time_us(at_once) == pytest.approx(7 * params.launch.per_rank_us)
