"""Plans over switches that copy and add: the bound against enumerated cuts, the rate against a linear program."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from random import Random

import pytest
from packing_oracles import Model

import blinkcoll as bc
from blinkcoll.packing.certificates import SWITCH_MODEL, CutCertificate
from blinkcoll.packing.nvls import switch_bound
from blinkcoll.topology import Device, Link, Switch, Topology

H100 = bc.load_topology("hgx-h100")
COLLECTIVES = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter")
SUMS, COPIES = ("allreduce", "reduce", "reducescatter"), ("allreduce", "broadcast", "allgather")


def root_of(collective):
    return 1 if collective in ("broadcast", "reduce") else None


def fabric(out, back, *, adds=True, copies=True, extra=()) -> Topology:
    """``out[p][r]``, ``back[p][r]``: what rank r's port to and from switch p carries, GB/s; ``extra``: links (from, to, GB/s)."""
    devices = tuple(Device(f"gpu{r}") for r in range(len(out[0])))
    switches = tuple(Switch(f"switch{p}", "nvswitch", multicast=copies, reduce=adds) for p in range(len(out)))
    links = [Link(d.name, s.name, "NVLINK", Fraction(o[r])) for s, o in zip(switches, out, strict=True) for r, d in enumerate(devices)]
    links += [Link(s.name, d.name, "NVLINK", Fraction(b[r])) for s, b in zip(switches, back, strict=True) for r, d in enumerate(devices)]
    links += [Link(a, b, "NVLINK", Fraction(c)) for a, b, c in extra]
    return Topology("fabric", devices, switches, tuple(links))


def random_fabric(seed) -> tuple[Topology, list[list[int]], list[list[int]]]:
    random = Random(seed)
    n, planes = random.randint(2, 6), random.randint(1, 3)
    ports = [[[random.randint(1, 30) for _ in range(n)] for _ in range(planes)] for _ in range(2)]
    return fabric(*ports), *ports


def best_rate(collective, root, out, back) -> float:
    """The linear program over (switch, head): every transfer's load on every port, written out one by one."""
    n, model = len(out[0]), Model()
    heads = range(n) if root is None else [root]
    x = {(p, h): model.variable(1.0) for p in range(len(out)) for h in heads}
    load: dict[tuple[str, int, int], dict[int, float]] = {}
    for (p, h), column in x.items():
        for member in range(n):
            if collective in SUMS:
                entry = load.setdefault(("out", p, member), {})
                entry[column] = entry.get(column, 0) + 1  # the switch reads every member
            if collective in COPIES:
                entry = load.setdefault(("back", p, member), {})
                entry[column] = entry.get(column, 0) + 1  # and writes every member
        if collective in SUMS:
            entry = load.setdefault(("back", p, h), {})
            entry[column] = entry.get(column, 0) + 1  # the head gets the sum
        if collective in COPIES:
            entry = load.setdefault(("out", p, h), {})
            entry[column] = entry.get(column, 0) + 1  # or sends what is copied
    for (way, p, r), entries in load.items():
        model.row(entries, high=float((out if way == "out" else back)[p][r]))
    if collective in ("allgather", "reducescatter"):  # every rank's shard is as large
        for h in range(1, n):
            model.row({**{x[p, h]: 1.0 for p in range(len(out))}, **{x[p, 0]: -1.0 for p in range(len(out))}}, low=0, high=0)
    return model.maximum()


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 12))])
def test_the_rate_is_what_a_linear_program_over_groups_finds(seed, collective):
    topology, out, back = random_fabric(seed)
    plan = bc.plan(topology, collective, root=root_of(collective), method="nvls")
    plan.check()
    best = best_rate(collective, root_of(collective), out, back)
    if collective in ("allgather", "reducescatter") and len(out) > 1:
        # Each switch carries an equal part of every shard here, which the program does not ask for.
        assert float(plan.rate) <= best * (1 + 1e-9)
    else:
        assert float(plan.rate) == pytest.approx(best, rel=1e-9)


def least_cut(topology, collective, root) -> Fraction:
    """All sets of vertices, one by one."""
    capacity = topology.capacities()
    vertices = [*range(topology.nranks), *(s.name for s in topology.switches)]
    n, found = topology.nranks, []
    for size in range(1, len(vertices)):
        for chosen in combinations(vertices, size):
            inside = set(chosen)
            ranks = sum(isinstance(v, int) for v in inside)
            if not 0 < ranks < n or root in inside:
                continue
            enters = sum((c for (a, b), c in capacity.items() if a not in inside and b in inside), Fraction(0))
            leaves = sum((c for (a, b), c in capacity.items() if a in inside and b not in inside), Fraction(0))
            if collective == "allreduce":
                found += [enters, leaves]
            elif collective in ("broadcast", "allgather"):
                found.append(enters if root is not None else enters * n / (n - ranks))
            else:
                found.append(leaves if root is not None else leaves * n / (n - ranks))
    return min(found)


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 10))])
def test_the_bound_is_the_least_of_all_cuts(seed, collective):
    random = Random(1000 + seed)
    n, planes = random.randint(2, 4), random.randint(1, 2)
    out, back = ([[random.randint(1, 9) for _ in range(n)] for _ in range(planes)] for _ in range(2))
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b and random.random() < 0.4]
    topology = fabric(out, back, extra=[(f"gpu{a}", f"gpu{b}", random.randint(1, 9)) for a, b in pairs])
    certificate = switch_bound(topology, collective, root_of(collective), ("NVLINK",))
    certificate.check(topology)
    assert certificate.bound == least_cut(topology, collective, root_of(collective))


#: GB/s of algbw on n GPUs of an HGX H100 (ports of 370.8): n / (n + 1) and the whole port; trees n / (2 (n - 1)).
@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 8])
def test_all_reduce_on_h100s_by_the_numbers(n):
    port = Fraction(1854, 5)
    topology = H100.subset(list(range(n)))
    nvls, trees = (bc.plan(topology, "allreduce", method=method) for method in ("nvls", "exact"))
    nvls.check()
    assert (nvls.rate, nvls.bound, nvls.gap) == (port * n / (n + 1), port, Fraction(1, n + 1))
    assert trees.rate == trees.bound == port * n / (2 * (n - 1))
    assert (nvls.rate > trees.rate) == (n > 3) and (nvls.rate == trees.rate) == (n == 3)
    assert {t.switch for t in nvls.trees} == {"nvswitch"} and len(nvls.trees) == n


@pytest.mark.parametrize("collective", ["broadcast", "reduce", "allgather", "reducescatter"])
def test_other_collectives_gain_no_rate_from_groups_that_hold_the_head(collective):
    """One port for all of the data; trees reach as much, and 8/7 of it where a rank's own shard need not move."""
    port = Fraction(1854, 5)
    nvls, trees = (bc.plan(H100, collective, root=root_of(collective), method=method) for method in ("nvls", "exact"))
    nvls.check()
    assert nvls.rate == port
    assert nvls.bound == trees.rate == (port if root_of(collective) is not None else port * 8 / 7)


def test_auto_keeps_to_forwarding_switches_and_says_so():
    auto, nvls = (bc.plan(H100, "allreduce", method=method) for method in ("auto", "nvls"))
    assert all(t.switch is None for t in auto.trees) and auto.certificate.model != SWITCH_MODEL
    assert nvls.certificate.model == nvls.certificate_all.model == SWITCH_MODEL


@pytest.mark.parametrize("layout", ["hgx-h200", "hgx-b200", "gb200-nvl72"])
def test_other_layouts_with_such_switches(layout):
    plan = bc.plan(bc.load_topology(layout), "allreduce", method="nvls")
    plan.check()
    assert plan.gap == Fraction(1, plan.topology.nranks + 1)


# -- what check() refuses ---------------------------------------------------------------------------------------------


def made(collective="allreduce"):
    return bc.plan(H100.subset([0, 1, 2, 3]), collective, root=root_of(collective), method="nvls")


def with_tree(plan, **changes):
    return replace(plan, trees=(replace(plan.trees[0], **changes), *plan.trees[1:]))


@pytest.mark.parametrize(("flag", "message"), [("multicast", "down: nvswitch is no switch that copies"), ("reduce", "up: nvswitch is no switch that adds")])
def test_a_switch_that_cannot_is_refused(flag, message):
    plan = made()
    switches = tuple(replace(s, **{flag: False}) if s.name == "nvswitch" else s for s in plan.topology.switches)
    with pytest.raises(bc.PackingError, match=message):
        replace(plan, topology=replace(plan.topology, switches=switches)).check()


def test_the_heads_own_port_counts():
    """As if the group could leave the head out: 370.8 fits no port that also carries its head's shard."""
    plan = made()
    rate = plan.bound
    trees = tuple(replace(t, rate=rate / 4, weight=Fraction(1, 4)) for t in plan.trees)
    with pytest.raises(bc.PackingError, match=r"carries 927/2 GB/s, its capacity is 1854/5"):
        replace(plan, rate=rate, trees=trees).check()


def test_a_path_beside_the_switch_is_refused():
    plan = made("reduce")
    up = plan.trees[0].up
    with pytest.raises(bc.PackingError, match="does not join a rank and the root over nvswitch"):
        with_tree(plan, up=((0, "nvswitch", 2), *up[1:])).check()


def test_a_tree_that_forgets_a_rank_is_refused():
    plan = made("broadcast")
    with pytest.raises(bc.PackingError, match="is not connected to the root"):
        with_tree(plan, down=plan.trees[0].down[1:]).check()


def test_a_bound_of_another_class_is_refused():
    """Broadcast: trees have the same bound, so only the class tells the proofs apart."""
    plan = made("broadcast")
    of_trees = bc.plan(plan.topology, "broadcast", root=1).certificate
    assert of_trees.bound == plan.bound
    with pytest.raises(bc.PackingError, match="certificate speaks of trees over forwarding switches"):
        replace(plan, certificate=of_trees).check()


@pytest.mark.parametrize("inside", [frozenset(), frozenset({0, 1, 2, 3}), frozenset({"nvswitch"})])
def test_an_all_reduce_cut_needs_ranks_on_both_sides(inside):
    certificate = replace(made().certificate, inside=inside)
    with pytest.raises(bc.PackingError, match="nothing has to cross it"):
        certificate.check(made().topology)


def test_a_cut_speaks_of_no_all_to_all():
    with pytest.raises(bc.PackingError, match="does not bound alltoall"):
        CutCertificate(Fraction(1), frozenset({0}), "alltoall", "in", ("NVLINK",)).check(H100)


# -- what it is not for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collective", ["gather", "scatter", "alltoall"])
def test_collectives_without_sums_or_copies_are_refused(collective):
    with pytest.raises(bc.PackingError, match="nothing for a switch to copy or add"):
        bc.plan(H100, collective, root=None if collective == "alltoall" else 0, method="nvls")


@pytest.mark.parametrize(("topology", "collective", "message"), [
    (bc.load_topology("dgx-a100"), "allreduce", "no switch that multicasts and adds is linked to all 8 ranks"),
    (bc.load_topology("dgx1-v100"), "broadcast", "no switch that multicasts is linked to all 8 ranks"),
    (fabric([[9, 9]], [[9, 9]], adds=False), "reduce", "no switch that adds"),
    (bc.load_topology("hgx-h100*2@50"), "allreduce", "is linked to all 16 ranks"),
], ids=["a100", "dgx1", "copies-only", "two-servers"])  # fmt: skip
def test_machines_without_such_a_switch_are_refused(topology, collective, message):
    with pytest.raises(bc.PackingError, match=message):
        bc.plan(topology, collective, method="nvls", root=root_of(collective))


def test_a_switch_that_only_copies_serves_what_only_copies():
    plan = bc.plan(fabric([[9, 9, 9]], [[9, 9, 9]], adds=False), "allgather", method="nvls")
    plan.check()
    assert plan.rate == 9


@pytest.mark.parametrize("options", [{"max_trees": 2}, {"tolerance": "1/20"}, {"minimise": True}, {"equal_trees": 4}])
def test_wishes_for_few_trees_are_refused(options):
    with pytest.raises(bc.PackingError, match="do not apply"):
        bc.plan(H100, "allreduce", method="nvls", **options)
