"""Plans that meet the bound exactly, collective by collective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from .. import _core
from ..errors import PackingError
from ..topology import Topology
from .arborescences import Arborescence, merged, pack, reroot
from .certificates import CutCertificate, PartitionCertificate
from .collectives import HAS_DOWN, HAS_UP
from .links import Network, network_of
from .plan import Certificate, Plan, Tree


def exact_plan(topology: Topology, collective: str, root: int | None, links: tuple[str, ...], rates: str) -> Plan:
    """The plan over links of these kinds; see :func:`blinkcoll.packing.make_plan`."""
    if collective in ("gather", "scatter", "alltoall"):
        raise PackingError(f"{collective}: not planned yet")
    network = network_of(topology, links, rates)
    solve = solve_allreduce if collective == "allreduce" else solve_directed
    solved = solve(network, collective, root, links, rates)
    bound = bound_all = solved.certificate.bound
    if links != topology.kinds():
        every = topology.kinds()
        bound_all = solve(network_of(topology, every, rates), collective, root, every, rates).certificate.bound
    trees = pack(network, solved.arcs, solved.shares, solved.unit)
    if collective == "allreduce":
        trees = [reroot(tree) for tree in trees]
    return Plan(
        topology=topology,
        collective=collective,
        method="exact",
        rate=bound,
        bound=bound,
        bound_all=bound_all,
        certificate=solved.certificate,
        links=links,
        root=root,
        trees=tuple(_tree(tree, collective, bound) for tree in merged(trees)),
        rates=rates,
    )


@dataclass(frozen=True)
class Solved:
    """A bound with its proof, and where to pack: ``shares[r]`` arborescences rooted at r fit in ``arcs``.

    Arcs and shares count in ``unit`` (GB/s).
    """

    certificate: Certificate
    arcs: Sequence[tuple[int, int, int]]
    shares: Sequence[int]
    unit: Fraction


def solve_directed(network: Network, collective: str, root: int | None, links: tuple[str, ...], rates: str) -> Solved:
    """Broadcast and all-gather, and on reversed links reduce and reduce-scatter."""
    n = network.nranks
    weights = [1] * n if root is None else [int(r == root) for r in range(n)]
    reverse = collective in ("reduce", "reducescatter")
    arcs = [(v, u, c) for u, v, c in network.arcs] if reverse else network.arcs
    num, den, inside = _core.root_cut(len(network.vertices), n, arcs, weights)
    certificate = CutCertificate(
        bound=Fraction(num, den) * network.unit * sum(weights),
        inside=frozenset(network.vertices[v] for v in inside),
        collective=collective,
        direction="out" if reverse else "in",
        links=links,
        root=root,
        rates=rates,
    )
    return Solved(certificate, [(u, v, c * den) for u, v, c in arcs], [w * num for w in weights], network.unit / den)


def solve_allreduce(network: Network, collective: str, root: int | None, links: tuple[str, ...], rates: str) -> Solved:
    """Undirected trees on symmetric links."""
    if not network.symmetric:
        raise PackingError("allreduce on asymmetric links: not planned yet")
    start = 0
    edges = [(u, v, c) for u, v, c in network.arcs if u < v]
    num, den, parts, oriented = _core.strength(len(network.vertices), network.nranks, edges, start)
    certificate = PartitionCertificate(
        bound=Fraction(num, den) * network.unit,
        parts=tuple(frozenset(network.vertices[v] for v in part) for part in parts),
        links=links,
        rates=rates,
    )
    shares = [2 * num if r == start else 0 for r in range(network.nranks)]
    return Solved(certificate, oriented, shares, network.unit / (2 * den))


def _tree(tree: Arborescence, collective: str, rate: Fraction) -> Tree:
    """The tree with the halves that the collective has; ``arcs`` lead away from the root."""
    down = tuple((a, b) for a, b in tree.arcs) if collective in HAS_DOWN else None
    up = tuple((b, a) for a, b in reversed(tree.arcs)) if collective in HAS_UP else None
    return Tree(root=tree.root, rate=tree.rate, weight=tree.rate / rate, up=up, down=down)
