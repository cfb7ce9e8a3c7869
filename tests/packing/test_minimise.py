"""Fewer trees on request: valid, exact, within what was asked, and never worse than without asking."""

from fractions import Fraction

import pytest
from packing_fabrics import star, topology

from blinkcoll.errors import PackingError
from blinkcoll.packing import make_plan
from blinkcoll.topology import load_topology

V100 = load_topology("dgx1-v100").restrict(["NVLINK"])
LOPSIDED = topology(3, {(0, 1): 3, (1, 0): 1, (1, 2): 2, (2, 1): 2, (0, 2): 1, (2, 0): 4})


@pytest.mark.parametrize(("collective", "root"), [("allreduce", None), ("broadcast", 0), ("reduce", 3), ("allgather", None), ("reducescatter", None)])
def test_minimising_keeps_the_rate(collective, root):
    topo = V100.subset([0, 1, 2, 3, 4])
    plain, few = make_plan(topo, collective, root), make_plan(topo, collective, root, minimise=True, budget_s=1)
    few.check()
    assert few.rate == few.bound
    assert len(few.trees) <= len(plain.trees)


def test_a_tolerance_bounds_what_is_given_up():
    few = make_plan(V100, "allreduce", tolerance="1/20", budget_s=1)
    few.check()
    assert few.rate >= few.bound * Fraction(19, 20)
    assert len(few.trees) < len(make_plan(V100, "allreduce").trees)
    assert few.gap == 1 - few.rate / few.bound


@pytest.mark.parametrize(("most", "lanes"), [(1, 2), (2, 3)])
def test_few_trees_reach_what_few_trees_can(most, lanes):
    """The double lanes of the eight V100s form a ring: one tree along it carries two lanes' worth, two trees three."""
    plan = make_plan(V100, "allreduce", max_trees=most, budget_s=2)
    plan.check()
    assert len(plan.trees) <= most
    assert plan.rate >= lanes * 20
    assert not plan.optimal and plan.method == "approximate"


def test_a_plan_with_few_enough_trees_is_kept():
    assert make_plan(V100, "broadcast", 0, max_trees=6) == make_plan(V100, "broadcast", 0)


def test_asymmetric_links_and_switches_can_be_asked_too():
    for topo in (LOPSIDED, star(4)):
        plan = make_plan(topo, "allreduce", minimise=True, budget_s=0.5)
        plan.check()
        assert plan.optimal


def test_results_do_not_depend_on_chance():
    one, other = (make_plan(V100.subset([0, 1, 2, 3]), "allreduce", minimise=True) for _ in range(2))
    assert one.trees == other.trees


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"collective": "allgather", "max_trees": 5}, "a tree for each of the 8 ranks"),
        ({"collective": "allreduce", "max_trees": 0}, "positive number"),
        ({"collective": "allreduce", "max_trees": 2.5}, "positive number"),
        ({"collective": "allreduce", "tolerance": 1}, "0 <= tolerance < 1"),
        ({"collective": "allreduce", "tolerance": "much"}, "0 <= tolerance < 1"),
        ({"collective": "alltoall", "minimise": True}, "has flows, not trees"),
    ],
)
def test_impossible_wishes_are_refused(options, message):
    with pytest.raises(PackingError, match=message):
        make_plan(V100, **options)
