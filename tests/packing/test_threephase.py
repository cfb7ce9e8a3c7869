"""Three-phase plans: their optimum by other means, what check() refuses, and the clusters of the paper."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import boxes, joined
from threephase_oracle import enumerated_three_phase_rate, three_phase_rate

import blinkcoll as bc
from blinkcoll.packing import make_plan
from blinkcoll.topology import load_topology

COLLECTIVES = ("allreduce", "broadcast", "reduce")


def plan_of(topology, collective, root=None, **options):
    plan = make_plan(topology, collective, root=root, method="three-phase", **options)
    plan.check()
    assert plan.method == "three-phase" and plan.partitions and not plan.trees and not plan.flows
    assert plan.rate <= plan.bound and plan.gap == 1 - plan.rate / plan.bound
    return plan


def roots(collective, nranks):
    return [None] if collective == "allreduce" else [0, nranks - 1]


# -- the optimum -------------------------------------------------------------------------------------------------------

TINY = {
    "2+2": boxes([2, 2], nics=1),
    "2+2, two NICs": boxes([2, 2], nics=2, rate=5),
    "2+2, no NVLink": boxes([2, 2], nvlink=0, nics=1),
    "1+3": boxes([1, 3], nics=1, rate=30),
    "3+1, slow inside": boxes([3, 1], nvlink=3, pcie=7, rate=9),
    "1+1+2": boxes([1, 1, 2], rate=5, nvlink=3),
    "1+2+1, unlike": boxes([1, 2, 1], nvlink=4, nics=[1, 2, 1], rate=[9, 4, 3], pcie=[12, 6, 5]),
    "2+2, unlike": boxes([2, 2], nvlink=[20, 5], pcie=[12, 8], nics=[2, 1], rate=[4, 9]),
}


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("name", TINY)
def test_tiny_clusters_reach_the_best_of_all_structures(name, collective):
    topology = TINY[name]
    for root in roots(collective, topology.nranks):
        best = enumerated_three_phase_rate(topology, collective, root)
        assert float(plan_of(topology, collective, root, local="all").rate) == pytest.approx(best, rel=1e-6)
        assert three_phase_rate(topology, collective, root) == pytest.approx(best, rel=1e-6), "the two oracles agree"


CASES = {
    "2+1+3": (boxes([2, 1, 3], nics=[1, 2, 1]), ["NVLINK"]),
    "3+3+3": (boxes([3, 3, 3], nvlink=4, rate=10, nics=2), ["NVLINK"]),
    "no NVLink": (boxes([2, 3, 2], nvlink=0), None),
    "two DGX-1s, 3+5": (load_topology("dgx1-v100*2@12.5").subset([0, 1, 4, 8, 9, 10, 11, 12]), ["NVLINK"]),
    "two DGX-1s without NVLink inside one": (load_topology("dgx1-v100*2@12.5").subset([0, 5, 8, 9]), None),
    "P100s and V100s": (joined(load_topology("dgx1-p100*1@5").subset([0, 1, 2, 3]), load_topology("dgx1-v100*1@5").subset([0, 1, 4])), ["NVLINK"]),
    "H100s": (load_topology("hgx-h100*2@50").subset([0, 1, 2, 8, 9]), ["NVLINK"]),
}


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("name", CASES)
def test_the_rate_is_the_optimum_of_the_form(name, collective):
    topology, local = CASES[name]
    for root in roots(collective, topology.nranks):
        if name != "two DGX-1s without NVLink inside one":
            assert float(plan_of(topology, collective, root).rate) == pytest.approx(three_phase_rate(topology, collective, root, local), rel=1e-6)
        assert float(plan_of(topology, collective, root, local="all").rate) == pytest.approx(three_phase_rate(topology, collective, root), rel=1e-6)


NUMBERS = st.integers(1, 30)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=2, max_size=3), nvlink=st.lists(st.integers(0, 20), min_size=3, max_size=3), pcie=st.lists(NUMBERS, min_size=3, max_size=3),
    nics=st.lists(st.integers(1, 2), min_size=3, max_size=3), rate=st.lists(NUMBERS, min_size=3, max_size=3), collective=st.sampled_from(COLLECTIVES), data=st.data(),
)  # fmt: skip
def test_random_clusters_reach_the_optimum(sizes, nvlink, pcie, nics, rate, collective, data):
    n = len(sizes)
    topology = boxes(sizes, nvlink=nvlink[:n], pcie=pcie[:n], nics=nics[:n], rate=rate[:n])
    root = None if collective == "allreduce" else data.draw(st.integers(0, topology.nranks - 1))
    plan = plan_of(topology, collective, root, local="all")
    assert float(plan.rate) == pytest.approx(three_phase_rate(topology, collective, root), rel=1e-6)
    assert plan.rate <= make_plan(topology, collective, root=root).rate, "a three-phase plan is a flat one"


def test_trays_around_an_nvswitch_are_servers_too():
    """What joins a tray's GPUs without the switch is their CPUs; the rest goes over the switch."""
    topology = load_topology("gb200-nvl72").subset([0, 1, 4, 5, 6])
    with pytest.raises(bc.PackingError, match="inside server 0 nothing joins rank 1"):
        make_plan(topology, "allreduce", method="three-phase")
    assert float(plan_of(topology, "allreduce", links="all").rate) == pytest.approx(three_phase_rate(topology, "allreduce", local=["CPU"]), rel=1e-6)


# -- known points ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("servers", "nic", "allreduce", "broadcast"), [
    (2, "1", 4, 4), (2, "5", 20, 20), (2, "12.5", 48, 48), (2, "50", 48, 48),
    (4, "1", Fraction(8, 3), 4), (4, "5", Fraction(40, 3), 20), (4, "12.5", 32, 48), (4, "50", 32, 48),
])  # fmt: skip
def test_whole_dgx1s_lose_nothing(servers, nic, allreduce, broadcast):
    """A NIC gets 12 GB/s at most, its PCIe link's; four NICs of rate c: all-reduce 4 c S / (2 (S - 1)), broadcast 4 c."""
    topology = load_topology(f"dgx1-v100*{servers}@{nic}")
    plan = plan_of(topology, "allreduce")
    assert plan.rate == plan.bound == allreduce
    for collective, root in (("broadcast", 0), ("reduce", 8 * servers - 1)):
        flat = make_plan(topology, collective, root=root)
        flat.check()
        assert flat.rate == flat.bound == broadcast
        plan = plan_of(topology, collective, root)
        assert plan.rate == plan.bound == broadcast
        assert servers == 2 or any(p.hub // 8 != root // 8 for p in plan.partitions), "other servers pass data on"
    make_plan(topology, "allreduce").check()


def test_unequal_servers_lose_what_the_smaller_one_cannot_do_alone():
    """GPUs 0, 1, 4 reach 20 GB/s among themselves; flat trees also cross to the five and come back."""
    topology = load_topology("dgx1-v100*2@12.5").subset([0, 1, 4, 8, 9, 10, 11, 12])
    plan = plan_of(topology, "allreduce")
    assert (plan.rate, plan.bound, make_plan(topology, "allreduce").rate) == (20, 28, 28)
    assert plan_of(topology, "allreduce", local="all").rate == Fraction(76, 3)


def test_partitions_keep_all_nics_busy():
    topology = load_topology("dgx1-v100*2@5")
    for collective, root in (("allreduce", None), ("broadcast", 3)):
        plan = plan_of(topology, collective, root)
        load = {arc: used for arc, used in load_of(plan, lambda p: p.exchange).items() if "network" in arc}
        out = {arc: used for arc, used in load.items() if collective == "allreduce" or (str(arc[0]).startswith("s0") or str(arc[1]).startswith("s1"))}
        assert set(out.values()) == {Fraction(5)}, load


@pytest.mark.parametrize(("name", "collective", "most"), [("dgx1-v100*2@12.5", "allreduce", 4), ("dgx1-v100*4@12.5", "allreduce", 8), ("hgx-h100*4@50", "allreduce", 16), ("hgx-h100*2@50", "broadcast", 8)])
def test_few_partitions_of_one_rate_where_they_do(name, collective, most):
    plan = plan_of(load_topology(name), collective, None if collective == "allreduce" else 0)
    assert len(plan.partitions) <= most and len({p.rate for p in plan.partitions}) == 1


def test_a_plan_is_the_same_every_time():
    topology = load_topology("dgx1-v100*4@12.5").subset([0, 1, 4, 8, 9, 10, 11, 12, 16, 17, 24])
    first, second = (plan_of(topology, "allreduce") for _ in range(2))
    assert first.partitions == second.partitions


# -- what has no three-phase plan --------------------------------------------------------------------------------------


def two_networks():
    one = boxes([2, 2], nics=2)
    switches = (*one.switches, replace(one.switches[0], name="second"))
    second = ("s0.nic1", "s1.nic1")
    return replace(one, switches=switches, links=tuple(replace(k, src="second" if k.dst in second and k.src == "network" else k.src, dst="second" if k.src in second and k.dst == "network" else k.dst) for k in one.links))


@pytest.mark.parametrize(("topology", "collective", "options", "message"), [
    (load_topology("dgx1-v100"), "allreduce", {}, "at least two servers"),
    (boxes([2, 2]), "allgather", {}, "not for allgather"),
    (boxes([2, 2]), "broadcast", {}, "needs a root"),
    (boxes([2, 2]), "allreduce", {"local": "some"}, "local='some'"),
    (boxes([2, 2]), "allreduce", {"max_trees": 3}, "does not know the option max_trees"),
    (boxes([2, 2]), "allreduce", {"colour": 3}, "does not know the option colour"),
    (two_networks(), "allreduce", {}, "one network switch between servers, there are 2"),
])  # fmt: skip
def test_what_cannot_be_planned_says_why(topology, collective, options, message):
    with pytest.raises(bc.PackingError, match=message):
        make_plan(topology, collective, method="three-phase", **options)


def test_a_server_whose_links_do_not_join_its_ranks_is_named():
    whole = boxes([2, 2], nvlink=[20, 0])
    cut = replace(whole, links=tuple(k for k in whole.links if "s1.gpu1" not in (k.src, k.dst)) + boxes([2, 2]).links[-2:])
    lonely = replace(cut, links=(*cut.links, *[replace(k, src=k.src.replace("s1.nic0", "s1.gpu1"), dst=k.dst.replace("s1.nic0", "s1.gpu1")) for k in cut.links if {k.src, k.dst} == {"s1.nic0", "network"}]))
    with pytest.raises(bc.PackingError, match=r"inside server 1 nothing joins rank 3 \(s1.gpu1\) to rank 2"):
        make_plan(lonely, "allreduce", method="three-phase")


# -- forgeries ---------------------------------------------------------------------------------------------------------


def _forged(plan, **changes):
    return replace(plan, partitions=(replace(plan.partitions[0], **changes), *plan.partitions[1:]))


def test_check_refuses_forged_partitions():
    plan = plan_of(load_topology("dgx1-v100*2@12.5").subset([0, 1, 2, 3, 8, 9, 10, 11]), "allreduce")
    first = plan.partitions[0]
    other = next(r for r in range(4) if r != first.roots[0])
    for forged, message in (
        (_forged(plan, rate=first.rate * 2), "do not fit the plan's rate"),
        (_forged(plan, rate=first.rate * 2, weight=first.weight * 2), "carries|add up to"),
        (replace(plan, partitions=plan.partitions[1:]), "add up to"),
        (replace(plan, partitions=plan.partitions * 2, rate=plan.rate * 2), "do not fit"),
        (_forged(plan, roots=(first.roots[1], first.roots[0])), "not one rank of each server"),
        (_forged(plan, roots=first.roots[:1]), "not one rank of each server"),
        (_forged(plan, hub=other), "its hub is none of its roots"),
        (_forged(plan, roots=(other, first.roots[1]), hub=first.roots[1]), "server's end|not connected"),
        (_forged(plan, up=None), "up half is None"),
        (_forged(plan, up=first.up[1:]), "up: rank . is not connected"),
        (_forged(plan, down=(*first.down, first.down[0])), "two parents"),
        (_forged(plan, up=tuple(p[::-1] for p in first.up)), "two parents|server's end|not connected"),
        (_forged(plan, down=(first.exchange[0], *first.down[1:])), "leaves its server|two parents"),
        (_forged(plan, exchange=first.exchange[:1]), "exchange: paths join"),
        (_forged(plan, exchange=(*first.exchange, first.exchange[0])), "exchange: paths join"),
        (replace(plan, trees=(bc.plan(plan.topology, "allreduce").trees[0],)), "trees or flows beside them"),
    ):
        with pytest.raises(bc.PackingError, match=message):
            forged.check()


def test_check_adds_up_all_phases_on_a_link():
    """Trees inside over PCIe and the exchange share uplinks: each fits alone, together they do not."""
    topology = boxes([2, 2], nvlink=0, pcie=10, rate=100)
    plan = plan_of(topology, "allreduce")
    grown = Fraction(5, 4)
    wide = replace(plan, rate=plan.rate * grown, bound=plan.bound * grown, partitions=tuple(replace(p, rate=p.rate * grown) for p in plan.partitions))
    loads = [load_of(wide, part) for part in (lambda p: p.up, lambda p: p.down, lambda p: p.exchange)]
    assert max(used for load in loads for used in load.values()) <= 10 < max(sum(load[hop] for load in loads) for hop in loads[0])
    with pytest.raises(bc.PackingError, match="carries"):
        wide.check()


def load_of(plan, part):
    load = dict.fromkeys(plan.topology.capacities(), Fraction(0))
    for partition in plan.partitions:
        for path in part(partition):
            for hop in pairwise(path):
                load[hop] += partition.rate
    return load


def test_data_goes_to_another_hub_once_and_from_there_on():
    topology = boxes([2, 1, 1, 1])
    for collective in ("broadcast", "reduce"):
        plan = plan_of(topology, collective, 0)
        partition = next(p for p in plan.partitions if p.hub != p.roots[0])
        number = plan.partitions.index(partition)
        for hub in set(partition.roots) - {partition.hub}:
            forged = replace(plan, partitions=tuple(replace(p, hub=hub) if i == number else p for i, p in enumerate(plan.partitions)))
            with pytest.raises(bc.PackingError, match="exchange: paths join"):
                forged.check()


def test_a_narrow_root_server_limits_a_broadcast_and_wide_ones_do_not_help():
    """One NIC of 5 GB/s at the root, which sends each byte once whatever the others have."""
    assert plan_of(boxes([2, 2, 2, 2], rate=[5, 50, 50, 50]), "broadcast", 1).rate == 5


@pytest.mark.parametrize("rate", ["12.5", "50"])
def test_whole_dgx1s_whose_flat_trees_cannot_run_get_three_phases_by_default(rate):
    here = bc.load_topology(f"dgx1-v100*2@{rate}")
    plan = bc.plan(here, "allreduce")
    plan.check()
    assert plan.method == "three-phase" and plan.rate == plan.bound
    bc.verify(plan.schedule(nbytes=1 << 20))
    with pytest.raises(bc.ScheduleError, match="three-phase"):
        bc.plan(here, "allreduce", method="exact").schedule(nbytes=1 << 20)
