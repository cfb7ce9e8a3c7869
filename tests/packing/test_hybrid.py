"""Hybrids of NVLink and PCIe: ways that the driver offers, the best rate on them by another program, and plans refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import networkx as nx
import pytest
from allocations import diagonals
from packing_fabrics import both, topology
from packing_oracles import tree_rate

import blinkcoll as bc
from blinkcoll.errors import PackingError
from blinkcoll.packing.treeplan import hybrid_candidates
from blinkcoll.topology import Device, Link, Switch

BUDGET = {"method": "hybrid", "budget_s": 60}
MACHINES = {
    "dgx1-v100": None, "dgx1-p100": None, "v100-014": [0, 1, 4], "v100-02356": [0, 2, 3, 5, 6], "a100-pcie-nvbridge": None, "pair": [0, 1],
    "a6000-nvbridge": None, "ac922": None, "dgx-a100": None, "l40sx8": None,
}  # fmt: skip


def machine(name):
    layout = {"v100-014": "dgx1-v100", "v100-02356": "dgx1-v100", "pair": "a100-pcie-nvbridge"}.get(name, name)
    whole = bc.load_topology(layout)
    return whole if MACHINES[name] is None else whole.subset(MACHINES[name])


@pytest.mark.parametrize(("name", "collective"), diagonals(2, tuple(MACHINES), ("broadcast", "reduce", "allreduce", "allgather")))
def test_hybrids_check_and_lie_between_the_fastest_links_and_the_bound(name, collective):
    here, root = machine(name), 0 if collective in ("broadcast", "reduce") else None
    plan = bc.plan(here, collective, root=root, **BUDGET)
    plan.check()
    assert plan.method == "hybrid" and plan.links == here.kinds() and plan.bound == plan.bound_all
    assert bc.plan(here, collective, root=root).rate <= plan.rate <= plan.bound


@pytest.mark.parametrize("name", MACHINES)
def test_what_goes_beside_nvlink_crosses_a_cpu(name):
    here = machine(name)
    joined = {frozenset((here.vertex(k.src), here.vertex(k.dst))) for k in here.links if k.kind == "NVLINK"}
    for tree in bc.plan(here, "allreduce", **BUDGET).trees:
        for path in tree.down:
            if frozenset((path[0], path[-1])) in joined and len(path) > 2:
                assert any(v.startswith("cpu") for v in path[1:-1]), path


def one_way_switches(here):
    """The same machine with each PCIe switch cut in two, a way up to the CPU and a way down from it: where all pairs
    below one switch have NVLink, trees over this one (forwarders of unequal in and out) are what the driver offers."""
    arcs, switches = {}, set()
    for (u, v), c in here.capacities().items():
        a, b = (f"{x} {'up' if up else 'down'}" if str(x).startswith("plx") else x for x, up in ((u, isinstance(u, int)), (v, not isinstance(v, int))))
        if str(u).startswith("plx"):
            a = f"{u} {'up' if str(v).startswith('cpu') else 'down'}"
        if str(v).startswith("plx"):
            b = f"{v} {'down' if str(u).startswith('cpu') else 'up'}"
        arcs[a, b] = arcs.get((a, b), 0) + c
        switches |= {x for x in (a, b) if isinstance(x, str)}
    return topology(here.nranks, arcs, sorted(switches))


@pytest.mark.parametrize("gpus", [[0, 1], [0, 1, 2, 3], [0, 1, 4, 5], [2, 3, 6, 7, 4], [0, 1, 2, 3, 4, 5, 6], list(range(8))], ids=str)
@pytest.mark.parametrize("layout", ["dgx1-v100", "dgx1-p100"])
@pytest.mark.parametrize("collective", ["broadcast", "allreduce"])
def test_the_rate_is_the_best_on_the_ways_that_the_driver_offers(layout, gpus, collective):
    here = bc.load_topology(layout).subset(gpus)
    root = 0 if collective == "broadcast" else None
    same_switch = {(a, b) for a, b in combinations(range(here.nranks), 2) if {v for u, v in here.capacities() if u == a and str(v).startswith("plx")} & {v for u, v in here.capacities() if u == b and str(v).startswith("plx")}}
    assert all(here.peers.fast(a, b) for a, b in same_switch), "the oracle needs NVLink between all that share a switch"
    plan = bc.plan(here, collective, root=root, **BUDGET)
    assert float(plan.rate) == pytest.approx(tree_rate(one_way_switches(here), collective, root), rel=1e-6)


def test_two_gpus_under_one_switch_share_its_uplink_both_ways():
    """A pair with NVLink below one PCIe switch: the way over PCIe goes up to the CPU and down again."""
    here = bc.load_topology("dgx1-v100").subset([0, 1])
    plan = bc.plan(here, "broadcast", root=0, **BUDGET)
    assert plan.rate == 20 + 12 and {path for tree in plan.trees for path in tree.down} == {(0, 1), (0, "plx0", "cpu0", "plx0", 1)}


def test_pairs_without_nvlink_go_straight_over_their_switch():
    plan = bc.plan(bc.load_topology("l40sx8").subset([0, 1]), "broadcast", root=0, **BUDGET)
    assert all(not str(v).startswith("cpu") for tree in plan.trees for path in tree.down for v in path)


def test_pairs_without_peer_access_go_through_host_memory():
    plan = bc.plan(bc.load_topology("rtx4090x8").subset([0, 1]), "broadcast", root=0, **BUDGET)
    assert all(any(str(v).startswith("cpu") for v in path) for tree in plan.trees for path in tree.down)


def test_a_plan_that_leaves_host_memory_out_is_refused():
    plan = bc.plan(bc.load_topology("dgx1-v100").subset([0, 1]), "broadcast", root=0, **BUDGET)
    trees = tuple(replace(t, down=tuple((0, "plx0", 1) if len(p) > 2 else p for p in t.down)) for t in plan.trees)
    with pytest.raises(PackingError, match="has to be staged in host memory and crosses no CPU"):
        replace(plan, trees=trees).check()


def test_a_path_may_pass_a_switch_twice_only_through_host_memory():
    here = bc.load_topology("l40sx8").subset([0, 1])
    plan = bc.plan(here, "broadcast", root=0)
    (path,) = plan.trees[0].down
    switch = path[1]
    cpu = next(v for u, v in here.capacities() if u == switch and isinstance(v, str))
    trees = (replace(plan.trees[0], down=((0, switch, cpu, switch, 1),)), *plan.trees[1:])
    with pytest.raises(PackingError, match="visits a vertex twice"):
        replace(plan, trees=trees).check()


def test_without_a_way_through_a_cpu_there_is_no_hybrid_beside_nvlink():
    here = topology(2, both({(0, 1): 20}))
    assert bc.plan(here, "broadcast", root=0, **BUDGET).rate == 20
    with pytest.raises(PackingError, match="has flows, not trees"):
        bc.plan(here, "alltoall", method="hybrid")


@pytest.mark.parametrize("collective", ["broadcast", "allreduce"])
def test_candidates_are_plans_with_less_and_less_beside_nvlink(collective):
    here = bc.load_topology("dgx1-v100").subset([0, 1, 2, 3])
    root = 0 if collective == "broadcast" else None
    plans = list(hybrid_candidates(here, collective, root, 32))
    for plan in plans:
        plan.check()
    assert plans[0].rate == max(plan.rate for plan in plans) == bc.plan(here, collective, root=root, **BUDGET).rate
    fastest = bc.plan(here, collective, root=root).trees
    paths = {frozenset(t.down) for t in fastest}
    apart = [plan for plan in plans if paths <= {frozenset(t.down) for t in plan.trees}]
    beside = [plan.rate - sum(t.rate for t in fastest) for plan in apart]
    assert [x / beside[0] for x in beside[:3]] == [1, Fraction(3, 4), Fraction(1, 2)]
    assert not list(hybrid_candidates(bc.load_topology("a6000-nvbridge"), collective, root, 32)), "the fastest links are all links there"


def test_relays_serve_hybrids_too():
    plan = bc.plan(bc.load_topology("dgx1-v100").subset([0, 1], relays=[2, 3]), "allreduce", **BUDGET)
    plan.check()
    assert 80 < plan.rate <= plan.bound == 92


TREES = ("broadcast", "reduce", "allreduce", "allgather", "reducescatter")


def apart(layout):
    """The sets of three and four GPUs that NVLink does not join."""
    whole = bc.load_topology(layout)
    graph = nx.Graph((whole.vertex(k.src), whole.vertex(k.dst)) for k in whole.links if k.kind == "NVLINK")
    return [gpus for n in (3, 4) for gpus in combinations(range(8), n) if not nx.is_connected(graph.subgraph(gpus))]


@pytest.mark.parametrize(("layout", "gpus"), [
    pytest.param(name, gpus, marks=() if gpus in ((0, 1, 6), (2, 4, 5), (0, 1, 2, 7), (0, 1, 6, 7)) else pytest.mark.slow)
    for name in ("dgx1-v100", "dgx1-p100") for gpus in apart(name)
])  # fmt: skip
def test_ranks_that_nvlink_does_not_join_get_plans_that_run_and_meet_the_bound(layout, gpus):
    here = bc.load_topology(layout).subset(gpus)
    for collective in TREES:
        root = len(gpus) - 1 if collective in ("broadcast", "reduce") else None
        plan = bc.plan(here, collective, root=root)
        plan.check()
        assert plan.rate == plan.bound
        bc.verify(plan.schedule(nbytes=1 << 20))


def test_ranks_that_nvlink_does_not_join_may_have_few_trees():
    here = bc.load_topology("dgx1-v100").subset([0, 1, 6])
    for options in ({"max_trees": 1}, {"minimise": True}, {"tolerance": "1/10"}):
        plan = bc.plan(here, "allreduce", **options)
        plan.check()
        bc.verify(plan.schedule(nbytes=1 << 20))
    assert len(bc.plan(here, "allreduce", max_trees=1).trees) == 1


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "reducescatter"])
def test_where_an_nvlink_has_no_room_the_default_is_a_hybrid_of_the_same_rate(collective):
    here = bc.load_topology("dgx1-v100*2@12.5").subset([0, 1, 8, 9])
    plan, exact = bc.plan(here, collective), bc.plan(here, collective, method="exact")
    plan.check()
    assert (plan.method, exact.method) == ("hybrid", "exact") and plan.rate == exact.rate == exact.bound
    bc.verify(plan.schedule(nbytes=1 << 20))
    with pytest.raises(bc.ScheduleError, match="plan with method='hybrid'"):
        exact.schedule(nbytes=1 << 20)


def test_without_a_cpu_to_stage_in_the_plan_is_exact_and_lowering_says_what_is_wrong():
    wires = [("gpu0", "gpu1", "NVLINK", 1), *((f"gpu{i}", "plx", "PCIE", 12) for i in range(3))]
    links = tuple(Link(*ends, kind, Fraction(rate)) for a, b, kind, rate in wires for ends in ((a, b), (b, a)))
    here = bc.Topology("odd", tuple(Device(f"gpu{i}") for i in range(3)), (Switch("plx", "pcie"),), links)
    plan = bc.plan(here, "allreduce")
    plan.check()
    assert plan.method == "exact" and plan.rate == plan.bound
    with pytest.raises(bc.ScheduleError, match="has to lead through a CPU's memory"):
        plan.schedule(nbytes=1 << 20)
