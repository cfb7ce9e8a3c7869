"""All-reduce by a reduce-scatter's and an all-gather's trees."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from runtime.oracle import assert_outputs
from schedules import unrolled
from schedules.test_families import exact_sum, inputs_of

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.packing import make_plan
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules.forests import lower_forest_allreduce
from blinkcoll.topology import Device, Link, Topology, load_topology


def plans(topology: Topology):
    return make_plan(topology, "reducescatter"), make_plan(topology, "allgather")


def one_way_ring(n: int) -> Topology:
    """Each rank sends to the next, faster than it sends back: trees down are not those up."""
    devices = tuple(Device(f"gpu{i}") for i in range(n))
    links = [Link(devices[i].name, devices[(i + 1) % n].name, "NVLINK", Fraction(20)) for i in range(n)]
    links += [Link(devices[(i + 1) % n].name, devices[i].name, "NVLINK", Fraction(5)) for i in range(n)]
    return Topology(f"oneway{n}", devices, (), tuple(links))


TOPOLOGIES = [load_topology("dgx1-v100").subset(gpus) for gpus in ((0, 1), (0, 1, 4), (0, 1, 2, 3, 4), range(8))] + [one_way_ring(3), one_way_ring(5)]


@pytest.mark.parametrize("max_channels", [8, 32, 128])
@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda t: f"{t.name}-{t.nranks}")
def test_forests_sum(topology, max_channels):
    program = lower_forest_allreduce(*plans(topology), max_channels=max_channels)
    assert program.nchannels <= max_channels
    bc.verify(program, repeated=True)
    with ThreadExecutor(program, max_count=1021, chunk_bytes=64, timeout_s=30) as executor:
        for count in (0, 1, 1021):
            for in_place in (False, True):
                inputs = inputs_of(program, count, seed=count)
                assert_outputs("allreduce", None, inputs, executor.run(inputs, in_place=in_place), exact_sum, f"count {count}")


def test_the_unrolled_oracle_agrees():
    unrolled.verify(lower_forest_allreduce(*plans(load_topology("dgx1-v100").subset([0, 1, 2])), max_channels=8))


def test_averages_come_out_right():
    program = lower_forest_allreduce(*plans(load_topology("dgx1-v100").subset([0, 1, 2, 3])))
    inputs = [np.full(101, float(rank), np.float32) for rank in range(4)]
    with ThreadExecutor(program, max_count=101, chunk_bytes=64, op="avg") as executor:
        assert all(np.array_equal(out, np.full(101, 1.5, np.float32)) for out in executor.run(inputs))


def test_other_plans_are_refused():
    up, down = plans(load_topology("dgx1-v100").subset([0, 1, 2]))
    with pytest.raises(ScheduleError, match="got allgather and reducescatter"):
        lower_forest_allreduce(down, up)
    with pytest.raises(ScheduleError, match="of one topology"):
        lower_forest_allreduce(up, make_plan(load_topology("dgx1-v100").subset([0, 1, 3]), "allgather"))
