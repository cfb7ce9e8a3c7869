"""Proofs that prove something else: sets with ranks that do not exist, and certificates of another plan."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

import blinkcoll as bc
from blinkcoll.topology import Device, GpuIndex, Link, Topology

V100 = bc.load_topology("dgx1-v100")


def _lopsided() -> Topology:
    devices = tuple(Device(f"gpu{i}", index=GpuIndex(i)) for i in range(3))
    rates = {(0, 1): 3, (1, 0): 2, (1, 2): 4, (2, 1): 1, (2, 0): 5, (0, 2): 2}
    return Topology("lopsided", devices, links=tuple(Link(f"gpu{a}", f"gpu{b}", "NVLINK", Fraction(c)) for (a, b), c in rates.items()))


def test_a_phantom_rank_in_a_weighted_cut_is_refused():
    plan = bc.plan(_lopsided(), "allreduce")
    plan.check()
    certificate = replace(plan.certificate, cuts=(*plan.certificate.cuts, ("down", frozenset({99}), Fraction(1000))))
    with pytest.raises(bc.PackingError, match="99 is no rank"):
        certificate.check(plan.topology)


def test_a_phantom_part_is_refused():
    plan = bc.plan(V100.subset([0, 1, 4]), "allreduce")
    certificate = replace(plan.certificate, parts=(*plan.certificate.parts, frozenset({99})), bound=plan.bound / 2)
    with pytest.raises(bc.PackingError, match="99 is no rank"):
        certificate.check(plan.topology)


@pytest.mark.parametrize("stranger", [99, -1, True, "no such switch"])
@pytest.mark.parametrize("collective", ["scatter", "allgather", "broadcast"])
def test_a_phantom_in_a_cut_is_refused(collective, stranger):
    plan = bc.plan(V100, collective, root=None if collective == "allgather" else 0)
    certificate = replace(plan.certificate, inside=plan.certificate.inside | {stranger} if stranger is not True else frozenset({True, 2}))
    with pytest.raises(bc.PackingError, match="is no rank"):
        certificate.check(V100)


@pytest.mark.parametrize("root", [None, 8, -1])
def test_a_rooted_cut_needs_its_root(root):
    certificate = bc.plan(V100, "scatter", root=0).certificate
    with pytest.raises(bc.PackingError, match="cannot have root"):
        replace(certificate, root=root).check(V100)


def test_a_certificate_of_other_links_is_refused():
    plan = bc.plan(V100.subset([0, 1, 4]), "allreduce")
    with pytest.raises(bc.PackingError, match="speaks of links"):
        replace(plan, links=plan.topology.kinds(), bound_all=plan.bound).check()


def test_a_certificate_of_another_root_is_refused():
    topology = _lopsided()
    plan, other = bc.plan(topology, "broadcast", root=0), bc.plan(topology, "broadcast", root=1)
    with pytest.raises(bc.PackingError, match="speaks of root 1"):
        replace(plan, certificate=other.certificate, bound=other.bound, bound_all=other.bound).check()


def test_a_certificate_of_another_collective_is_refused():
    gather, broadcast = bc.plan(V100, "allgather"), bc.plan(V100, "broadcast", root=0)
    with pytest.raises(bc.PackingError, match="speaks of collective"):
        replace(broadcast, certificate=gather.certificate, bound=gather.bound, bound_all=gather.bound_all, certificate_all=gather.certificate_all).check()
    with pytest.raises(bc.PackingError, match="does not bound allreduce"):
        replace(bc.plan(V100, "allreduce"), certificate=gather.certificate, bound=gather.bound, bound_all=gather.bound).check()


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "alltoall"])
def test_the_bound_over_all_links_is_proven_too(collective):
    plan = bc.plan(V100, collective)
    plan.check()
    for forged in (plan.bound_all * 1000, plan.bound_all + 1):
        with pytest.raises(bc.PackingError, match="nothing proves bound_all"):
            replace(plan, bound_all=forged).check()
    with pytest.raises(bc.PackingError, match="nothing proves bound_all"):
        replace(plan, certificate_all=None).check()


@pytest.mark.parametrize("links", [None, 5, 2.5])
def test_links_that_are_no_kinds_are_refused(links):
    with pytest.raises(bc.PackingError, match="expected 'fastest', 'all' or kinds"):
        bc.plan(V100, "allreduce", links=links)
