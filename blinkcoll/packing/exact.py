"""Plans that meet the bound exactly, collective by collective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..errors import PackingError
from ..topology import Topology
from .arborescences import IntArcs, RoutedTree, merged, pack_shares, pack_undirected, run
from .certificates import CutCertificate, PartitionCertificate
from .collectives import HAS_DOWN, HAS_UP
from .links import Network, network_of
from .onehop import one_hop_trees
from .plan import Certificate, Plan, Tree
from .planes import Planes, merge_planes, split_tree, with_planes


def exact_plan(topology: Topology, collective: str, root: int | None, links: tuple[str, ...], rates: str) -> Plan:
    """The plan over links of these kinds; see :func:`blinkcoll.packing.make_plan`."""
    if collective in ("gather", "scatter", "alltoall"):
        raise PackingError(f"{collective}: not planned yet")
    problem = Problem.of(topology, collective, root, links, rates)
    solved = problem.solve()
    bound = bound_all = solved.certificate.bound
    if links != topology.kinds():
        bound_all = Problem.of(topology, collective, root, topology.kinds(), rates).solve().certificate.bound
    trees = one_hop_trees(problem.network, collective, root, bound) or solved.pack(problem.network)
    routed = [part for tree in trees for part in split_tree(tree, problem.planes)] if problem.planes else trees
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
        trees=tuple(_tree(tree, collective, bound) for tree in merged(routed)),
        rates=rates,
    )


@dataclass(frozen=True)
class Solved:
    """A bound with its proof, and where to pack trees: ``shares[r]`` arborescences rooted at r fit in ``arcs``.

    Arcs and shares count in ``unit`` (GB/s). Without shares, undirected trees in symmetric links.
    """

    certificate: Certificate
    arcs: IntArcs
    shares: Sequence[int] | None
    unit: Fraction

    def pack(self, network: Network) -> list[RoutedTree]:
        """The trees, leading away from their roots."""
        if self.shares is None:
            return pack_undirected(network, self.unit)
        return pack_shares(network, self.arcs, self.shares, self.unit)


@dataclass(frozen=True)
class Problem:
    """A collective on the links it may use, planes merged."""

    network: Network
    planes: Planes
    collective: str
    root: int | None
    links: tuple[str, ...]
    rates: str

    @classmethod
    def of(cls, topology: Topology, collective: str, root: int | None, links: tuple[str, ...], rates: str) -> Problem:
        """The problem on the links of these kinds."""
        network, planes = merge_planes(network_of(topology, links, rates))
        return cls(network, planes, collective, root, links, rates)

    def solve(self) -> Solved:
        """The bound and what reaches it."""
        return self._allreduce() if self.collective == "allreduce" else self._directed()

    def _directed(self) -> Solved:
        """Broadcast and all-gather, and on reversed links reduce and reduce-scatter."""
        network, n = self.network, self.network.nranks
        weights = [1] * n if self.root is None else [int(r == self.root) for r in range(n)]
        reverse = self.collective in ("reduce", "reducescatter")
        arcs = [(v, u, c) for u, v, c in network.arcs] if reverse else network.arcs
        num, den, inside = run("root_cut", arcs, len(network.vertices), n, arcs, weights)
        certificate = CutCertificate(
            bound=Fraction(num, den) * network.unit * sum(weights),
            inside=with_planes((network.vertices[v] for v in inside), self.planes),
            collective=self.collective,
            direction="out" if reverse else "in",
            links=self.links,
            root=self.root,
            rates=self.rates,
        )
        return Solved(certificate, [(u, v, c * den) for u, v, c in arcs], [w * num for w in weights], network.unit / den)

    def _allreduce(self) -> Solved:
        """Undirected trees on symmetric links."""
        network = self.network
        if not network.symmetric:
            raise PackingError("allreduce on asymmetric links: not planned yet")
        edges = [(u, v, c) for u, v, c in network.arcs if u < v]
        num, den, parts = run("strength", edges, len(network.vertices), network.nranks, edges)
        certificate = PartitionCertificate(
            bound=Fraction(num, den) * network.unit,
            parts=tuple(with_planes((network.vertices[v] for v in part), self.planes) for part in parts),
            links=self.links,
            rates=self.rates,
        )
        return Solved(certificate, edges, None, network.unit)


def _tree(tree: RoutedTree, collective: str, rate: Fraction) -> Tree:
    """The tree with the halves that the collective has; its paths lead away from the root."""
    down = tree.paths if collective in HAS_DOWN else None
    up = tuple(path[::-1] for path in reversed(tree.paths)) if collective in HAS_UP else None
    return Tree(root=tree.root, rate=tree.rate, weight=tree.rate / rate, up=up, down=down)
