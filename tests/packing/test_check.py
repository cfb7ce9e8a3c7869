"""What check() refuses: each test breaks one thing of a valid plan or proof."""

from dataclasses import replace
from fractions import Fraction

import pytest
from packing_fabrics import both, star, topology

from blinkcoll.errors import PackingError
from blinkcoll.packing import Flow, make_plan

SQUARE = topology(4, both({(0, 1): 4, (1, 2): 3, (2, 3): 4, (3, 0): 3, (0, 2): 1}))
LOPSIDED = topology(3, {(0, 1): 3, (1, 0): 1, (1, 2): 2, (2, 1): 2, (0, 2): 1, (2, 0): 4})


def with_tree(plan, **changes):
    return replace(plan, trees=(replace(plan.trees[0], **changes), *plan.trees[1:]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: replace(p, trees=p.trees[1:]), "add up to"),
        (lambda p: with_tree(p, rate=p.trees[0].rate * 2, weight=p.trees[0].weight * 2), "carries|add up"),
        (lambda p: with_tree(p, weight=p.trees[0].weight / 2), "do not fit"),
        (lambda p: with_tree(p, down=p.trees[0].down[1:]), "not connected"),
        (lambda p: with_tree(p, down=(*p.trees[0].down, p.trees[0].down[0])), "two parents"),
        (lambda p: with_tree(p, down=((1, 2), (2, 1), (0, 3))), "not connected"),
        (lambda p: with_tree(p, down=((0, 1), (1, 2), (1, 3))), "1->3 carries"),
        (lambda p: with_tree(p, down=((0, 1), (0, 1, 2), (0, 3))), "passes a rank"),
        (lambda p: with_tree(p, up=((1, 0),)), "up half"),
        (lambda p: with_tree(p, down=None), "down half"),
        (lambda p: with_tree(p, root=1, down=((1, 0), (1, 2), (0, 3))), "rooted at rank 1"),
        (lambda p: replace(p, rate=p.rate / 2), "do not fit|add up"),
        (lambda p: replace(p, bound=p.bound + 1, bound_all=p.bound_all + 1), "disagree"),
        (lambda p: replace(p, bound_all=p.bound / 2), "disagree"),
        (lambda p: replace(p, certificate=replace(p.certificate, bound=p.bound * 2), bound=p.bound * 2, bound_all=p.bound * 2), "claims"),
        (lambda p: replace(p, flows=(Flow(0, 1, Fraction(1), (0, 1)),)), "not flows"),
    ],
)  # fmt: skip
def test_a_broken_broadcast_is_refused(spoil, message):
    plan = make_plan(SQUARE, "broadcast", root=0)
    plan.check()
    with pytest.raises(PackingError, match=message):
        spoil(plan).check()


def test_a_tree_may_not_use_more_than_a_link_carries():
    plan = make_plan(SQUARE, "broadcast", root=0)
    slower = replace(plan.topology, links=tuple(replace(k, capacity=k.capacity / 2) for k in plan.topology.links))
    with pytest.raises(PackingError, match="its capacity is"):
        replace(plan, topology=slower).check()


def test_roots_of_an_allgather_carry_equal_shares():
    plan = make_plan(SQUARE, "allgather")
    first, second = (next(t for t in plan.trees if t.root == root) for root in (0, 1))
    moved = min(first.rate, second.rate) / 2
    changed = {first: first.rate + moved, second: second.rate - moved}
    trees = tuple(replace(t, rate=changed.get(t, t.rate), weight=changed.get(t, t.rate) / plan.rate) for t in plan.trees)
    with pytest.raises(PackingError, match="is the root of"):
        replace(plan, trees=trees).check()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: replace(p, flows=p.flows[1:]), "expected"),
        (lambda p: replace(p, flows=(replace(p.flows[0], path=p.flows[0].path[::-1]), *p.flows[1:])), "malformed"),
        (lambda p: replace(p, flows=(replace(p.flows[0], rate=Fraction(0)), *p.flows[1:])), "malformed"),
        (lambda p: replace(p, flows=(*p.flows, Flow(1, 2, Fraction(1), (1, 2)))), "no pair 1->2"),
    ],
)
def test_a_broken_scatter_is_refused(spoil, message):
    plan = make_plan(SQUARE, "scatter", root=0)
    plan.check()
    with pytest.raises(PackingError, match=message):
        spoil(plan).check()


def test_a_cut_with_the_root_inside_proves_nothing():
    certificate = make_plan(SQUARE, "broadcast", root=0).certificate
    with pytest.raises(PackingError, match="root 0 is inside"):
        replace(certificate, inside=frozenset({0, 1})).check(SQUARE)


def test_a_cut_proves_nothing_about_another_collective():
    certificate = make_plan(SQUARE, "allgather").certificate
    with pytest.raises(PackingError, match="does not bound"):
        replace(certificate, collective="alltoall").check(SQUARE)


def test_parts_must_be_a_partition():
    certificate = make_plan(SQUARE, "allreduce").certificate
    certificate.check(SQUARE)
    with pytest.raises(PackingError, match="do not cover"):
        replace(certificate, parts=certificate.parts[1:]).check(SQUARE)
    with pytest.raises(PackingError, match="in two parts"):
        replace(certificate, parts=(*certificate.parts, certificate.parts[0])).check(SQUARE)
    with pytest.raises(PackingError, match="holds no rank"):
        replace(certificate, parts=(*certificate.parts, frozenset())).check(SQUARE)


def test_weighted_cuts_must_be_paid_by_every_byte():
    certificate = make_plan(LOPSIDED, "allreduce").certificate
    certificate.check(LOPSIDED)
    with pytest.raises(PackingError, match="says nothing"):
        replace(certificate, cuts=(*certificate.cuts, ("down", frozenset({0}), Fraction(-1)))).check(LOPSIDED)
    with pytest.raises(PackingError, match="pay nothing"):
        replace(certificate, cuts=()).check(LOPSIDED)
    with pytest.raises(PackingError, match="merely forward"):
        replace(certificate, potentials=(("down", 1, Fraction(1)),)).check(LOPSIDED)
    with pytest.raises(PackingError, match="claims"):
        replace(certificate, bound=certificate.bound - Fraction(1, 10**9)).check(LOPSIDED)


def test_lengths_must_be_lengths_of_links():
    certificate = make_plan(SQUARE, "alltoall").certificate
    certificate.check(SQUARE)
    with pytest.raises(PackingError, match="negative or belongs to no link"):
        replace(certificate, lengths=(*certificate.lengths, (1, 3, Fraction(1)))).check(SQUARE)
    with pytest.raises(PackingError, match="no pair has to travel"):
        replace(certificate, lengths=()).check(SQUARE)


def test_a_certificate_speaks_of_one_topology():
    plan = make_plan(star(4), "allgather")
    with pytest.raises(PackingError, match="claims"):
        plan.certificate.check(star(4, 50))
