"""Cheapest trees without relays: what networkx finds, on symmetric costs and on others."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkcoll.errors import PackingError
from blinkcoll.packing.steiner import cheapest_trees


def check(n, ways, best):
    for root, branches in cheapest_trees(range(n), n, range(n), ways).items():
        assert [b for _, b in branches] == list(dict.fromkeys(b for _, b in branches)) and len(branches) == n - 1
        reached = {root}
        for a, b in branches:  # parents first
            assert a in reached and b not in reached
            reached.add(b)
        assert sum(ways[branch][0] for branch in branches) == best(root)


@given(st.integers(2, 7).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, 5), min_size=n * n, max_size=n * n))))
def test_on_symmetric_costs_it_is_a_minimum_spanning_tree(drawn):
    n, costs = drawn
    ways = {(a, b): (costs[min(a, b) * n + max(a, b)], (a, b)) for a in range(n) for b in range(n) if a != b}
    graph = nx.Graph()
    graph.add_weighted_edges_from((a, b, cost) for (a, b), (cost, _) in ways.items())
    least = nx.minimum_spanning_tree(graph).size("weight")
    check(n, ways, lambda root: least)


@given(st.integers(2, 6).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, 5), min_size=n * n, max_size=n * n))))
def test_on_other_costs_it_is_a_minimum_arborescence(drawn):
    n, costs = drawn
    ways = {(a, b): (costs[a * n + b], (a, b)) for a in range(n) for b in range(n) if a != b}

    def best(root):
        graph = nx.DiGraph()
        graph.add_weighted_edges_from((a, b, cost) for (a, b), (cost, _) in ways.items() if b != root)
        return nx.minimum_spanning_arborescence(graph).size("weight")

    check(n, ways, best)


def test_ranks_that_no_way_leads_to_are_told():
    with pytest.raises(PackingError, match="no permitted way leads from rank 0"):
        cheapest_trees(range(3), 3, [0], {(0, 1): (1, (0, 1)), (1, 0): (1, (1, 0))})
