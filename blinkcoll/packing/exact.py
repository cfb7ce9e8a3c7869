"""Plans that meet the bound exactly: which theorem or program serves which collective, and the plan made of it.

- Broadcast, reduce, all-gather, reduce-scatter: minimum cuts (``rootcut.h``), where every forwarder gives out what it
  takes in; else the linear program of ``treelp``.
- All-reduce: partitions (``strength.h``) on symmetric links; else the same linear program with both halves.
- Gather, scatter: one maximum flow. All-to-all: direct routes where they are the best, else a linear program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from time import monotonic

from ..errors import PackingError
from ..topology import Path, Topology
from .alltoall import Lengths, approximate_flows, direct_flows, optimal_flows, pair_bound
from .arborescences import RoutedTree, best_of, pack_shares, pack_undirected, run, taste
from .certificates import (
    MODEL,
    RELAY_MODEL,
    CutCertificate,
    MetricCertificate,
    PartitionCertificate,
    TreeDualCertificate,
)
from .collectives import FLOWS, HAS_DOWN, HAS_UP
from .equaltrees import equal_arborescences, equal_trees
from .exactlp import BudgetExceeded
from .links import Network, network_of
from .minimise import Wish, with_fewer_trees
from .onehop import one_hop_trees
from .plan import Certificate, Flow, Plan, Tree
from .planes import Planes, merge_planes, split_tree, spread_exchange, spread_flows, with_planes
from .randomtrees import random_trees
from .treelp import solve_tree_lp

#: Of an all-to-all's budget: the rest goes to the rational solution, or to the approximation that replaces it.
_SOLVER_SHARE = 0.5
#: Packings tried for few and shallow trees: as many as take a few milliseconds (ranks x links of work each).
_MOST_ATTEMPTS, _ATTEMPT_WORK = 6, 2_500
#: For few trees: packings and random trees to choose from.
_MOST_PACKINGS = 64
_RANDOM_TREES = 100
#: Flow variables (ranks x links) from which an all-to-all is approximated first.
_LARGE = 30_000


def exact_plan(
    topology: Topology,
    collective: str,
    root: int | None,
    links: tuple[str, ...],
    rates: str,
    budget_s: float,
    wish: Wish | None = None,
    most_equal: int | None = None,
) -> Plan:
    """The plan over links of these kinds; see :func:`blinkcoll.packing.make_plan`."""
    if wish is not None and most_equal is not None:
        raise PackingError("equal_trees and max_trees, tolerance or minimise exclude each other")
    if wish is not None and collective in FLOWS:
        raise PackingError(f"{collective} has flows, not trees: max_trees, tolerance and minimise do not apply")
    every = topology.kinds()
    problem = Problem.of(topology, collective, root, links, rates, budget_s if links == every else budget_s / 2)
    solved = problem.solve()
    bound = bound_all = solved.certificate.bound
    certificate_all = None
    if links != every:
        # What is proven for all links may be the weaker of the two where time ran out.
        certificate_all = Problem.of(topology, collective, root, every, rates, budget_s / 2).solve().certificate
        bound_all = max(bound, certificate_all.bound)
    trees: tuple[Tree, ...] = ()
    flows: tuple[Flow, ...] = ()
    if most_equal is not None:
        solved = problem.equalised(solved, most_equal)
    if collective in FLOWS:
        flows = tuple(problem.over_planes(solved.flows()))
    else:
        trees = problem.trees(solved)
    plan = Plan(
        topology=topology,
        collective=collective,
        method="exact" if solved.rate == bound else "equal" if most_equal is not None else "approximate",
        rate=solved.rate,
        bound=bound,
        bound_all=bound_all,
        certificate=solved.certificate,
        links=links,
        root=root,
        trees=trees,
        flows=flows,
        rates=rates,
        certificate_all=certificate_all,
    )
    return plan if wish is None else with_fewer_trees(plan, problem, solved, wish, budget_s)


@dataclass(frozen=True)
class Solved:
    """A rate, a bound with its proof, and how to get what reaches the rate.

    ``halves`` gives trees that lead away from their roots, for "down" and for "up" (to be reversed); a collective with
    both halves and only "both" uses one set of trees in both directions. Each takes the number of the attempt and
    gives other trees for every number. ``flows`` gives paths.
    """

    certificate: Certificate
    rate: Fraction
    halves: Mapping[str, Callable[[int], list[RoutedTree]]]
    flows: Callable[[], list[Flow]] = list


@dataclass(frozen=True)
class Problem:
    """A collective on the links it may use, planes merged."""

    network: Network
    planes: Planes
    collective: str
    root: int | None
    links: tuple[str, ...]
    rates: str
    budget_s: float
    model: str

    @classmethod
    def of(cls, topology: Topology, collective: str, root: int | None, links: tuple[str, ...], rates: str, budget_s: float) -> Problem:
        """The problem on the links of these kinds."""
        return cls.on(network_of(topology, links, rates), collective, root, links, rates, budget_s, RELAY_MODEL if topology.relays else MODEL)

    @classmethod
    def on(cls, network: Network, collective: str, root: int | None, links: tuple[str, ...], rates: str, budget_s: float = 2.0, model: str = MODEL) -> Problem:
        """The problem on a network."""
        return cls(*merge_planes(network), collective, root, links, rates, budget_s, model)

    def solve(self) -> Solved:
        """The bound and what reaches it."""
        if self.collective == "alltoall":
            return self._alltoall()
        if self.collective in FLOWS:
            return self._one_to_all()
        if self.collective == "allreduce":
            return self._undirected() if self.network.symmetric else self._tree_lp()
        return self._directed() if self.network.balanced else self._tree_lp()

    @property
    def reverse(self) -> bool:
        """Whether the collective runs towards its roots: it is planned on reversed links."""
        return self.collective in ("reduce", "reducescatter", "gather")

    def weights(self) -> list[int]:
        """Shares of the roots: all of it at the root, or the same everywhere."""
        return [int(self.root is None or r == self.root) for r in range(self.network.nranks)]

    # -- bounds -------------------------------------------------------------------------------------------------

    def _arcs(self) -> list[tuple[int, int, int]]:
        return [(v, u, c) for u, v, c in self.network.arcs] if self.reverse else self.network.arcs

    def _cut(self, bound: Fraction, inside: Iterable[int]) -> CutCertificate:
        return CutCertificate(
            bound=bound,
            inside=with_planes((self.network.vertices[v] for v in inside), self.planes),
            collective=self.collective,
            direction="out" if self.reverse else "in",
            links=self.links,
            root=self.root,
            rates=self.rates,
            model=self.model,
        )

    def _directed(self) -> Solved:
        """Broadcast and all-gather, and on reversed links reduce and reduce-scatter."""
        network, arcs, weights = self.network, self._arcs(), self.weights()
        num, den, inside = run("root_cut", arcs, len(network.vertices), network.nranks, arcs, weights)
        bound = Fraction(num, den) * network.unit * sum(weights)

        def pack(attempt: int) -> list[RoutedTree]:
            scaled = [(u, v, c * den) for u, v, c in arcs]
            return pack_shares(network, scaled, [w * num for w in weights], network.unit / den, taste(attempt))

        return Solved(self._cut(bound, inside), bound, {"up" if self.reverse else "down": pack})

    def _undirected(self) -> Solved:
        """All-reduce on symmetric links."""
        network = self.network
        edges = [(u, v, c) for u, v, c in network.arcs if u < v]
        num, den, parts = run("strength", edges, len(network.vertices), network.nranks, edges)
        certificate = PartitionCertificate(
            bound=Fraction(num, den) * network.unit,
            parts=tuple(with_planes((network.vertices[v] for v in part), self.planes) for part in parts),
            links=self.links,
            rates=self.rates,
            model=self.model,
        )
        return Solved(certificate, certificate.bound, {"both": lambda attempt: pack_undirected(network, network.unit, attempt % network.nranks, taste(attempt))})

    def equalised(self, solved: Solved, most: int) -> Solved:
        """The same bound, and at most ``most`` trees of one rate."""
        bound = solved.certificate.bound / self.network.unit
        if self.collective == "allreduce":
            half, trees = "both", equal_trees(self.network, bound, most)
        elif self.collective in ("allgather", "reducescatter"):
            half, trees = "up" if self.reverse else "down", equal_arborescences(self.network, self._arcs(), bound, most)
        else:
            raise PackingError(f"trees of one rate are packed for allreduce, allgather and reducescatter, not for {self.collective}")
        return Solved(solved.certificate, sum((t.rate for t in trees), Fraction(0)), {half: lambda attempt: trees})

    def _tree_lp(self) -> Solved:
        """Unbalanced forwarders, or all-reduce on asymmetric links."""
        network, free = self.network, self.collective == "allreduce"
        names = ("down", "up") if free else (("up",) if self.reverse else ("down",))
        found = solve_tree_lp(network, names, None if free else self.weights())
        certificate = TreeDualCertificate(
            bound=found.rate,
            cuts=tuple((half, with_planes((network.vertices[v] for v in inside), self.planes), weight) for half, inside, weight in found.cuts),
            potentials=tuple((half, name, p) for half, s, p in found.potentials for name in sorted(map(str, with_planes((network.vertices[s],), self.planes)))),
            collective=self.collective,
            links=self.links,
            root=self.root,
            rates=self.rates,
            model=self.model,
        )

        def pack(name: str, attempt: int) -> list[RoutedTree]:
            half = found.halves[name]
            return pack_shares(network, half.arcs, half.shares, half.unit, taste(attempt))

        return Solved(certificate, found.rate, {name: partial(pack, name) for name in names})

    def _one_to_all(self) -> Solved:
        """Scatter, and on reversed links gather."""
        network, arcs = self.network, self._arcs()
        assert self.root is not None
        num, den, inside, routes = run("demands", arcs, len(network.vertices), network.nranks, arcs, self.root)
        bound = Fraction(num, den) * network.unit * network.nranks

        def flows() -> list[Flow]:
            named = [(tuple(network.vertices[v] for v in path), Fraction(size, den) * network.unit) for path, size in routes]
            if self.reverse:
                return [Flow(path[-1], path[0], rate, path[::-1]) for path, rate in named]
            return [Flow(path[0], path[-1], rate, path) for path, rate in named]

        return Solved(self._cut(bound, inside), bound, {}, flows)

    def _alltoall(self) -> Solved:
        network = self.network
        found = direct_flows(network)
        if found is not None:
            return self._paths(*found)
        started = monotonic()
        approximate = None
        if network.nranks * len(network.arcs) > _LARGE:
            # Here the approximation takes a fraction of the linear program's time, and often meets its own bound.
            approximate = self._approximate()
            if approximate.rate == approximate.certificate.bound:
                return approximate
        try:
            left = self.budget_s - (monotonic() - started)
            return self._paths(*optimal_flows(network, max(0.0, left) * _SOLVER_SHARE))
        except BudgetExceeded:
            return approximate or self._approximate()

    def _paths(self, rate: Fraction, flows: list[Flow], lengths: Lengths) -> Solved:
        return Solved(self._metric(rate * self.network.nranks, lengths), rate * self.network.nranks, {}, lambda: flows)

    def _approximate(self) -> Solved:
        rate, flows, lengths = approximate_flows(self.network)
        bound = pair_bound(self.network, lengths)
        return Solved(self._metric(bound * self.network.nranks, lengths), rate * self.network.nranks, {}, lambda: flows)

    def _metric(self, bound: Fraction, lengths: Lengths) -> MetricCertificate:
        spread = {(u, v): length for (a, b), length in lengths.items() for u in with_planes((a,), self.planes) for v in with_planes((b,), self.planes)}
        listed = tuple((u, v, spread[u, v]) for u, v in sorted(spread, key=str))
        return MetricCertificate(bound=bound, lengths=listed, links=self.links, rates=self.rates)

    # -- plans --------------------------------------------------------------------------------------------------

    def trees(self, solved: Solved) -> tuple[Tree, ...]:
        """The trees of the plan: stars where they do, packed ones elsewhere; one a plane."""
        stars = one_hop_trees(self.network, self.collective, self.root, solved.rate)
        attempts = max(1, min(_MOST_ATTEMPTS, _ATTEMPT_WORK // (self.network.nranks * len(self.network.arcs))))
        halves = {"both": stars} if stars is not None else {name: best_of(pack, attempts) for name, pack in solved.halves.items()}
        return self._over_planes(halves, solved.rate)

    def more_trees(self, solved: Solved, budget_s: float) -> Iterator[Tree]:
        """Trees to choose few from: random ones, and those of as many packings as fit in the time."""
        if not self.network.forwarders and len(solved.halves) == 1:
            roots = [self.root] if self.root is not None else list(range(self.network.nranks))
            undirected = "both" in solved.halves
            for root in roots:
                for tree in random_trees(self.network, root, _RANDOM_TREES // len(roots), self.reverse, undirected):
                    yield self.tree(tree, solved.rate)
        deadline = monotonic() + budget_s
        for attempt in range(_MOST_PACKINGS):
            yield from self._over_planes({name: pack(attempt) for name, pack in solved.halves.items()}, solved.rate)
            if monotonic() > deadline:
                break

    def tree(self, tree: RoutedTree, rate: Fraction) -> Tree:
        """A tree as a plan of that rate has it."""
        return _tree(tree, self.collective, rate)

    def _over_planes(self, halves: dict[str, list[RoutedTree]], rate: Fraction) -> tuple[Tree, ...]:
        """The trees of the halves, one a plane, with their ups and downs together."""
        if self.planes:
            halves = {name: [part for tree in trees for part in split_tree(tree, self.planes)] for name, trees in halves.items()}
        if set(halves) == {"down", "up"}:
            return tuple(_paired(halves["down"], halves["up"], rate))
        (only,) = halves.values()
        return tuple(_tree(tree, self.collective, rate) for tree in only)

    def over_planes(self, flows: list[Flow]) -> list[Flow]:
        """The flows through the planes there are."""
        if not self.planes:
            return flows
        return spread_exchange(flows, self.planes, self.network.nranks) or spread_flows(flows, self.planes)


def _upwards(tree: RoutedTree) -> tuple[Path, ...]:
    return tuple([path[::-1] for path in reversed(tree.paths)])


def _tree(tree: RoutedTree, collective: str, rate: Fraction) -> Tree:
    """The tree with the halves that the collective has; its paths lead away from the root."""
    down = tree.paths if collective in HAS_DOWN else None
    up = _upwards(tree) if collective in HAS_UP else None
    return Tree(root=tree.root, rate=tree.rate, weight=tree.rate / rate, up=up, down=down)


def _paired(down: list[RoutedTree], up: list[RoutedTree], rate: Fraction) -> Iterable[Tree]:
    """Down and up trees of the same root, side by side at equal rates; each root has as much of the one as the other."""
    for root in sorted({tree.root for tree in down}):
        ups = [(tree, tree.rate) for tree in up if tree.root == root]
        for tree in (tree for tree in down if tree.root == root):
            left = tree.rate
            while left > 0:
                other, available = ups.pop()
                part = min(left, available)
                yield Tree(root=root, rate=part, weight=part / rate, up=_upwards(other), down=tree.paths)
                left -= part
                if available > part:
                    ups.append((other, available - part))
