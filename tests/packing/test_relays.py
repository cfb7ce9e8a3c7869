"""Relays that copy and add: the rate against all Steiner trees enumerated, the proof, and plans that break a rule."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, pairwise, permutations, product

import networkx as nx
import pytest
from allocations import diagonals
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_oracles import Model

import blinkcoll as bc
from blinkcoll.errors import PackingError
from blinkcoll.packing.prices import tree_costs
from blinkcoll.topology import Device, Link, Switch, Topology

TREES = ("broadcast", "reduce", "allreduce", "allgather", "reducescatter")


def machine(nranks, nrelays, capacity, switches=()):
    """``capacity`` names vertices by number: ranks, relays, then switches by name."""
    devices = tuple(Device(f"gpu{i}", index=i) for i in range(nranks + nrelays))
    name = lambda v: v if isinstance(v, str) else f"gpu{v}"  # noqa: E731
    links = tuple(Link(name(u), name(v), "NVLINK", Fraction(c)) for (u, v), c in capacity.items())
    whole = Topology("random", devices, tuple(Switch(s, "nvswitch") for s in switches), links)
    return whole.subset(range(nranks), relays=range(nranks, nranks + nrelays))


def ways(topology):
    """Every way from device to device: direct links, and simple paths through switches."""
    graph = nx.DiGraph(list(topology.capacities()))
    actors = [*range(topology.nranks), *(d.name for d in topology.relays)]
    found = {}
    for a, b in permutations(actors, 2):
        inner = graph.subgraph([v for v in graph if v in (a, b) or v not in actors])
        if a in inner and b in inner:
            found[a, b] = [tuple(path) for path in nx.all_simple_paths(inner, a, b)]
    return found


def steiner_trees(topology, root):
    """Every tree away from the root that reaches all ranks, with any of the relays, none of them a leaf."""
    all_ways, relays = ways(topology), [d.name for d in topology.relays]
    for k in range(len(relays) + 1):
        for used in combinations(relays, k):
            others = [r for r in range(topology.nranks) if r != root] + list(used)
            choices = [[path for a in (root, *others) for path in all_ways.get((a, b), ())] for b in others]
            for paths in product(*choices):
                parent = {path[-1]: path[0] for path in paths}
                if set(used) <= set(parent.values()) and all(reaches(v, root, parent) for v in others):
                    yield paths


def reaches(v, root, parent):
    for _ in range(len(parent) + 1):
        if v == root:
            return True
        v = parent[v]
    return False


def backwards(topology):
    links = tuple(replace(link, src=link.dst, dst=link.src) for link in topology.links)
    return replace(topology, links=links, parent=None)


def enumerated_rate(topology, collective, root):
    """The linear program over all trees, in floats."""
    model, load = Model(), {}

    def add(paths, variable, reverse=False):
        for path in paths:
            for u, v in pairwise(path):
                arc = (v, u) if reverse else (u, v)
                load.setdefault(arc, {}).setdefault(variable, 0.0)
                load[arc][variable] += 1.0

    up = collective in ("reduce", "reducescatter")
    at = backwards(topology) if up else topology
    if collective == "allreduce":
        for r in range(topology.nranks):
            ups = list(steiner_trees(backwards(topology), r))
            for down in steiner_trees(topology, r):
                for rising in ups:
                    variable = model.variable(1.0)
                    add(down, variable)
                    add(rising, variable, reverse=True)
    elif root is not None:
        for tree in steiner_trees(at, root):
            add(tree, model.variable(1.0), reverse=up)
    else:
        rate = model.variable(1.0)
        for r in range(topology.nranks):
            row = {rate: -1.0 / topology.nranks}
            for tree in steiner_trees(at, r):
                variable = model.variable()
                row[variable] = 1.0
                add(tree, variable, reverse=up)
            model.row(row, 0, 0)
    for arc, used in load.items():
        model.row(used, high=float(topology.capacities()[arc]))
    return model.maximum()


@st.composite
def machines(draw):
    nranks, nrelays = draw(st.sampled_from([(2, 1), (2, 2), (3, 1)]))
    vertices = [*range(nranks + nrelays), *(["nvs"] if draw(st.booleans()) else [])]
    symmetric = draw(st.booleans())
    capacity = {}
    for u, v in combinations(vertices, 2):
        one, two = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        for arc, c in (((u, v), one), ((v, u), one if symmetric else two)):
            if c:
                capacity[arc] = c
    return machine(nranks, nrelays, capacity, ["nvs"] if "nvs" in vertices else [])


@settings(max_examples=60, deadline=None)
@given(machines(), st.sampled_from(TREES), st.integers(0, 1))
def test_the_rate_is_that_of_all_steiner_trees_enumerated(topology, collective, root):
    at = root if collective in ("broadcast", "reduce") else None
    try:
        plan = bc.plan(topology, collective, root=at, budget_s=60)
    except PackingError as error:
        assert "nothing leads" in str(error)
        return
    plan.check()
    assert plan.optimal and float(plan.rate) == pytest.approx(enumerated_rate(topology, collective, at), rel=1e-6)


DGX1 = bc.load_topology("dgx1-v100")
BORROWED = [
    DGX1.subset([0, 1], relays=[2, 3]),
    DGX1.subset([0, 1, 4], relays=[2, 3, 5, 6, 7]),
    DGX1.subset([0, 1, 4, 5, 6], relays=[2, 3, 7]),
    DGX1.subset([0, 1, 2, 3, 4, 5, 6], relays=[7]),
    bc.load_topology("dgx1-p100").subset([0, 6], relays=[2, 4]),
    bc.load_topology("dgx-a100").subset([0, 1, 2], relays=[3]),
]


@pytest.mark.parametrize(("topology", "collective"), diagonals(2, BORROWED, tuple(TREES)))
def test_relays_never_slow_a_plan_down_and_cuts_bound_it(topology, collective):
    root = 0 if collective in ("broadcast", "reduce") else None
    plan = bc.plan(topology, collective, root=root, budget_s=60)
    plan.check()
    plan.certificate.check(topology)
    assert plan.optimal
    alone = topology.parent.subset([d.index for d in topology.devices])
    try:
        assert plan.rate >= bc.plan(alone, collective, root=root, links=plan.links).rate
    except PackingError:
        assert "NVLINK" in plan.links, "only the relays join these ranks over NVLink"
    if collective == "broadcast":
        graph = nx.DiGraph()
        for (u, v), c in topology.restrict(plan.links).capacities().items():
            graph.add_edge(u, v, capacity=float(c))
        assert float(plan.rate) <= min(nx.maximum_flow_value(graph, 0, r) for r in range(1, topology.nranks)) + 1e-9


def test_borrowed_neighbours_make_a_v100_pair_four_times_as_fast():
    """One link of its own (20 GB/s), one way over each neighbour, one over both."""
    assert bc.plan(DGX1.subset([0, 1]), "allreduce").rate == 20
    assert bc.plan(DGX1.subset([0, 1], relays=[2, 3]), "allreduce").rate == 80


def test_a_relay_adds_up_and_copies():
    """Two ranks behind one relay: its link to the root carries their sum once, not twice."""
    for collective, arcs in (("reduce", [(1, 3), (2, 3), (3, 0)]), ("broadcast", [(0, 3), (3, 1), (3, 2)])):
        star = machine(3, 1, dict.fromkeys(arcs, 1))
        assert bc.plan(star, collective, root=0).rate == 1
        forwarding = replace(star, relays=(), switches=(Switch("gpu3", "nvswitch"),))
        assert bc.plan(forwarding, collective, root=0).rate == Fraction(1, 2)


def test_trees_may_fall_short_of_every_cut_and_the_prices_prove_it():
    """The network of Agarwal and Charikar's smallest gap: coding could reach the cut of 2, trees reach 1.5 or more, not 2."""
    butterfly = {(0, 3): 1, (0, 4): 1, (3, 1): 1, (4, 2): 1, (3, 5): 1, (4, 5): 1, (5, 6): 1, (6, 1): 1, (6, 2): 1}
    topology = machine(3, 4, butterfly)
    plan = bc.plan(topology, "broadcast", root=0)
    plan.check()
    graph = nx.DiGraph()
    for (u, v), c in topology.capacities().items():
        graph.add_edge(u, v, capacity=float(c))
    assert min(nx.maximum_flow_value(graph, 0, r) for r in (1, 2)) == 2
    assert plan.rate == plan.bound == Fraction(3, 2)


@pytest.mark.parametrize("seed", range(8))
def test_the_proofs_tree_costs_are_those_of_trees_enumerated(seed):
    import random

    draw = random.Random(seed)
    topology = machine(3, 1, {(u, v): 1 for u, v in permutations(range(4), 2) if draw.random() < 0.8} | {(0, 1): 1, (1, 2): 1, (2, 0): 1})
    price = {arc: draw.randrange(5) for arc in topology.capacities()}
    relays = [d.name for d in topology.relays]
    cheapest = [min(sum(price[hop] for path in tree for hop in pairwise(path)) for tree in steiner_trees(topology, r)) for r in range(3)]
    assert tree_costs(price, 3, relays) == cheapest


def _broken(plan):
    """Plans and what is wrong with them."""
    tree = next(t for t in plan.trees if any(isinstance(path[0], str) for path in t.down))
    others = tuple(t for t in plan.trees if t is not tree)
    relay_path = next(path for path in tree.down if isinstance(path[-1], str))
    onward = next(path for path in tree.down if path[0] == relay_path[-1])

    def with_down(*paths):
        return replace(plan, trees=(*others, replace(tree, down=tuple(paths))))

    yield "is a leaf", with_down(*(p for p in tree.down if p != onward), (0, 1))
    yield "not connected", with_down(*(p for p in tree.down if p != relay_path))
    yield "at which it has to end", with_down(*(p for p in tree.down if p not in (relay_path, onward)), (*relay_path, *onward[1:]))
    yield "two parents", with_down(*tree.down, (0, 1))
    certificate = plan.certificate
    yield "the links give", replace(plan, certificate=replace(certificate, prices=tuple((u, v, 2 * p if i else p) for i, (u, v, p) in enumerate(certificate.prices))))
    yield "belongs to no link", replace(plan, certificate=replace(certificate, prices=(*certificate.prices, (0, 99, Fraction(1)))))


@pytest.mark.parametrize("case", range(6))
def test_plans_that_break_a_rule_are_refused(case):
    plan = bc.plan(DGX1.subset([0, 1], relays=[2, 3]), "broadcast", root=0)
    message, broken = list(_broken(plan))[case]
    with pytest.raises(PackingError, match=message):
        broken.check()


def test_a_proof_for_relays_that_only_forward_does_not_bound_those_that_act():
    topology = DGX1.subset([0, 1], relays=[2, 3])
    plan = bc.plan(topology, "allreduce")
    alone = bc.plan(DGX1.subset([0, 1]), "allreduce")
    with pytest.raises(PackingError, match="does not bound"):
        replace(plan, certificate=replace(alone.certificate, bound=plan.bound)).check()


def test_too_many_ranks_for_relays_are_refused():
    topology = bc.load_topology("dgx2").subset(range(11), relays=[15])
    with pytest.raises(PackingError, match="up to 10 ranks, there are 11"):
        bc.plan(topology, "allreduce")
    with pytest.raises(PackingError, match="not with relays"):
        bc.plan(DGX1.subset([0, 1], relays=[2, 3]), "allreduce", equal_trees=4)


def test_few_trees_with_relays():
    topology = DGX1.subset([0, 1, 4, 5, 6], relays=[2, 3, 7])
    plan = bc.plan(topology, "allreduce", max_trees=6, budget_s=1)
    plan.check()
    assert len(plan.trees) <= 6 and plan.rate >= Fraction(85, 2)


@pytest.mark.parametrize("collective", TREES)
@pytest.mark.parametrize("method", ["auto", "hybrid"])
def test_out_of_time_a_plan_still_states_a_proven_gap(collective, method):
    root = 0 if collective in ("broadcast", "reduce") else None
    plan = bc.plan(DGX1.subset([0, 1, 4, 5], relays=[2, 3, 6]), collective, root=root, method=method, budget_s=0)
    plan.check()
    assert 0 < plan.rate <= plan.bound and 0 <= plan.gap < 1
