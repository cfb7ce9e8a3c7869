"""What makes a plan valid, checked from the plan and the topology alone: no packer's code is used here."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from ..errors import PackingError
from ..topology import Path, Topology
from .certificates import (
    SWITCH_MODEL,
    CutCertificate,
    MetricCertificate,
    PartitionCertificate,
    TreeDualCertificate,
    link_capacities,
)
from .checkpartitions import check_partitions
from .prices import TreePriceCertificate

if TYPE_CHECKING:
    from .plan import Certificate, Plan, Tree

_UP = ("reduce", "reducescatter", "allreduce")
_DOWN = ("broadcast", "allgather", "allreduce")
_PAIRS = ("gather", "scatter", "alltoall")


def check_plan(plan: Plan) -> None:
    """Raise :class:`PackingError` unless the plan does what it says.

    Trees span all ranks from their root, paths use links that exist and switches only in between, no link carries more
    than its capacity, the rates and weights add up, and the certificate proves the bound.
    """
    load: dict[tuple[int | str, int | str], Fraction] = {}
    if plan.partitions:
        halves = (plan.collective in _UP, plan.collective in _DOWN)
        check_partitions(plan, halves, _check_path, lambda paths, rate: _add(load, paths, rate))
    elif plan.collective in _PAIRS:
        _check_flows(plan, load)
    else:
        _check_trees(plan, load)
    capacity = link_capacities(plan.topology, plan.links, plan.rates)
    for (u, v), used in load.items():
        if used > capacity.get((u, v), 0):
            raise PackingError(f"plan: link {u}->{v} carries {used} GB/s, its capacity is {capacity.get((u, v), Fraction(0))}")
    if plan.rate > plan.bound or plan.certificate.bound != plan.bound or plan.bound > plan.bound_all:
        raise PackingError(f"plan: rate {plan.rate}, bound {plan.bound}, bound_all {plan.bound_all}, certificate {plan.certificate.bound} disagree")
    _check_proof(plan, plan.certificate, plan.links)
    if plan.links == plan.topology.kinds():
        if plan.bound_all != plan.bound:
            raise PackingError(f"plan: it uses all links, so bound_all {plan.bound_all} must be its bound {plan.bound}")
    elif plan.certificate_all is None or plan.bound_all != max(plan.bound, plan.certificate_all.bound):
        raise PackingError(f"plan: nothing proves bound_all {plan.bound_all}")
    else:
        _check_proof(plan, plan.certificate_all, plan.topology.kinds())


def _check_proof(plan: Plan, certificate: Certificate, links: tuple[str, ...]) -> None:
    """The certificate speaks of this collective, root, rates and links, and holds."""
    fitting: dict[str, tuple[type, ...]] = {"allreduce": (PartitionCertificate, TreeDualCertificate), "alltoall": (MetricCertificate,)}
    if any(tree.switch is not None for tree in plan.trees):
        # A bound for trees over forwarding switches says nothing about switches that copy and add.
        if certificate.model != SWITCH_MODEL:
            raise PackingError(f"plan: its trees use switches that copy and add, its certificate speaks of {certificate.model}")
        fitting["allreduce"] = (CutCertificate,)
    suits = fitting.get(plan.collective, (CutCertificate, TreeDualCertificate))
    if plan.topology.relays and plan.collective not in _PAIRS:
        suits = (TreePriceCertificate,)  # the others take relays to forward only
    if not isinstance(certificate, suits):
        raise PackingError(f"plan: a {type(certificate).__name__} does not bound {plan.collective}")
    for name, mine in (("collective", plan.collective), ("root", plan.root), ("rates", plan.rates), ("links", links)):
        theirs = getattr(certificate, name, mine)  # a partition and a metric speak of one collective only, and of no root
        if theirs != mine:
            raise PackingError(f"plan: its certificate speaks of {name} {theirs!r}, the plan of {mine!r}")
    certificate.check(plan.topology)


def _check_trees(plan: Plan, load: dict[tuple[int | str, int | str], Fraction]) -> None:
    nranks, per_root = plan.topology.nranks, dict.fromkeys(range(plan.topology.nranks), Fraction(0))
    if plan.flows:
        raise PackingError(f"plan: {plan.collective} has trees, not flows")
    for i, tree in enumerate(plan.trees):
        where = f"plan: tree {i} (root {tree.root})"
        if tree.rate <= 0 or tree.weight * plan.rate != tree.rate:
            raise PackingError(f"{where}: rate {tree.rate} and weight {tree.weight} do not fit the plan's rate {plan.rate}")
        for half, wanted, name in ((tree.up, _UP, "up"), (tree.down, _DOWN, "down")):
            if (half is not None) != (plan.collective in wanted):
                raise PackingError(f"{where}: a plan for {plan.collective} and a tree whose {name} half is {half!r}")
            if half is not None:
                _check_half(tree, half, name, where, plan.topology)
                if plan.method == "hybrid":
                    _check_offered(half, where, plan.topology)
                if tree.switch is not None:
                    _check_group(tree, half, name, where, plan.topology)
                _add(load, loaded_paths(tree, half, name, nranks), tree.rate)
        per_root[tree.root] += tree.rate
    if sum(per_root.values()) != plan.rate:
        raise PackingError(f"plan: the trees' rates add up to {sum(per_root.values())}, the plan says {plan.rate}")
    for root, rate in per_root.items():
        if plan.collective in ("allgather", "reducescatter") and rate * nranks != plan.rate:
            raise PackingError(f"plan: rank {root} is the root of {rate} GB/s, expected {plan.rate / nranks}")
        if plan.root is not None and root != plan.root and rate:
            raise PackingError(f"plan: a tree is rooted at rank {root}, expected {plan.root}")


def _check_half(tree: Tree, half: Iterable[Path], name: str, where: str, topology: Topology) -> None:
    """One path into every rank but the root and every relay that takes part, all on the root's side (seen downwards)."""
    parent: dict[int | str, int | str] = {}
    for path in half:
        _check_path(path, where, topology)
        above, below = (path[0], path[-1]) if name == "down" else (path[-1], path[0])
        if below in parent or below == tree.root:
            raise PackingError(f"{where}: {name}: {_named(below)} has two parents, or is the root and has one")
        parent[below] = above
    for vertex in (*range(topology.nranks), *parent, *parent.values()):
        seen: set[int | str] = set()
        start = vertex
        while vertex != tree.root:
            if vertex in seen or vertex not in parent:
                raise PackingError(f"{where}: {name}: {_named(start)} is not connected to the root")
            seen.add(vertex)
            vertex = parent[vertex]
    for relay in set(parent) - set(parent.values()):
        if isinstance(relay, str):
            raise PackingError(f"{where}: {name}: relay {relay} is a leaf, so nobody needs it")


def _check_offered(half: Iterable[Path], where: str, topology: Topology) -> None:
    """What has to be staged in host memory crosses a CPU."""
    for path in half:
        if topology.peers.staged(path) and topology.peers.staging_place(path) is None:
            raise PackingError(f"{where}: path {path} has to be staged in host memory and crosses no CPU")


def _named(vertex: int | str) -> str:
    return f"rank {vertex}" if isinstance(vertex, int) else f"relay {vertex}"


def _check_group(tree: Tree, half: Iterable[Path], name: str, where: str, topology: Topology) -> None:
    """Every path leads straight over the tree's switch, which does what the half asks of it."""
    can = {s.name for s in topology.switches if (s.multicast if name == "down" else s.reduce)}
    if tree.switch not in can:
        raise PackingError(f"{where}: {name}: {tree.switch} is no switch that {'copies' if name == 'down' else 'adds'}")
    for path in half:
        if len(path) != 3 or path[1] != tree.switch or tree.root not in (path[0], path[2]):
            raise PackingError(f"{where}: {name}: path {path} does not join a rank and the root over {tree.switch}")


def loaded_paths(tree: Tree, half: Iterable[Path], name: str, nranks: int) -> list[Path]:
    """The paths that a tree's rate loads: its own, or, in the switch, each port once, however many ranks it serves."""
    if tree.switch is None:
        return list(half)
    hops: list[Path] = [(rank, tree.switch) for rank in range(nranks)] + [(tree.switch, tree.root)]
    return hops if name == "up" else [path[::-1] for path in hops]


def _check_path(path: Path, where: str, topology: Topology) -> None:
    """From rank or relay to rank or relay, with only switches in between; over one twice only to and from a CPU's memory."""
    devices = {*range(topology.nranks), *(d.name for d in topology.relays)}
    if len(path) < 2 or path[0] == path[-1] or path[0] not in devices or path[-1] not in devices:
        raise PackingError(f"{where}: path {path} does not lead from rank to rank")
    if not devices.isdisjoint(path[1:-1]):
        raise PackingError(f"{where}: path {path} passes a rank or a relay, at which it has to end")
    turn = topology.peers.staging_place(path) if topology.peers.staged(path) else None
    parts = (path,) if turn is None else (path[: turn + 1], path[turn:])
    if any(len(set(part)) != len(part) for part in parts):
        raise PackingError(f"{where}: path {path} visits a vertex twice")


def _check_flows(plan: Plan, load: dict[tuple[int | str, int | str], Fraction]) -> None:
    nranks, per_pair = plan.topology.nranks, {}
    if plan.trees:
        raise PackingError(f"plan: {plan.collective} has flows, not trees")
    for src in range(nranks):
        for dst in range(nranks):
            if src != dst and (plan.collective == "alltoall" or plan.root == (src if plan.collective == "scatter" else dst)):
                per_pair[src, dst] = Fraction(0)
    for flow in plan.flows:
        if flow.rate <= 0 or len(flow.path) < 2 or (flow.path[0], flow.path[-1]) != (flow.src, flow.dst) or len(set(flow.path)) != len(flow.path):
            raise PackingError(f"plan: flow {flow.src}->{flow.dst} of {flow.rate} GB/s on {flow.path} is malformed")
        if (flow.src, flow.dst) not in per_pair:
            raise PackingError(f"plan: {plan.collective} has no pair {flow.src}->{flow.dst}")
        per_pair[flow.src, flow.dst] += flow.rate
        _add(load, (flow.path,), flow.rate)
    for pair, rate in per_pair.items():
        if rate * nranks != plan.rate:
            raise PackingError(f"plan: pair {pair[0]}->{pair[1]} gets {rate} GB/s, expected {plan.rate / nranks}")


def _add(load: dict[tuple[int | str, int | str], Fraction], paths: Iterable[Path], rate: Fraction) -> None:
    for path in paths:
        for u, v in pairwise(path):
            load[u, v] = load.get((u, v), Fraction(0)) + rate
