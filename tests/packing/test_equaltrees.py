"""Trees of one rate: as many as Nash-Williams and Tutte promise, edge-disjoint, within the budget asked for."""

from __future__ import annotations

from fractions import Fraction

import networkx as nx
import pytest
from allocations import classes, name_of
from hypothesis import given, settings
from hypothesis import strategies as st

import blinkcoll as bc
from blinkcoll import _core


@pytest.mark.parametrize("topology", classes(), ids=name_of)
@pytest.mark.parametrize("most", [4, 17])
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
    [("dgx1-v100", "broadcast", 8, "allreduce only"), ("hgx-h100", "allreduce", 8, "without switches only"), ("dgx1-v100", "allreduce", 2, "equal_trees=2")],
)
def test_what_cannot_be_had_is_refused(layout, collective, most, message):
    with pytest.raises(bc.PackingError, match=message):
        bc.plan(bc.load_topology(layout), collective, root=0 if collective == "broadcast" else None, equal_trees=most)


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
