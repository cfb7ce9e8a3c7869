"""Exact plans at 4 GiB: the whole bound in the fluid limit, nearly all of it with the default parameters."""

from __future__ import annotations

from itertools import chain

import pytest

from blinkcoll.cost import default_chunk_bytes
from blinkcoll.packing import make_plan
from blinkcoll.schedules import lower_trees
from blinkcoll.selection import fastest_plan
from blinkcoll.simulator import FLUID, run
from blinkcoll.topology import Topology, load_topology, unique_subsets

NBYTES = 4 << 30
#: Equal rates for all channels take up to 96 of them a rank for the V100 DGX-1's all-reduce plan of twelve trees.
MAX_CHANNELS = 256
SOME = [("dgx1-v100", (0, 1, 4)), ("dgx1-v100", (0, 2, 3)), ("dgx1-v100", (0, 1, 2, 4, 5)), ("dgx1-v100", tuple(range(7))), ("dgx1-p100", tuple(range(4)))]
#: Switches, one-hop trees, PCIe uplinks that several ways share.
SWITCHED = [("dgx-a100", 8), ("hgx-h100", 8), ("dgx2", 16), ("a100-pcie-nvbridge", 8), ("rtx4090x8", 8), ("l40sx8", 8), ("mi300x", 8)]


def shortfall(topology: Topology, collective: str) -> tuple[float, float]:
    """What is missing of the bound: in the fluid limit, and with default parameters and chunk size."""
    plan = make_plan(topology, collective, None if collective == "allreduce" else 0)
    program = lower_trees(plan, max_channels=MAX_CHANNELS)
    bound = float(plan.bound)
    # A pipeline's filling is latency too: chunks small enough that it is far below a thousandth.
    chunk_bytes = default_chunk_bytes(program, NBYTES) // 16 // 16 * 16
    fluid = run(program, NBYTES, chunk_bytes=chunk_bytes, params=FLUID).algbw / bound
    default = run(program, NBYTES, chunk_bytes=default_chunk_bytes(program, NBYTES)).algbw / bound
    return 1 - fluid, 1 - default


@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
@pytest.mark.parametrize(("name", "gpus"), SOME, ids=str)
def test_exact_plans_reach_their_bound_at_4_gib(name, gpus, collective):
    fluid, default = shortfall(load_topology(name).subset(gpus), collective)
    assert fluid <= 0.001 and default <= 0.02, (fluid, default)


@pytest.mark.slow
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
@pytest.mark.parametrize(("name", "nranks"), SWITCHED, ids=str)
def test_exact_plans_over_switches_reach_their_bound_at_4_gib(name, nranks, collective):
    topology = load_topology(name)
    assert topology.nranks == nranks
    fluid, default = shortfall(topology, collective)
    assert fluid <= 0.001 and default <= 0.02, (fluid, default)


def classes(name: str) -> list[Topology]:
    whole = load_topology(name)
    return list(chain.from_iterable(unique_subsets(whole, k) for k in range(3, whole.nranks + 1)))


@pytest.mark.slow
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
@pytest.mark.parametrize("name", ["dgx1-v100", "dgx1-p100"])
def test_every_class_of_allocations_reaches_its_bound_at_4_gib(name, collective):
    missed = []
    for topology in classes(name):
        fluid, default = shortfall(topology, collective)
        if fluid > 0.001 or default > 0.02:
            missed.append(([d.index for d in topology.devices], fluid, default))
    assert not missed


@pytest.mark.slow
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
@pytest.mark.parametrize("name", ["dgx1-v100", "dgx1-p100"])
def test_within_32_channels_the_chosen_plan_reaches_98_percent_of_the_bound(name, collective):
    missed = []
    for topology in classes(name):
        best = fastest_plan(topology, collective, None if collective == "allreduce" else 0, NBYTES, max_channels=32).best
        assert best.program.nchannels <= 32
        reached = run(best.program, NBYTES).algbw / float(best.plan.bound)
        if reached < 0.98:
            missed.append(([d.index for d in topology.devices], reached))
    assert not missed
