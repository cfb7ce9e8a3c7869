"""Blink's pipeline: every stage within what it promises, rates exact, and clear words where the paper has no method."""

from fractions import Fraction

import pytest
from packing_fabrics import both, star, topology
from test_fewtrees import small_machine

import blinkcoll as bc
from blinkcoll.errors import PackingError
from blinkcoll.packing.blink import pcie_bytes
from blinkcoll.packing.links import network_of
from blinkcoll.packing.mwu import multiplicative_weights
from blinkcoll.topology import load_topology, unique_subsets

V100 = load_topology("dgx1-v100")


def load(trees, collective):
    """GB/s over each link; reduce's trees lead away from the root, on reversed links."""
    carried = {}
    for tree in trees:
        for u, v in tree.paths:
            for arc in {"broadcast": [(u, v)], "reduce": [(v, u)], "allreduce": [(u, v), (v, u)]}[collective]:
                carried[arc] = carried.get(arc, 0) + tree.rate
    return carried


@pytest.mark.parametrize("epsilon", [0.3, 0.1, 0.02])
@pytest.mark.parametrize("collective", ["broadcast", "reduce", "allreduce"])
def test_multiplicative_weights_miss_no_more_than_epsilon(collective, epsilon):
    root = None if collective == "allreduce" else 2
    for seed in range(6):
        topo = small_machine(seed, 6, directed=root is not None)
        trees = multiplicative_weights(network_of(topo, ["NVLINK"]), collective, root, epsilon)
        carried = load(trees, collective)
        assert all(used <= topo.capacities()[arc] for arc, used in carried.items())
        assert any(used == topo.capacities()[arc] for arc, used in carried.items())
        rate, bound = sum(tree.rate for tree in trees), bc.plan(topo, collective, root).bound
        assert (1 - Fraction(epsilon)) * bound <= rate <= bound


@pytest.mark.parametrize("name", ["dgx1-v100", "dgx1-p100"])
@pytest.mark.parametrize("collective", ["broadcast", "allreduce"])
def test_every_stage_keeps_its_promise(name, collective):
    for part in (t for k in (3, 5, 7) for t in unique_subsets(load_topology(name), k)[:3]):
        plan = bc.plan(part, collective, root=0 if collective == "broadcast" else None, method="blink")
        plan.check()
        plan.certificate.check(part)
        mwu, ilp, *relaxed = plan.stages
        lane = min(link.capacity for link in part.links if link.kind == "NVLINK")
        assert (mwu.name, ilp.name, [s.name for s in relaxed]) == ("mwu", "ilp", ["relaxed"] * len(relaxed))
        assert mwu.rate >= Fraction(19, 20) * plan.bound
        assert ilp.rate == ilp.trees * lane
        assert plan.stages[-1] == type(mwu)(plan.stages[-1].name, len(plan.trees), plan.rate)
        assert plan.rate >= Fraction(19, 20) * plan.bound
        assert bool(relaxed) == (ilp.rate < Fraction(19, 20) * plan.bound)


def test_eight_v100s_broadcast_over_six_trees_as_in_the_paper():
    plan = bc.plan(V100, "broadcast", root=0, method="blink")
    assert [s.name for s in plan.stages] == ["mwu", "ilp"]
    assert plan.stages[0].trees > 20
    assert (len(plan.trees), plan.rate, {tree.rate for tree in plan.trees}) == (6, 120, {20})


def test_eight_v100s_reduce_all_within_the_threshold_over_few_trees():
    plan = bc.plan(V100, "allreduce", method="blink")
    mwu, ilp, relaxed = plan.stages
    assert mwu.trees > 100 and ilp.rate == 60 and relaxed.rate >= Fraction(19, 20) * plan.bound
    assert relaxed.trees <= 8


def test_a_threshold_of_nothing_asks_for_the_optimum():
    plan = bc.plan(load_topology("dgx1-p100"), "allreduce", method="blink", threshold=0)
    plan.check()
    assert plan.optimal and plan.method == "blink"


def test_ranks_in_one_switch_get_one_hop_trees():
    plan = bc.plan(load_topology("dgx2"), "allreduce", method="blink")
    plan.check()
    assert plan.optimal and plan.depth == 1
    assert [(s.name, s.trees) for s in plan.stages] == [("one-hop", 16)]


@pytest.mark.parametrize(
    ("topo", "collective", "options", "message"),
    [
        (load_topology("ac922"), "allreduce", {}, "none for these links"),
        (V100, "allgather", {}, "plans broadcast, reduce, allreduce"),
        (topology(3, {**both({(0, 1): 1}), (1, 2): 1, (2, 1): 2}), "allreduce", {}, "more one way"),
        (V100, "allreduce", {"epsilon": 0}, "between 0 and 1"),
        (V100, "allreduce", {"epsilon": 0.001}, "too small"),
        (V100, "allreduce", {"threshold": 1}, "0 <= threshold < 1"),
        (V100, "allreduce", {"max_trees": 3}, "chooses few trees itself"),
        (V100, "allreduce", {"speed": 3}, "does not know the option speed"),
    ],
)
def test_what_the_paper_has_no_method_for_is_refused(topo, collective, options, message):
    with pytest.raises(PackingError, match=message):
        bc.plan(topo, collective, method="blink", **options)


def test_options_of_blink_belong_to_blink():
    with pytest.raises(PackingError, match="does not know the option epsilon"):
        bc.plan(star(3), "allreduce", epsilon=0.1)


@pytest.mark.parametrize("nbytes", [10_000_000, 1_000_000_000])
def test_data_split_over_both_kinds_of_link_ends_together(nbytes):
    pcie, nvlink, switching_us = Fraction(10), Fraction(60), Fraction(100)
    part = pcie_bytes(nbytes, pcie, nvlink, switching_us)
    assert part / (pcie * 1000) + switching_us == (nbytes - part) / (nvlink * 1000)


def test_where_switching_takes_longer_than_nvlink_nothing_goes_over_pcie():
    assert pcie_bytes(1_000_000, Fraction(10), Fraction(60), Fraction(20)) == 0
