"""Random machines: rates against independent linear programs and enumeration, and what must not change a rate."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import packing_oracles as oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from packing_fabrics import topology

from blinkcoll.errors import PackingError
from blinkcoll.packing import make_plan

COLLECTIVES = ("broadcast", "reduce", "allreduce", "allgather", "reducescatter", "gather", "scatter", "alltoall")
TREES = COLLECTIVES[:5]
CAPACITIES = st.sampled_from([Fraction(1), Fraction(2), Fraction(5), Fraction(76, 7), Fraction(1, 3)])


@st.composite
def machines(draw, max_ranks=5, max_switches=3, kinds=("symmetric", "circuits", "any")):
    """Symmetric links; sums of directed circuits (balanced everywhere, not symmetric); or anything at all."""
    nranks = draw(st.integers(2, max_ranks))
    switches = [f"s{i}" for i in range(draw(st.integers(0, max_switches)))]
    vertices, arcs = [*range(nranks), *switches], {}
    kind = draw(st.sampled_from(kinds))
    if kind == "circuits":
        for _ in range(draw(st.integers(1, 6))):
            circuit = draw(st.permutations(vertices))[: draw(st.integers(2, len(vertices)))]
            c = draw(CAPACITIES)
            for arc in pairwise([*circuit, circuit[0]]):
                arcs[arc] = arcs.get(arc, 0) + c
    else:
        for i, u in enumerate(vertices):
            for j, v in enumerate(vertices):
                if i != j and (kind == "any" or i < j) and draw(st.integers(0, 9)) < 6:
                    arcs[u, v] = draw(CAPACITIES)
                    if kind == "symmetric":
                        arcs[v, u] = arcs[u, v]
    return topology(nranks, arcs, switches)


def planned(topo, collective, **options):
    """A plan, checked; machines that the collective is not possible on are left out."""
    root = topo.nranks - 1 if collective in ("broadcast", "reduce", "gather", "scatter") else None
    try:
        plan = make_plan(topo, collective, root, **options)
    except PackingError as error:
        assume("nothing leads from" not in str(error))
        raise
    plan.check()
    return plan


@pytest.mark.parametrize("collective", COLLECTIVES)
@settings(max_examples=40, deadline=None, print_blob=True)
@given(topo=machines())
def test_the_rate_is_that_of_an_independent_linear_program(collective, topo):
    plan = planned(topo, collective)
    oracle = oracles.tree_rate if collective in TREES else oracles.flow_rate
    assert plan.rate == plan.bound
    assert float(plan.rate) == pytest.approx(oracle(topo, collective, plan.root), rel=1e-6)


@pytest.mark.parametrize("collective", TREES)
@settings(max_examples=30, deadline=None, print_blob=True)
@given(topo=machines(max_ranks=3, max_switches=2))
def test_the_rate_is_that_of_all_trees_enumerated(collective, topo):
    plan = planned(topo, collective)
    assert float(plan.rate) == pytest.approx(oracles.enumerated_rate(topo, collective, plan.root), rel=1e-6)


@pytest.mark.parametrize("collective", ["broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter"])
@settings(max_examples=25, deadline=None, print_blob=True)
@given(topo=machines(kinds=("symmetric", "circuits")))
def test_where_switches_are_balanced_the_rate_is_the_least_cut(collective, topo):
    plan = planned(topo, collective)
    assert float(plan.rate) == pytest.approx(oracles.cut_rate(topo, collective, plan.root))


@settings(max_examples=40, deadline=None, print_blob=True)
@given(topo=machines(max_ranks=6, max_switches=0, kinds=("symmetric",)))
def test_allreduce_on_symmetric_links_is_the_strength(topo):
    assert planned(topo, "allreduce").rate == oracles.strength(topo)


@pytest.mark.parametrize("collective", COLLECTIVES)
@settings(max_examples=15, deadline=None, print_blob=True)
@given(topo=machines(), data=st.data())
def test_renaming_ranks_changes_nothing(collective, topo, data):
    plan = planned(topo, collective)
    order = data.draw(st.permutations(range(topo.nranks)))
    other = replace(topo, devices=tuple(topo.devices[i] for i in order), links=tuple(reversed(topo.links)))
    root = None if plan.root is None else list(order).index(plan.root)
    again = make_plan(other, collective, root)
    again.check()
    assert again.rate == plan.rate


@pytest.mark.parametrize("collective", COLLECTIVES)
@settings(max_examples=15, deadline=None, print_blob=True)
@given(topo=machines(), factor=st.fractions(Fraction(1, 97), 10**6, max_denominator=97).filter(bool))
def test_scaling_capacities_scales_the_rate(collective, topo, factor):
    scaled = replace(topo, links=tuple(replace(link, capacity=link.capacity * factor) for link in topo.links))
    assert planned(scaled, collective).rate == factor * planned(topo, collective).rate


@pytest.mark.parametrize("collective", COLLECTIVES)
@settings(max_examples=15, deadline=None, print_blob=True)
@given(topo=machines(), data=st.data())
def test_a_faster_link_never_lowers_the_bound(collective, topo, data):
    before = planned(topo, collective)
    chosen = data.draw(st.integers(0, len(topo.links) - 1))
    links = [replace(link, capacity=link.capacity * 3) if i == chosen else link for i, link in enumerate(topo.links)]
    assert planned(replace(topo, links=tuple(links)), collective).bound >= before.bound


@settings(max_examples=20, deadline=None, print_blob=True)
@given(topo=machines())
def test_plans_are_deterministic(topo):
    shuffled = replace(topo, links=tuple(reversed(topo.links)))
    for collective in ("allreduce", "allgather", "alltoall"):
        one, other = planned(topo, collective), planned(shuffled, collective)
        assert (one.trees, one.flows, one.certificate) == (other.trees, other.flows, other.certificate)
