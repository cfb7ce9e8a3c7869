"""Optima published or derived by hand; rates of the two DGX-1s in link units."""

from fractions import Fraction
from itertools import combinations, islice

import packing_oracles as oracles
import pytest
from packing_fabrics import a100_boxes, both, mi250_boxes, star, topology

from blinkcoll.packing import make_plan
from blinkcoll.topology import load_topology, unique_subsets

LANE = {"dgx1-v100": 20, "dgx1-p100": 18}
TREES = ("broadcast", "reduce", "allreduce", "allgather", "reducescatter")
ALLREDUCE = [
    ("dgx1-v100", range(8), Fraction(24, 7)),
    ("dgx1-v100", (0, 1, 4), Fraction(1)),
    ("dgx1-v100", (0, 2, 3), Fraction(5, 2)),
    ("dgx1-v100", (0, 1, 2, 4, 5, 7), Fraction(12, 5)),
    ("dgx1-v100", (0, 2, 3, 4, 6, 7), Fraction(14, 5)),
    ("dgx1-p100", range(8), Fraction(16, 7)),
    ("dgx1-p100", (0, 1, 2, 4, 5, 6), Fraction(9, 5)),
]


def roots(collective, nranks):
    return range(nranks) if collective in ("broadcast", "reduce", "gather", "scatter") else [None]


@pytest.mark.parametrize(("name", "gpus", "units"), ALLREDUCE, ids=str)
def test_allreduce_reaches_the_known_optimum(name, gpus, units):
    plan = make_plan(load_topology(name).subset(list(gpus)), "allreduce")
    plan.check()
    assert plan.rate == plan.bound == units * LANE[name]


@pytest.mark.parametrize(
    ("collective", "root", "units"),
    [("broadcast", 3, 6), ("reduce", 5, 6), ("allgather", None, Fraction(48, 7)), ("reducescatter", None, Fraction(48, 7)), ("scatter", 2, Fraction(48, 7)), ("gather", 7, Fraction(48, 7))],
)
def test_eight_v100s_reach_the_known_optimum(collective, root, units):
    plan = make_plan(load_topology("dgx1-v100"), collective, root)
    plan.check()
    assert plan.rate == plan.bound == 20 * units


def connected_subsets(name, sizes=range(2, 9)):
    topo = load_topology(name).restrict(["NVLINK"])
    for k in sizes:
        for gpus in combinations(range(8), k):
            part = topo.subset(list(gpus))
            reached = {0}
            for _ in range(k):
                reached |= {v for u, v in part.capacities() if u in reached}
            if len(reached) == k:
                yield gpus, part


#: Every fourth subset of either machine, every one among the slow.
SUBSETS = pytest.mark.parametrize(("name", "every"), [(name, 4) for name in LANE] + [pytest.param(name, 1, marks=pytest.mark.slow) for name in LANE])


@SUBSETS
def test_trees_meet_the_bound_on_nvlink_subsets_and_every_root(name, every):
    checked = 0
    for gpus, part in islice(connected_subsets(name), 0, None, every):
        for collective in TREES:
            for root in roots(collective, part.nranks):
                plan = make_plan(part, collective, root)
                plan.check()
                assert plan.optimal, (gpus, collective, root, plan.rate, plan.bound)
                checked += 1
    assert checked > 1800 // every


@SUBSETS
def test_bounds_agree_with_brute_force_on_nvlink_subsets(name, every):
    for gpus, part in islice(connected_subsets(name, range(2, 8)), 1, None, every):
        assert make_plan(part, "allreduce").bound == oracles.strength(part), gpus
        for collective in ("allgather", "reducescatter"):
            assert float(make_plan(part, collective).bound) == pytest.approx(oracles.cut_rate(part, collective)), (gpus, collective)
        for collective in ("broadcast", "scatter"):
            assert float(make_plan(part, collective, 1).bound) == pytest.approx(oracles.cut_rate(part, collective, 1)), (gpus, collective)


@pytest.mark.parametrize("name", LANE)
def test_all_to_all_is_optimal_on_every_class_of_allocations(name):
    topo = load_topology(name)
    classes = [part for k in range(3, 9) for part in unique_subsets(topo, k)]
    assert len(classes) == {"dgx1-v100": 46, "dgx1-p100": 14}[name]
    for part in classes:
        plan = make_plan(part, "alltoall")
        plan.check()
        assert plan.optimal, (part.devices, plan.rate, plan.bound)
        assert float(plan.rate) == pytest.approx(oracles.flow_rate(part.restrict(plan.links), "alltoall"))


@pytest.mark.slow
@pytest.mark.parametrize("name", LANE)
def test_every_subset_collective_and_root_meets_its_bound(name):
    topo, checked = load_topology(name), 0
    for k in range(2, 9):
        for gpus in combinations(range(8), k):
            part = topo.subset(list(gpus))
            for collective in (*TREES, "gather", "scatter", "alltoall"):
                for root in roots(collective, k):
                    plan = make_plan(part, collective, root)
                    plan.check()
                    assert plan.optimal, (gpus, collective, root, plan.rate, plan.bound)
                    assert plan.bound <= plan.bound_all
                    checked += 1
    assert checked == 247 * 4 + 4 * sum(k * n for k, n in zip(range(2, 9), (28, 56, 70, 56, 28, 8, 1), strict=True))


def test_allreduce_beats_reducescatter_with_allgather_where_the_theory_says_so():
    """On 52 of the 60 classes, by up to 5/3: one all-reduce of trees against the two halves one after the other."""
    gains = []
    for name in LANE:
        for k in range(3, 9):
            for part in unique_subsets(load_topology(name), k):
                halves = make_plan(part, "allgather").bound / 2
                gains.append(make_plan(part, "allreduce").bound / halves)
    assert (len(gains), sum(gain > 1 for gain in gains), max(gains)) == (60, 52, Fraction(5, 3))


@pytest.mark.parametrize(
    ("build", "boxes", "algbw"),
    [(a100_boxes, 1, 342.857), (a100_boxes, 2, 346.667), (a100_boxes, 4, 266.667), (a100_boxes, 8, 228.571), (mi250_boxes, 1, 342.857), (mi250_boxes, 2, 354.133), (mi250_boxes, 4, 341.333)],
)  # fmt: skip
def test_allgather_reaches_forestcolls_optimum(build, boxes, algbw):
    plan = make_plan(build(boxes), "allgather")
    plan.check()
    assert plan.optimal
    assert float(plan.rate) == pytest.approx(algbw, abs=5e-4)


def test_a_switch_that_cannot_give_out_what_it_takes_in_halves_the_cut():
    """r->s, s->a, s->b, 1 GB/s each: every cut lets 1 through, but one unit into s cannot become two."""
    plan = make_plan(topology(3, {(0, "s"): 1, ("s", 1): 1, ("s", 2): 1}, ["s"]), "broadcast", root=0)
    plan.check()
    assert plan.rate == plan.bound == Fraction(1, 2)


@pytest.mark.parametrize("nranks", [3, 8, 16])
def test_allreduce_over_one_switch_does_not_let_it_copy(nranks):
    plan = make_plan(star(nranks, 1), "allreduce")
    plan.check()
    assert plan.rate == plan.bound == Fraction(nranks, 2 * (nranks - 1))


def test_one_hop_trees_on_a_switch():
    plan = make_plan(star(8, 300), "allreduce")
    assert sorted(tree.root for tree in plan.trees) == list(range(8))
    assert all(path[0] == tree.root and path[1] == "sw0" for tree in plan.trees for path in tree.down)


def test_planes_of_a_fabric_share_the_load():
    plan = make_plan(star(8, 300, planes=6), "allgather")
    plan.check()
    assert plan.rate == Fraction(2400, 7)
    assert {path[1] for tree in plan.trees for path in tree.down} == {f"sw{i}" for i in range(6)}


def test_a_ring_of_one_way_links_needs_unequal_halves():
    """Undirected packing finds nothing on a one-way triangle; trees away and towards roots reach 3/4."""
    plan = make_plan(topology(3, {(0, 1): 1, (1, 2): 1, (2, 0): 1}), "allreduce")
    plan.check()
    assert plan.rate == Fraction(3, 4)


def test_fastest_links_are_added_until_the_ranks_are_connected():
    topo = load_topology("dgx1-v100")
    near, far = make_plan(topo.subset([0, 3]), "allreduce"), make_plan(topo.subset([0, 6]), "allreduce")
    assert near.links == ("NVLINK",) and far.links == ("PCIE", "CPU")
    assert (near.bound, near.bound_all, far.bound, far.bound_all) == (40, 52, 6, 6)
    assert make_plan(topo.subset([0, 3]), "allreduce", links=["pcie", "cpu"]).rate == 12
    assert make_plan(topo.subset([0, 3]), "allreduce", links="all").rate == 52


def test_measured_rates_plan_with_what_links_reach():
    topo = load_topology("dgx1-v100").subset([0, 3])
    (link,) = (k for k in topo.links if (k.src, k.dst, k.kind) == ("gpu0", "gpu3", "NVLINK"))
    assert link.measured_gb_s is not None and link.measured_gb_s != link.capacity
    assert make_plan(topo, "broadcast", 0, rates="measured").rate == link.measured_gb_s


def test_symmetric_trees_are_rooted_at_their_centres():
    path = topology(5, both({(0, 1): 1, (1, 2): 1, (2, 3): 1, (3, 4): 1}))
    (tree,) = make_plan(path, "allreduce").trees
    assert tree.root == 2
