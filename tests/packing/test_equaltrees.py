"""Trees of one rate: as many as Nash-Williams and Tutte promise, edge-disjoint, within the budget asked for."""

from __future__ import annotations

from fractions import Fraction

import networkx as nx
import pytest
from allocations import classes, diagonals, name_of
from hypothesis import given, settings
from hypothesis import strategies as st

import blinkcoll as bc
from blinkcoll import _core


@pytest.mark.parametrize(("topology", "most"), diagonals(2, classes(), (4, 17)))
def test_equal_trees_are_right_and_as_fast_as_such_can_be(topology, most):
    exact = bc.plan(topology, "allreduce")
    lane = min(k.capacity for k in topology.restrict(["NVLINK"]).links)
    strength = exact.bound / lane
    best = max(Fraction(int(k * strength), k) for k in range(1, 40) if 1 <= int(k * strength) <= most)
    plan = bc.plan(topology, "allreduce", equal_trees=most)
    plan.check()
    plan.certificate.check(topology)
    assert plan.bound == exact.bound
    assert plan.rate == best * lane
    smallest = min(t.rate for t in plan.trees)
    assert all((t.rate / smallest).denominator == 1 for t in plan.trees), "equal trees with the same edges are merged"
    assert sum(t.rate / smallest for t in plan.trees) <= most or len(plan.trees) <= most


def test_roots_are_spread():
    plan = bc.plan(bc.load_topology("dgx1-v100"), "allreduce", equal_trees=17)
    unit = plan.rate / 17
    roots = [t.root for t in plan.trees for _ in range(int(t.rate / unit))]
    assert len(roots) == 17 and all(roots.count(rank) >= 2 for rank in range(8))


@pytest.mark.parametrize(
    ("layout", "collective", "most", "message"),
    [
        ("dgx1-v100", "broadcast", 8, "not for broadcast"), ("hgx-h100", "allreduce", 8, "without switches only"), ("dgx1-v100", "allreduce", 2, "equal_trees=2"),
        ("hgx-h100", "allgather", 8, "without switches only"), ("dgx1-v100", "reducescatter", 7, "each of the 8 ranks is the root of a tree"),
    ],
)
def test_what_cannot_be_had_is_refused(layout, collective, most, message):  # fmt: skip
    with pytest.raises(bc.PackingError, match=message):
        bc.plan(bc.load_topology(layout), collective, root=0 if collective == "broadcast" else None, equal_trees=most)


@pytest.mark.parametrize("topology", classes()[::4], ids=name_of)
@pytest.mark.parametrize("collective", ["allgather", "reducescatter"])
def test_equal_trees_from_every_root_are_as_fast_as_such_can_be(topology, collective):
    """By Edmonds' condition, checked with networkx: k trees from every root fit if each rank can be sent n k of them."""
    n, most = topology.nranks, 24
    capacity = {hop: c for hop, c in topology.restrict(["NVLINK"]).capacities().items()}
    arcs = {(v, u): c for (u, v), c in capacity.items()} if collective == "reducescatter" else capacity

    def fits(k, rate):
        graph = nx.DiGraph()
        graph.add_weighted_edges_from(((u, v, int(c / rate)) for (u, v), c in arcs.items()), "capacity")
        graph.add_weighted_edges_from((("source", v, k) for v in range(n)), "capacity")
        return all(nx.maximum_flow_value(graph, "source", v) == n * k for v in range(n))

    rates = {Fraction(c, m) for c in set(arcs.values()) for m in range(1, most + 1)}
    best = max(n * k * max(rate for rate in rates if fits(k, rate)) for k in range(1, most // n + 1))
    plan = bc.plan(topology, collective, equal_trees=most)
    plan.check()
    assert plan.rate == best <= plan.bound == bc.plan(topology, collective).bound
    shares = [sum(t.rate for t in plan.trees if t.root == root) for root in range(n)]
    smallest = min(t.rate for t in plan.trees)
    assert len(set(shares)) == 1 and all((t.rate / smallest).denominator == 1 for t in plan.trees)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), n=st.integers(2, 6), k=st.integers(1, 4))
def test_forests_of_random_multigraphs(data, n, k):
    """k edge-disjoint spanning trees are found exactly when every partition is crossed often enough (Tutte 1961)."""
    pairs = [(u, v) for u in range(n) for v in range(u + 1, n)]
    edges = [pair for pair in pairs for _ in range(data.draw(st.integers(0, 3)))]
    trees = _core.pack_forests(n, k, edges)
    used = [tuple(sorted(edge)) for tree in trees for edge in tree]
    assert all(used.count(edge) <= edges.count(edge) for edge in set(used))
    for tree in trees:
        graph = nx.Graph(tree)
        assert graph.number_of_nodes() == n and nx.is_tree(graph)
    promised = all(
        sum(1 for u, v in edges if part[u] != part[v]) >= k * (max(part) if part else 0) for part in _partitions(n)
    )
    assert (len(trees) == k) == promised


def _partitions(n: int) -> list[list[int]]:
    """Every partition of n vertices as the number of each one's part; parts are numbered in order of appearance."""
    found = [[0]]
    for _ in range(n - 1):
        found = [[*p, part] for p in found for part in range(max(p) + 2)]
    return found
