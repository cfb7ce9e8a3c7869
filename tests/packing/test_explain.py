"""What is said about a plan holds: the limit adds up to the bound, idle links are idle, the GPU named really gives that rate."""

from fractions import Fraction

import pytest
from packing_fabrics import star, topology

from blinkcoll.packing import make_plan
from blinkcoll.packing.explain import explain_plan, spare_links, what_limits
from blinkcoll.topology import load_topology


def explained(name, gpus, collective="allreduce", root=None, **options):
    whole = load_topology(name)
    topo = whole.subset(gpus) if gpus else whole
    return whole, explain_plan(make_plan(topo, collective, root, **options), budget_s=60)


def rate_with(whole, gpus, device, role, collective, root):
    ranks, relays = ([*gpus, device], []) if role == "rank" else (gpus, [device])
    return make_plan(whole.subset(ranks, relays=relays), collective, root).rate


@pytest.mark.parametrize(
    ("name", "gpus", "collective", "root"),
    [("dgx1-v100", [0, 1, 4], "allreduce", None), ("dgx1-v100", [0, 1, 2, 3, 4], "allreduce", None), ("dgx1-p100", [0, 1, 5], "broadcast", 1), ("a100-pcie-nvbridge", [0, 1, 2], "allreduce", None)],
)  # fmt: skip
def test_the_gpu_named_gives_the_rate_named_and_no_other_gives_more(name, gpus, collective, root):
    whole, facts = explained(name, gpus, collective, root)
    assert facts.untried == 0 and facts.machine == name
    claimed = {(gain.index, gain.role): gain.rate for gain in facts.gains}
    for device in whole.devices:
        if device.index in gpus:
            assert (device.index, "rank") not in claimed
            continue
        for role in ("rank", "relay"):
            rate = rate_with(whole, gpus, device.index, role, collective, root)
            assert claimed.get((device.index, role), facts.plan.rate) == max(rate, facts.plan.rate)
    assert [gain.rate for gain in facts.gains] == sorted((gain.rate for gain in facts.gains), reverse=True)


def test_three_gpus_of_a_dgx1_are_limited_by_one_link():
    _, facts = explained("dgx1-v100", [0, 1, 4])
    (limit,) = facts.limits
    assert (limit.form, limit.times, set(limit.sides)) == ("partition", 1, {frozenset({1}), frozenset({0, 2})})
    assert {(c.src, c.dst) for c in limit.crossing} == {(0, 1), (1, 0)} and limit.capacity == 40
    assert {(s.link.src, s.link.dst, s.reason) for s in facts.spare} == {(0, 2, "one side"), (2, 0, "one side")}
    assert facts.unused.kinds == ("PCIE", "CPU") and facts.unused.bound_all == facts.plan.bound_all
    assert facts.gains[0].rate == 40 and facts.gains[0].role == "rank"


@pytest.mark.parametrize("collective", ["broadcast", "reduce"])
def test_a_cuts_links_carry_the_bound_and_links_at_the_root_are_told_apart(collective):
    plan = make_plan(load_topology("dgx1-v100").subset([0, 1, 2, 3]), collective, 0)
    (limit,) = what_limits(plan)
    assert limit.form == "cut" and limit.capacity == plan.bound
    assert all(link.load == link.capacity for link in limit.crossing)
    spare = spare_links(plan, (limit,))
    end = 1 if collective == "broadcast" else 0
    assert {s.reason for s in spare if (s.link.src, s.link.dst)[end] == 0} == {"root"}
    assert all(s.reason != "root" for s in spare if (s.link.src, s.link.dst)[end] != 0)


def test_a_plan_below_the_bound_leaves_the_cut_unfilled():
    plan = make_plan(load_topology("dgx1-v100"), "allreduce", max_trees=1)
    assert "unneeded" in {s.reason for s in spare_links(plan, what_limits(plan))}


def test_crossing_links_prove_the_bound_of_a_partition():
    for topo in (load_topology("dgx1-v100"), star(5, 10)):
        plan = make_plan(topo, "allreduce")
        (limit,) = what_limits(plan)
        inside = set().union(*limit.sides)
        total = sum(c.capacity if {c.src, c.dst} <= inside else c.capacity / 2 for c in limit.crossing)
        assert total == 2 * limit.times * plan.bound


def test_weighted_cuts_and_lengths_are_told_as_such():
    uneven = topology(3, {(0, "s"): 1, ("s", 1): 1, ("s", 2): 1}, ["s"])
    cuts = what_limits(make_plan(uneven, "broadcast", 0))
    assert {limit.form for limit in cuts} == {"weighted cut"} and len(cuts) > 1
    (lengths,) = what_limits(make_plan(load_topology("dgx1-v100"), "alltoall"))
    assert lengths.form == "lengths" and lengths.crossing and not lengths.sides


def test_a_whole_machine_has_no_further_gpu():
    _, facts = explained("dgx1-p100", None)
    assert facts.machine is None and facts.gains == () and facts.untried == 0


def test_gpus_that_there_was_no_time_for_are_counted():
    topo = load_topology("dgx1-v100").subset([0, 1, 4])
    facts = explain_plan(make_plan(topo, "allreduce"), budget_s=-1)
    assert facts.untried == 5 and facts.gains == ()
    assert facts.plan.rate == Fraction(20)
