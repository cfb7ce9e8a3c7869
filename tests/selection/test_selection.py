"""Selection: the argmin among its candidates, by a table of thresholds, and never slower than a baseline."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from allocations import classes, name_of, spread

import blinkcoll as bc
from blinkcoll.errors import PackingError, ScheduleError, SimulationError
from blinkcoll.schedules.protocols import keeps_lines_whole
from blinkcoll.selection import SIZES, Contest, Request, Table, default_channels, select, table_for
from blinkcoll.selection.candidates import rccl_rings
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import BASELINES, baseline_program
from blinkcoll.topology import layout_names, load_topology

THREE = load_topology("dgx1-v100").subset([0, 1, 4])


def request_for(topology, collective="allreduce", max_channels=32):
    return Request(topology, collective, 0 if collective in ("broadcast", "reduce", "gather", "scatter") else None, max_channels)


@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
def test_the_winner_is_the_fastest_of_all_candidates_simulated_one_by_one(collective):
    topology = load_topology("dgx1-v100").subset([0, 1, 2, 4, 7])
    contest = Contest(request_for(topology, collective))
    for nbytes in (8, 4096, 1 << 18, 1 << 21, 1 << 25):
        times = {
            (i, chunk): run(candidate.program, nbytes, chunk_bytes=chunk).time_us
            for i, candidate in enumerate(contest.candidates)
            for chunk in candidate.chunk_sizes(nbytes)
        }
        fastest = min(times.values())
        assert contest.time_us(contest.winner(nbytes), nbytes) == pytest.approx(fastest, rel=1e-8)


def test_a_table_does_not_depend_on_the_order_of_questions():
    sizes = [*SIZES[:24], 500_000, 70_000, 3 << 20, 12]
    forward, backward = Table(request_for(THREE)), Table(request_for(THREE))
    shuffled = random.Random(7).sample(sizes, len(sizes))
    asked = {nbytes: backward.choose(nbytes) for nbytes in shuffled}
    assert {nbytes: forward.choose(nbytes) for nbytes in sizes} == asked


def test_a_size_that_a_contest_was_held_at_takes_its_winner():
    """Six equal shards do not make 512 KiB: the contest is held a little below, where a ring beats the trees before it."""
    table = table_for(request_for(load_topology("dgx1-v100").subset([0, 1, 2, 4, 6, 7]), "reducescatter"))
    for size in SIZES[10:24]:
        whole = table.contest.whole(size)
        times = {table.contest.time_us(i, whole) for i in (table.choose(whole), table.contest.winner(size))}
        assert len(times) == 1, size


def test_thresholds_ascend_and_say_what_choose_says():
    table = table_for(request_for(THREE))
    thresholds = table.thresholds()
    assert thresholds[0][0] == 0 and all(a < b for (a, _), (b, _) in pairwise(thresholds))
    assert all(isinstance(start, int) for start, _ in thresholds)
    assert all(one != other for (_, one), (_, other) in pairwise(thresholds)), "neighbours differ"
    for start, candidate in thresholds:
        assert table.choose(max(start, 1)) == candidate
        if start:
            assert table.choose(start - 1) != candidate
    assert table.choose(64 << 30) == thresholds[-1][1]


def test_select_returns_a_verified_program_its_plan_and_reasons():
    chosen = bc.select(THREE, "all_reduce", 64 << 20)
    bc.verify(chosen.program, repeated=True)
    assert chosen.program.nchannels <= 32 and chosen.plan is not None
    chosen.plan.check()
    assert run(chosen.program, 64 << 20).time_us == pytest.approx(chosen.time_us)
    text = chosen.explain()
    assert f"* {chosen.algorithm}" in text and "ring" in text and "at least" in text and "simulated" in text


def test_a_classic_family_has_no_plan():
    selection = select(load_topology("dgx1-v100"), "allreduce", 64 << 20)
    assert selection.algorithm.startswith("ring") and selection.plan is None


@pytest.mark.parametrize("max_channels", [2, 4, 8])
def test_the_budget_of_channels_is_kept(max_channels):
    for nbytes in (8, 1 << 20, 1 << 28):
        assert select(THREE, "allreduce", nbytes, max_channels=max_channels).program.nchannels <= max_channels


@pytest.mark.parametrize("collective", ["gather", "scatter", "alltoall", "allgather", "reducescatter", "reduce"])
def test_every_collective_has_a_choice(collective):
    root = 1 if collective in ("gather", "scatter", "reduce") else None
    chosen = select(THREE, collective, 3 << 20, root=root)
    assert chosen.program.collective == collective and chosen.program.root == root


@pytest.mark.parametrize("collective", ["allgather", "reducescatter"])
def test_where_shards_have_trees_in_unequal_numbers_one_each_may_be_faster(collective):
    """RTX 4090s below four PCIe switches: nine trees for eight shards, of which the ninth costs the others their channels."""
    topology = load_topology("rtx4090x8")
    chosen = select(topology, collective, 16 << 20)
    assert chosen.algorithm.startswith("one tree a rank") and len(chosen.plan.trees) == 8
    chosen.plan.check()
    assert chosen.plan.rate == chosen.plan.bound
    forest = baseline_program("forestcoll", topology, collective, None, 16 << 20)
    assert forest.nchannels > 32 and run(forest, 16 << 20).time_us / chosen.time_us > 0.99


@pytest.mark.parametrize("layout", ["mi250x", "mi300x"])
def test_on_amd_gpus_rccls_rings_are_candidates(layout):
    drafts = list(rccl_rings(request_for(load_topology(layout), "allgather")))
    assert [draft.protocols for draft in drafts] == [("simple",), ("LL",)]
    for draft in drafts:
        bc.verify(draft.program, repeated=True)


@pytest.mark.parametrize(("layout", "gpus"), [("dgx1-p100", range(8)), ("dgx1-v100", [0, 1, 2, 4]), ("h100-pcie-4", range(4))])
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
def test_lines_of_128_bytes_are_no_choice_where_they_may_tear(layout, gpus, collective):
    topology = load_topology(layout).subset(list(gpus))
    candidates = Contest(request_for(topology, collective)).candidates
    assert {candidate.protocol for candidate in candidates} >= {"simple", "LL"}
    for candidate in candidates:
        lines = [c for c in candidate.program.connections if c.protocol == "LL128"]
        assert all(keeps_lines_whole(topology, connection.path) for connection in lines), candidate.name


def test_bad_requests_are_told():
    with pytest.raises(PackingError, match="needs a root"):
        select(THREE, "broadcast", 8)
    with pytest.raises(PackingError, match="max_channels"):
        select(THREE, "allreduce", 8, max_channels=0)
    with pytest.raises(PackingError, match="unknown collective"):
        select(THREE, "gossip", 8)


# -- against the baselines ------------------------------------------------------------------------------------------------

def kept_from(program, max_channels):
    """Why a baseline's program is no choice, and may be faster: it has more channels than the budget, or executors refuse it."""
    if program.nchannels > max_channels:
        return f"{program.nchannels} channels"
    if any(c.protocol == "LL128" and not keeps_lines_whole(program.topology, c.path) for c in program.connections):
        return "lines of 128 bytes may tear"
    return None


def lost(topology, collective, sizes, tolerance=1e-6, max_channels=None):
    """Where a baseline that could be a choice is faster than the choice: (baseline, size, ratio, choice)."""
    root = 0 if collective in ("broadcast", "reduce", "gather", "scatter") else None
    max_channels = max_channels or default_channels(topology)
    table = table_for(Request(topology, collective, root, max_channels))
    found = []
    for size in sizes:
        nbytes = table.contest.whole(size)
        i = table.choose(nbytes)
        for name in BASELINES:
            try:
                program = baseline_program(name, topology, collective, root, nbytes)
            except SimulationError:
                continue
            if kept_from(program, max_channels):
                continue
            ratio = run(program, nbytes).time_us / table.contest.time_us(i, nbytes)
            if ratio < 1 - tolerance:
                found.append((name, nbytes, round(ratio, 5), table.contest.candidates[i].name))
    return found


@pytest.mark.parametrize("topology", spread(5), ids=name_of)
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
def test_no_baseline_within_the_budget_is_faster_on_dgx1s(topology, collective):
    assert not lost(topology, collective, SIZES[1:-4:6])


@pytest.mark.parametrize("collective", ["reduce", "allgather", "reducescatter"])
def test_no_baseline_is_faster_in_other_collectives(collective):
    assert not lost(spread(9)[4], collective, SIZES[1:-4:6])


@pytest.mark.parametrize(("layout", "channels"), [("hgx-h100", 48), ("hgx-b200", 72)])
def test_over_switches_that_add_as_many_channels_are_taken_as_by_nccl_and_none_is_faster(layout, channels):
    topology = load_topology(layout)
    assert default_channels(topology) == channels
    for nbytes in (4 << 20, 32 << 20, 1 << 30):
        program = baseline_program("nccl", topology, "allreduce", None, nbytes)
        assert program.multicasts and program.nchannels == channels
        chosen = select(topology, "allreduce", nbytes)
        assert chosen.program.nchannels <= channels
        assert run(program, nbytes).time_us / chosen.time_us > 0.9999


@pytest.mark.parametrize(("layout", "nbytes"), [("dgx1-p100", 8 << 20), ("dgx1-v100", 8 << 20)])
def test_a_baseline_of_more_channels_is_faster_only_until_as_many_may_run(layout, nbytes):
    topology = load_topology(layout)
    forest = baseline_program("forestcoll", topology, "allreduce", None, nbytes)
    assert forest.nchannels > default_channels(topology)
    time_us = run(forest, nbytes).time_us
    assert time_us < select(topology, "allreduce", nbytes).time_us
    assert time_us > select(topology, "allreduce", nbytes, max_channels=forest.nchannels).time_us * (1 - 1e-6)


@pytest.mark.parametrize(("layout", "nbytes"), [("dgx1-v100", 16 << 20), ("rtx4090x8", 1 << 18), ("mi250x", 16 << 20)])
def test_an_all_gather_that_tells_meanwhile_is_as_fast_as_one_that_tells_nobody(layout, nbytes):
    """The rebuilt NCCL and RCCL store into ranks that may not have begun; nothing proves them for calls one after the other."""
    topology = load_topology(layout)
    program = baseline_program("nccl", topology, "allgather", None, nbytes)
    with pytest.raises(ScheduleError, match="nothing says that this rank has begun"):
        bc.verify(program, repeated=True)
    assert run(program, nbytes).time_us > select(topology, "allgather", nbytes).time_us * (1 - 1e-6)


def test_elsewhere_a_rank_runs_32_channels_at_most():
    assert {default_channels(load_topology(name)) for name in ("dgx1-p100", "dgx-a100", "mi300x", "h100-pcie-4")} == {32}


@pytest.mark.parametrize("name", ["dgx1-v100*2@12.5", pytest.param("hgx-h100*2@50", marks=pytest.mark.slow), pytest.param("dgx-a100*2@25", marks=pytest.mark.slow)])
def test_across_servers_what_nccl_runs_by_counters_is_no_faster(name):
    """By lines of 128 bytes over NICs it is at some sizes: docs/bench.md."""
    topology, nbytes = load_topology(name), 256 << 20
    program = baseline_program("nccl", topology, "allreduce", None, nbytes)
    assert {c.protocol for c in program.connections} == {"simple"}
    assert run(program, nbytes).time_us / select(topology, "allreduce", nbytes).time_us > 0.9999


# -- the whole product: every class of both DGX-1s, every layout, the table's sizes -------------------------------------------

_SHARING = ["allreduce", "broadcast", "reduce", "allgather", "reducescatter"]
#: Layouts whose candidates take most of a minute to make: an item a size.
_RACKS = ("gb200-nvl72",)
_LAYOUTS = [name for name in dict.fromkeys(load_topology(name).name for name in layout_names()) if load_topology(name).nranks > 1]


@pytest.mark.slow
@pytest.mark.parametrize("topology", classes(), ids=name_of)
@pytest.mark.parametrize("collective", _SHARING)
def test_no_baseline_within_the_budget_is_faster_on_any_class_and_size(topology, collective):
    assert not lost(topology, collective, SIZES, tolerance=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [name for name in _LAYOUTS if name not in _RACKS])
@pytest.mark.parametrize("collective", _SHARING)
def test_no_baseline_within_the_budget_is_faster_on_any_layout(layout, collective):
    assert not lost(load_topology(layout), collective, SIZES, tolerance=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("nbytes", SIZES[::5])
@pytest.mark.parametrize("layout", _RACKS)
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
def test_no_baseline_within_the_budget_is_faster_on_a_rack(layout, collective, nbytes):
    assert not lost(load_topology(layout), collective, [nbytes], tolerance=0.005)
