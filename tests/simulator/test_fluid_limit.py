"""Exact plans at 4 GiB: the whole bound in the fluid limit, nearly all of it with the default parameters."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import chain

import pytest

from blinkcoll.cost import default_chunk_bytes
from blinkcoll.packing import make_plan
from blinkcoll.schedules import Program, lower_trees
from blinkcoll.selection import select
from blinkcoll.simulator import FLUID, run
from blinkcoll.topology import Topology, layout_names, load_topology, unique_subsets

NBYTES = 4 << 30
MAX_CHANNELS = 256
#: Channels a rank that equal rates take, where they are more than 32 (docs/simulator.md).
CHANNELS = {
    ("dgx1-v100", "allreduce"): 96, ("ndv2", "allreduce"): 96, ("mi250x", "allreduce"): 96, ("dgx1-p100", "allreduce"): 64,
    ("hgx-b200", "broadcast"): 42, ("hgx-b200", "allreduce"): 45,
}  # fmt: skip
SOME = [("dgx1-v100", (0, 1, 4)), ("dgx1-v100", (0, 2, 3)), ("dgx1-v100", (0, 1, 2, 4, 5)), ("dgx1-v100", tuple(range(7))), ("dgx1-p100", tuple(range(4)))]
#: All layouts: meshes, switches, one-hop trees, PCIe uplinks that several ways share. Not 72 GPUs: their 72
#: one-hop trees take minutes to simulate at this size.
LAYOUTS = sorted({load_topology(name).name for name in layout_names()} - {"gb200-nvl72"})


def without_latency(program: Program) -> Program:
    links = tuple(replace(link, latency_us=Fraction(0)) for link in program.topology.links)
    return replace(program, topology=replace(program.topology, links=links))


def shortfall(topology: Topology, collective: str) -> tuple[float, float]:
    """What is missing of the bound: in the fluid limit, and with default parameters and chunk size."""
    plan = make_plan(topology, collective, None if collective == "allreduce" else 0)
    program = lower_trees(plan, max_channels=MAX_CHANNELS)
    bound = float(plan.bound)
    # A pipeline's filling is latency too: chunks small enough that it is far below a thousandth.
    chunk_bytes = default_chunk_bytes(program, NBYTES) // (64 if program.nchannels <= 16 else 16) // 16 * 16
    fluid = run(without_latency(program), NBYTES, chunk_bytes=chunk_bytes, params=FLUID).algbw / bound
    default = run(program, NBYTES, chunk_bytes=default_chunk_bytes(program, NBYTES)).algbw / bound
    return 1 - fluid, 1 - default


@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
@pytest.mark.parametrize(("name", "gpus"), SOME, ids=str)
def test_exact_plans_reach_their_bound_at_4_gib(name, gpus, collective):
    fluid, default = shortfall(load_topology(name).subset(gpus), collective)
    assert fluid <= 0.001 and default <= 0.02, (fluid, default)


@pytest.mark.slow
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_exact_plans_of_all_layouts_reach_their_bound_at_4_gib(name, collective):
    fluid, default = shortfall(load_topology(name), collective)
    assert fluid <= 0.001 and default <= 0.02, (fluid, default)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_channels_that_exact_plans_need(name):
    topology = load_topology(name)
    for collective in ("allreduce", "broadcast"):
        plan = make_plan(topology, collective, None if collective == "allreduce" else 0)
        assert lower_trees(plan, max_channels=MAX_CHANNELS).nchannels <= CHANNELS.get((name, collective), 32)


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
        best = select(topology, collective, NBYTES, root=None if collective == "allreduce" else 0, max_channels=32)
        assert best.program.nchannels <= 32
        reached = run(best.program, NBYTES).algbw / float(make_plan(topology, collective, root=best.program.root).bound)
        if reached < 0.98:
            missed.append(([d.index for d in topology.devices], reached))
    assert not missed


@pytest.mark.slow
def test_trees_of_one_rate_halve_the_channels_of_16_gpus_without_switches():
    plan = make_plan(load_topology("mi250x"), "allreduce", equal_trees=24)
    program = lower_trees(plan, max_channels=48)
    assert plan.rate == plan.bound and program.nchannels == 47
    assert run(program, NBYTES, chunk_bytes=default_chunk_bytes(program, NBYTES)).algbw >= 0.98 * float(plan.bound)
