"""Few and shallow trees: against enumeration of all trees on small machines, and the known points of the DGX-1."""

from fractions import Fraction
from itertools import combinations, product
from random import Random

import highspy
import networkx as nx
import numpy as np
import packing_oracles as oracles
import pytest
from packing_fabrics import both, star, topology

import blinkcoll as bc
from blinkcoll import _core
from blinkcoll.errors import PackingError
from blinkcoll.packing import make_plan
from blinkcoll.packing.treebound import largest_determinant
from blinkcoll.topology import load_topology, unique_subsets

V100 = load_topology("dgx1-v100").restrict(["NVLINK"])
LANE = 20


def small_machine(seed, nranks, directed):
    """Random links of 1 to 3 GB/s, connected; of different rates each way if directed."""
    draw = Random(seed)
    while True:
        pairs = [(u, v) for u in range(nranks) for v in range(u) if draw.random() < 0.75]
        graph = nx.Graph(pairs)
        if graph.number_of_nodes() == nranks and nx.is_connected(graph):
            break
    if directed:
        return topology(nranks, {arc: draw.randint(1, 3) for u, v in pairs for arc in ((u, v), (v, u))})
    return topology(nranks, both({pair: draw.randint(1, 3) for pair in pairs}))


def every_tree(topo, collective):
    """Arcs of each spanning tree (both directions of an edge for all-reduce), by picking n - 1 links."""
    arcs = sorted(topo.capacities())
    n, trees = topo.nranks, []
    if collective == "allreduce":
        edges = [(u, v) for u, v in arcs if u < v]
        for chosen in combinations(edges, n - 1):
            if nx.is_connected(nx.Graph([*chosen, *((v, v) for v in range(n))])):
                trees.append([*chosen, *((v, u) for u, v in chosen)])
        return trees
    for chosen in product(*[[a for a in arcs if a[1] == v] for v in range(1, n)]):
        if nx.is_arborescence(nx.DiGraph(chosen)):
            trees.append(list(chosen))
    return trees


def fewest(topo, trees, rate):
    """The least number of these trees that carry the rate: a mixed-integer program over all of them, solved to the end."""
    highs = highspy.Highs()
    highs.silent()
    highs.setOptionValue("mip_rel_gap", 0.0)
    count = len(trees)
    for tree in trees:
        highs.addVar(0.0, float(min(topo.capacities()[a] for a in tree)))
    for t in range(count):
        highs.addVar(0.0, 1.0)
        highs.changeColCost(count + t, 1.0)
        highs.changeColIntegrality(count + t, highspy.HighsVarType.kInteger)

    def row(entries, low, high):
        highs.addRow(low, high, len(entries), np.array([i for i, _ in entries], dtype=np.int32), np.array([v for _, v in entries]))

    row([(t, 1.0) for t in range(count)], float(rate) - 1e-9, highspy.kHighsInf)
    for t, tree in enumerate(trees):
        row([(t, 1.0), (count + t, -float(min(topo.capacities()[a] for a in tree)))], -highspy.kHighsInf, 0.0)
    for arc, c in topo.capacities().items():
        row([(t, 1.0) for t, tree in enumerate(trees) if arc in tree], -highspy.kHighsInf, float(c))
    highs.run()
    assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return round(highs.getInfo().objective_function_value)


@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
@pytest.mark.parametrize("seed", range(8))
def test_the_fewest_trees_of_all_are_found_and_the_bound_holds(seed, collective):
    topo = small_machine(seed, 4 + seed % 2, directed=collective == "broadcast")
    root = 0 if collective == "broadcast" else None
    plan = make_plan(topo, collective, root, minimise="trees", budget_s=1)
    plan.check()
    least = fewest(topo, every_tree(topo, collective), plan.bound)
    assert (plan.rate, len(plan.trees)) == (plan.bound, least)
    assert plan.tree_bound <= least, plan.tree_bound_proof
    for part in (Fraction(3, 4), Fraction(1, 2)):
        target = plan.bound * part
        few = make_plan(topo, collective, root, tolerance=1 - part, budget_s=1)
        assert few.rate >= target and len(few.trees) == fewest(topo, every_tree(topo, collective), target)
        assert few.tree_bound <= len(few.trees)


def test_bounds_on_trees_hold_where_few_trees_are_known():
    """Over the classes of the DGX-1s no plan, however it was made, has fewer trees than its bound says; many meet it."""
    met = 0
    for name in ("dgx1-v100", "dgx1-p100"):
        for part in (t for k in (3, 4, 6) for t in unique_subsets(load_topology(name), k)):
            for collective, root in (("broadcast", 0), ("allreduce", None), ("reduce", 1), ("allgather", None)):
                plan = make_plan(part, collective, root)
                assert 1 <= plan.tree_bound <= len(plan.trees), (part.devices, collective, plan.tree_bound_proof)
                met += plan.tree_bound == len(plan.trees)
    assert met > 50


def test_eight_v100s_broadcast_at_six_lanes_over_four_trees_and_no_fewer():
    plan = make_plan(V100, "broadcast", 0, minimise=True)
    plan.check()
    assert (plan.rate, len(plan.trees), plan.tree_bound) == (6 * LANE, 4, 4)


def test_eight_v100s_reduce_all_at_the_bound_over_seven_trees():
    plan = make_plan(V100, "allreduce", minimise=True, budget_s=4)
    plan.check()
    assert plan.rate == plan.bound == Fraction(24, 7) * LANE
    assert len(plan.trees) <= 7 and plan.tree_bound == 6
    assert plan.tree_bound_proof.reason == "determinant"


@pytest.mark.parametrize(("most", "rate"), [(1, 40), (2, 60), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(5, Fraction(200, 3)), (8, Fraction(480, 7))])])
def test_eight_v100s_reach_the_known_rates_with_few_trees(most, rate):
    plan = make_plan(V100, "allreduce", max_trees=most, budget_s=4)
    plan.check()
    assert len(plan.trees) <= most and plan.rate >= rate


def test_shallow_trees_on_request_as_shallow_as_there_are():
    """The least depth at which all trees there are reach the bound: a linear program over enumerated trees."""
    for seed in range(6):
        topo = small_machine(100 + seed, 5, directed=True)
        plan = make_plan(topo, "broadcast", 0, minimise="depth", budget_s=1)
        plan.check()
        assert plan.optimal
        trees = every_tree(topo, "broadcast")
        depth = [max(nx.single_source_shortest_path_length(nx.DiGraph(tree), 0).values()) for tree in trees]
        for limit in range(1, plan.depth + 1):
            model = oracles.Model()
            weight = [model.variable(1.0) for _ in trees]
            for arc, c in topo.capacities().items():
                model.row({w: 1.0 for w, tree, d in zip(weight, trees, depth, strict=True) if arc in tree and d <= limit}, high=float(c))
            for w, d in zip(weight, depth, strict=True):
                model.row({w: 1.0}, high=0.0 if d > limit else 1e3)
            reaches = model.maximum() > float(plan.bound) - 1e-6
            assert reaches == (limit == plan.depth), (seed, limit, plan.depth)


def test_of_equally_few_trees_the_shallower_are_taken():
    few, shallow = make_plan(V100, "broadcast", 0, minimise="trees"), make_plan(V100, "broadcast", 0, minimise="depth")
    shallow.check()
    assert shallow.rate == few.rate and shallow.depth <= 4 < few.depth and len(shallow.trees) > len(few.trees)


@pytest.mark.parametrize("undirected", [True, False])
def test_all_spanning_trees_are_listed_once_with_their_depth(undirected):
    for seed in range(5):
        topo = small_machine(seed, 5, directed=not undirected)
        arcs = [(u, v, float(c)) for (u, v), c in sorted(topo.capacities().items()) if u < v or not undirected]
        listed = _core.spanning_trees(5, arcs, 0, undirected, 10_000, 0)
        expected = every_tree(topo, "allreduce" if undirected else "broadcast")
        chosen = {frozenset(arcs[i][:2] for i in range(len(arcs)) if mask >> i & 1) for mask, _ in listed}
        assert len(listed) == len(chosen) == len(expected)
        assert chosen == {frozenset(a for a in tree if a[0] < a[1] or not undirected) for tree in expected}
        for mask, depth in listed:
            tree = nx.Graph(arcs[i][:2] for i in range(len(arcs)) if mask >> i & 1)
            assert depth == (nx.radius(tree) if undirected else nx.eccentricity(tree, 0))
        some = _core.spanning_trees(5, arcs, 0, undirected, max(1, len(expected) // 2), 0)
        assert {mask for mask, _ in some} <= {mask for mask, _ in listed}


def test_determinants_of_small_matrices_are_the_largest_there_are():
    for size in (1, 2, 3):
        found = max(round(abs(np.linalg.det(np.array(cells).reshape(size, size)))) for cells in product((0, 1), repeat=size * size))
        assert found == largest_determinant(size)
    assert all(largest_determinant(n) <= ((n + 1) ** ((n + 1) / 2)) / 2**n + 1e-9 for n in range(1, 12))


def test_searches_give_the_same_trees_every_time():
    one, other = (make_plan(V100.subset([0, 1, 2, 3, 4, 5]), "allreduce", minimise=True, budget_s=10) for _ in range(2))
    assert one.trees == other.trees


@pytest.mark.parametrize(("collective", "root"), [("allreduce", None), ("broadcast", 0)])
def test_no_plan_of_a_front_beats_another_and_the_first_meets_the_bound(collective, root):
    front = bc.pareto(V100.subset([0, 1, 2, 3, 4]), collective, root=root, budget_s=4)
    assert front[0].optimal and isinstance(front[0], bc.Plan)
    for plan in front:
        plan.check()
        assert plan.tree_bound <= len(plan.trees)
    kinds = [(plan.rate, -len(plan.trees), -plan.depth) for plan in front]
    assert kinds == sorted(kinds, reverse=True)
    for a, b in combinations(kinds, 2):
        assert any(x < y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))
    widest = max(min(V100.capacities().values()), front[-1].rate)
    assert any(len(plan.trees) == 1 and plan.rate == widest for plan in front)


def test_switches_have_fronts_and_bounds_too():
    front = bc.pareto(star(4, 12), "allreduce", budget_s=2)
    assert front[0].rate == 8 and any(plan.rate == 8 and plan.depth == 1 for plan in front)
    assert min(len(plan.trees) for plan in front) == 1


def test_a_front_of_flows_is_refused():
    with pytest.raises(PackingError, match="has flows, not trees"):
        bc.pareto(V100, "alltoall")


def test_minimise_names_what_it_knows():
    with pytest.raises(PackingError, match="trees, depth, got 'width'"):
        make_plan(V100, "allreduce", minimise="width")
