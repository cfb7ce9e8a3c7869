"""The cheapest tree from a root to the ranks, with relays as inner vertices where they pay: an exact dynamic program.

Dreyfus and Wagner (The Steiner problem in graphs, Networks 1971), on directed costs: ``best[S][v]`` is the cost of the
cheapest tree that leads from v to all of the set S, either one way to a vertex w and two trees from there, or one way to
a rank. 3^n steps for n ranks, so it is for a server. Where no relay acts the cheapest tree spans exactly the ranks, and
an arborescence (``networkx``) or, on symmetric costs, a minimum spanning tree is found in polynomial time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import PackingError
from .hops import Ways
from .links import Vertex

Edge = tuple[Vertex, Vertex]
#: A tree as pairs (parent, child), parents first.
Branches = tuple[Edge, ...]
#: Ranks for which the dynamic program is run: 3^10 x 16 steps take seconds.
MOST_RANKS = 10


def cheapest_trees(actors: Sequence[Vertex], nranks: int, roots: Iterable[int], ways: Ways) -> dict[int, Branches]:
    """For every root the cheapest tree that leads from it to all ranks.

    Raises
    ------
    PackingError
        Where no way leads to some rank, or relays act beside more than ``MOST_RANKS`` ranks.
    """
    if len(actors) == nranks:
        return _spanning(nranks, roots, ways)
    if nranks > MOST_RANKS:
        raise PackingError(f"relays that copy and add are planned for up to {MOST_RANKS} ranks, there are {nranks}: leave the relays out")
    program = _Program(actors, nranks, ways)
    return {root: program.tree(root) for root in roots}


class _Program:
    """The dynamic program for all roots at once; vertex i is ``actors[i]``, ranks first."""

    def __init__(self, actors: Sequence[Vertex], nranks: int, ways: Ways) -> None:
        self.actors, self.nranks = actors, nranks
        m = len(actors)
        self.infinite = 1 + m * max((cost for cost, _ in ways.values()), default=0)
        self.cost = [[0 if a == b else ways[a, b][0] if (a, b) in ways else self.infinite for b in actors] for a in actors]
        self.far = [list(row) for row in self.cost]
        self.via = [list(range(m)) for _ in range(m)]  # the first stop on the cheapest way
        for k in range(m):
            for row, stops in zip(self.far, self.via, strict=True):
                to_k, first = row[k], stops[k]
                for j, onward in enumerate(self.far[k]):
                    if to_k + onward < row[j]:
                        row[j], stops[j] = to_k + onward, first
        self._fill()

    def _fill(self) -> None:
        m, full = len(self.actors), (1 << self.nranks) - 1
        self.best: list[list[int]] = [[0] * m for _ in range(full + 1)]
        self.meeting: list[list[int]] = [[0] * m for _ in range(full + 1)]
        self.split: list[list[int]] = [[0] * m for _ in range(full + 1)]
        for s in range(1, full + 1):
            low = s & -s
            if s == low:
                t = low.bit_length() - 1
                self.best[s] = [row[t] for row in self.far]
                continue
            joined, part = [m * self.infinite] * m, [0] * m
            a = (s - 1) & s
            while a:
                if a & low:  # each pair of parts once
                    for v, (x, y) in enumerate(zip(self.best[a], self.best[s ^ a], strict=True)):
                        if x + y < joined[v]:
                            joined[v], part[v] = x + y, a
                a = (a - 1) & s
            self.split[s] = part
            for v, row in enumerate(self.far):
                total, w = min(zip(map(int.__add__, row, joined), range(m), strict=True))
                self.best[s][v], self.meeting[s][v] = total, w

    def tree(self, root: int) -> Branches:
        everything = ((1 << self.nranks) - 1) ^ (1 << root)
        if self.best[everything][root] >= self.infinite:
            raise PackingError(f"packing: no permitted way leads from rank {root} to every rank")
        arcs: set[tuple[int, int]] = set()
        stack = [(everything, root)]
        while stack:
            s, v = stack.pop()
            single = s == s & -s
            w = s.bit_length() - 1 if single else self.meeting[s][v]
            while v != w:
                arcs.add((v, self.via[v][w]))
                v = self.via[v][w]
            if not single:
                stack += [(self.split[s][w], w), (s ^ self.split[s][w], w)]
        return self._pruned(root, arcs)

    def _pruned(self, root: int, arcs: set[tuple[int, int]]) -> Branches:
        """One way to each vertex (parts may have met), and no relay that leads nowhere."""
        found, order = {root: root}, [root]
        left = sorted(arcs)
        while True:
            grown = [(a, b) for a, b in left if a in found and b not in found]
            if not grown:
                break
            a, b = min(grown, key=lambda arc: (self.cost[arc[0]][arc[1]], order.index(arc[0]), arc[1]))
            found[b] = a
            order.append(b)
        wanted: set[int] = set()
        for rank in range(self.nranks):
            while rank not in wanted:
                wanted.add(rank)
                rank = found[rank]
        return tuple((self.actors[found[b]], self.actors[b]) for b in order[1:] if b in wanted)


def _spanning(nranks: int, roots: Iterable[int], ways: Ways) -> dict[int, Branches]:
    """The minimum arborescences, or on symmetric costs the minimum spanning tree, from each root down."""
    if all((b, a) in ways and ways[b, a][0] == cost for (a, b), (cost, _) in ways.items()):
        tree = _kruskal(nranks, ways)
        found = {root: _downwards(tree, root) for root in roots}
    else:
        found = {root: _arborescence(nranks, root, ways) for root in roots}
    for root, branches in found.items():
        if len(branches) != nranks - 1:
            raise PackingError(f"packing: no permitted way leads from rank {root} to every rank")
    return found


def _kruskal(nranks: int, ways: Ways) -> dict[int, list[int]]:
    """The neighbours of each rank in the minimum spanning tree (Kruskal, Proceedings of the AMS 7, 1956)."""
    part = list(range(nranks))
    tree: dict[int, list[int]] = {rank: [] for rank in range(nranks)}
    for _, a, b in sorted((cost, a, b) for (a, b), (cost, _) in ways.items() if isinstance(a, int) and isinstance(b, int) and a < b):
        if part[a] != part[b]:
            old, new = part[b], part[a]
            part = [new if p == old else p for p in part]
            tree[a].append(b)
            tree[b].append(a)
    return tree


def _downwards(tree: dict[int, list[int]], root: int) -> Branches:
    """The tree's edges, breadth first."""
    reached, queue = {root}, [root]
    branches: list[Edge] = []
    for a in queue:
        for b in tree[a]:
            if b not in reached:
                reached.add(b)
                queue.append(b)
                branches.append((a, b))
    return tuple(branches)


def _arborescence(nranks: int, root: int, ways: Ways) -> Branches:
    import networkx as nx

    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(range(nranks))
    graph.add_weighted_edges_from((a, b, cost) for (a, b), (cost, _) in ways.items() if b != root)
    try:
        return tuple(nx.bfs_edges(nx.minimum_spanning_arborescence(graph), root))
    except nx.NetworkXException:
        return ()
