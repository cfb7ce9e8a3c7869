"""Few trees for a rate on small networks without switches: trees are peeled off the capacities, each as wide as leaves enough for the rest.

What has to be left is what the theorems of Edmonds (1973; several roots: Frank, 1978) and of Tutte and Nash-Williams
(1961) ask of every cut or partition; on at most ten ranks all of them can be listed, and mostly all spanning trees too.
The search (``csrc/packing/peeling.h``) is greedy with random choices and counts its own work, so that its result is the same on every
machine, unless the time runs out first. It proves nothing: see ``treebound``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from math import inf
from time import monotonic

from .. import _core
from ..topology import Path
from .arborescences import RoutedTree, depth, outward, reroot
from .collectives import ROOTED
from .links import Network
from .mixedinteger import MixedInteger

#: Arcs that fit in a machine word, and ranks up to which cuts are listed.
_MOST_ARCS, _MOST_RANKS = 64, 10
#: Partitions up to which they are listed (a complete graph of eight has 4139), and trees of one root; more trees are drawn at random.
_MOST_PARTITIONS, _MOST_TREES = 6_000, 5_000
#: Looks at rows that a second is worth: half of what an idle 2.5 GHz Xeon core does, so that work ends before time does.
WORK_PER_S = 100_000_000
#: Seconds for the linear program over trees of a limited depth.
_REACHABLE_S = 1.0
#: Weights below this, in units of the network, are rounding.
_NOTHING = 1e-7


@dataclass(frozen=True, eq=False)
class Peeling:
    """The search on one network: ``reverse`` for collectives that run towards their roots, ``undirected`` for all-reduce."""

    network: Network
    roots: tuple[int, ...]
    reverse: bool
    undirected: bool

    @classmethod
    def of(cls, network: Network, collective: str, root: int | None) -> Peeling | None:
        """The search for a collective, or None where the network is too large, has switches or, for all-reduce, is not symmetric."""
        undirected = collective == "allreduce"
        narcs = len(network.arcs) // 2 if undirected else len(network.arcs)
        if network.forwarders or network.nranks > _MOST_RANKS or narcs > _MOST_ARCS or (undirected and not network.symmetric):
            return None
        roots = (root,) if collective in ROOTED and root is not None else (0,) if undirected else tuple(range(network.nranks))
        found = cls(network, roots, collective in ("reduce", "reducescatter"), undirected)
        return found if found.rows else None

    @cached_property
    def arcs(self) -> list[tuple[int, int, int]]:
        """Arcs in the direction away from the roots, capacities in the network's unit; each edge once if undirected."""
        arcs = [(v, u, c) for u, v, c in self.network.arcs] if self.reverse else self.network.arcs
        return [(u, v, c) for u, v, c in arcs if u < v or not self.undirected]

    @cached_property
    def rows(self) -> list[tuple[int, list[int]]]:
        """Arcs (as bits) that have to carry so much of each root's rate; empty where there are too many."""
        if self.undirected:
            return [(crossing, [parts - 1]) for crossing, parts in self._partitions()]
        cuts = []
        for inside in range(1, (1 << self.network.nranks) - 1):
            demand = [1 - (inside >> r & 1) for r in self.roots]
            if any(demand):
                cuts.append((_bits(inside >> v & 1 and not inside >> u & 1 for u, v, _ in self.arcs), demand))
        return cuts

    def _partitions(self) -> list[tuple[int, int]]:
        """Edges that cross it and number of parts, of every partition into connected parts; empty where there are too many.

        The others are implied: to split a part that is not connected adds a part and no edge."""
        n = self.network.nranks
        within = [_bits(s >> u & 1 and s >> v & 1 for u, v, _ in self.arcs) for s in range(1 << n)]
        around = [0] * n
        for u, v, _ in self.arcs:
            around[u] |= 1 << v
            around[v] |= 1 << u
        connected = [_is_connected(s, around) for s in range(1 << n)]
        every, found = (1 << len(self.arcs)) - 1, []
        stack = [((1 << n) - 1, 0, 0)]
        while stack:
            left, inner, parts = stack.pop()
            if not left:
                if parts > 1:
                    found.append((every & ~inner, parts))
                    if len(found) > _MOST_PARTITIONS:
                        return []
                continue
            first = left & -left
            rest = left ^ first
            others = rest
            while True:
                part = first | others
                if connected[part]:
                    stack.append((left ^ part, inner | within[part], parts + 1))
                if not others:
                    break
                others = (others - 1) & rest
        return found

    @cached_property
    def trees(self) -> list[tuple[int, int, int]]:
        """(arcs as bits, number of the root, depth): all trees, or a random choice where there are too many."""
        arcs = [(u, v, float(c)) for u, v, c in self.arcs]
        return [
            (tree, i, deep)
            for i, root in enumerate(self.roots)
            for tree, deep in _core.spanning_trees(self.network.nranks, arcs, root, self.undirected, _MOST_TREES // len(self.roots) + 1, 0)
        ]

    def with_trees(self, known: Iterable[RoutedTree]) -> Peeling:
        """The same search with these trees among its candidates, which matters where not all are listed."""
        bit: dict[Path, int] = {(u, v): 1 << i for i, (u, v, _) in enumerate(self.arcs)}
        seen = {(tree, i) for tree, i, _ in self.trees}
        for tree in known:
            mask = sum(bit[path] if path in bit else bit[path[::-1]] for path in tree.paths)
            i = 0 if self.undirected else self.roots.index(tree.root)
            if (mask, i) not in seen:
                seen.add((mask, i))
                self.trees.append((mask, i, depth(tree.root, tree.paths)))
        return self

    def search(self, shares: Sequence[Fraction], most: int, enough: int, work_s: float, until: float, max_depth: int | None = None) -> list[RoutedTree]:
        """Fewer than ``most`` trees, as few as were found (no fewer than ``enough`` are looked for), empty if there are none.

        Parameters
        ----------
        shares
            What each root's trees have to carry, GB/s.
        work_s
            How much work it may be, in seconds of a machine that does ``WORK_PER_S``.
        until
            When it has to end (``time.monotonic``), finished or not.
        max_depth
            Of every tree.

        Returns
        -------
        Trees without rates, undirected ones around their centres.
        """
        unit = float(self.network.unit * self._least)
        rates = [float(share) / unit for share in shares]
        limit = self.network.nranks if max_depth is None else max_depth
        numbers = self._peeler.solve(rates, most, enough, limit, int(work_s * WORK_PER_S), until - monotonic(), 1)
        return [self._routed(*self.trees[t][:2]) for t in numbers]

    @cache  # noqa: B019 - as long as the search lives
    def reachable(self, max_depth: int) -> tuple[float, tuple[RoutedTree, ...]]:
        """The most that trees so deep carry from each root, GB/s, and trees that do: a linear program in floats.

        Infinite, and no trees, where not all trees are listed."""
        if len(self.trees) >= _MOST_TREES:
            return inf, ()
        program, unit = MixedInteger(), float(self.network.unit)
        fitting = [(tree, i, program.variable(inf)) for tree, i, deep in self.trees if deep <= max_depth]
        each = program.variable(inf, -1.0)
        for a, (_, _, c) in enumerate(self.arcs):
            program.row({x: 1.0 for tree, _, x in fitting if tree >> a & 1}, high=float(c))
        for i in range(len(self.roots)):
            program.row({**{x: 1.0 for _, root, x in fitting if root == i}, each: -1.0}, 0.0, 0.0)
        values = program.minimum(_REACHABLE_S)
        if not values:
            return inf, ()
        return values[each] * unit, tuple(self._routed(tree, i) for tree, i, x in fitting if values[x] > _NOTHING)

    @property
    def _least(self) -> int:
        return min(c for *_, c in self.arcs)

    @cached_property
    def _peeler(self) -> _core.Peeler:
        return _core.peeler([c / self._least for *_, c in self.arcs], self.rows, self.trees, len(self.roots))

    def shallowest(self) -> int:
        """The depth of the shallowest trees: no plan is shallower than that of the root that has the deepest of these."""
        return max(min(deep for _, i, deep in self.trees if i == r) for r in range(len(self.roots)))

    def _routed(self, tree: int, i: int) -> RoutedTree:
        """The tree as paths that lead away from its root, parents first."""
        root = self.roots[i]
        found = RoutedTree(root, Fraction(0), outward(root, [(u, v) for a, (u, v, _) in enumerate(self.arcs) if tree >> a & 1]))
        return reroot(found) if self.undirected else found


def _bits(flags: Iterable[object]) -> int:
    return sum(1 << i for i, flag in enumerate(flags) if flag)


def _is_connected(vertices: int, around: Sequence[int]) -> bool:
    reached, edge = vertices & -vertices, vertices & -vertices
    while edge:
        v = edge & -edge
        edge ^= v
        new = around[v.bit_length() - 1] & vertices & ~reached
        reached |= new
        edge |= new
    return bool(vertices) and reached == vertices
