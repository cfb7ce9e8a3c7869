"""Trees that meet the bound exactly: switches split off, Edmonds' packing, and back from integers to rates and paths.

Every tree collective comes down to one question: given capacities and a number of trees for each root, find the trees.
Broadcast has one root, all-gather all of them equally; reduce and reduce-scatter are the same on reversed links;
all-reduce on symmetric links packs trees in an orientation of them and uses each tree in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any

from .. import _core
from ..errors import PackingError
from ..topology import Path
from .links import Network

IntArcs = Sequence[tuple[int, int, int]]
#: A seed, and whether to prefer shallow trees over few.
Taste = tuple[int, bool]


@dataclass(frozen=True)
class RoutedTree:
    """A spanning tree as paths that lead away from the root, parents first, with its rate in GB/s."""

    root: int
    rate: Fraction
    paths: tuple[Path, ...]


def core_for(arcs: IntArcs, n: int) -> ModuleType:
    """The compiled packers in the narrowest integers that hold what they compute for these capacities.

    Raises
    ------
    PackingError
        Where 127 bits are too few.
    """
    largest = (sum(c for *_, c in arcs) + 1) * 16 * n * n
    if largest < 1 << 126:
        core: ModuleType = _core.packing64 if largest < 1 << 62 else _core.packing128
        return core
    raise PackingError(f"packing: the capacities have no common unit small enough to count in (they need {largest.bit_length()} bits of 126); round them")


def run(name: str, arcs: IntArcs, n: int, *args: Any) -> Any:
    """A compiled packer, in wider integers where the narrow ones turn out not to do."""
    core = core_for(arcs, n)
    for attempt in (core, _core.packing128):
        try:
            return getattr(attempt, name)(n, *args)
        except OverflowError:
            continue
    raise PackingError("packing: splitting the switches needs numbers beyond 127 bits; the capacities are too irregular")


def pack_shares(network: Network, arcs: IntArcs, shares: Sequence[int], unit: Fraction, taste: Taste = (0, False)) -> list[RoutedTree]:
    """Arborescences, ``shares[r] * unit`` GB/s of them rooted at r, within ``arcs`` (capacities in ``unit``).

    Another ``taste`` gives another packing."""
    return _routed(network, run("pack_shares", arcs, len(network.vertices), network.nranks, list(arcs), list(shares), *taste), unit)


def pack_undirected(network: Network, unit: Fraction, root: int = 0, taste: Taste = (0, False)) -> list[RoutedTree]:
    """As many undirected trees as fit in symmetric links, rooted at their centres."""
    edges = [(u, v, c) for u, v, c in network.arcs if u < v]
    packing = run("pack_undirected", edges, len(network.vertices), network.nranks, edges, root, *taste)
    return [reroot(tree) for tree in _routed(network, packing, unit)]


def _routed(network: Network, packing: Any, unit: Fraction) -> list[RoutedTree]:
    """Each arc of a tree gets a way through switches; trees whose arcs find no single way are cut."""
    trees, tree_scale, ways, way_scale, undirected = packing
    pool: dict[tuple[int, int], list[list[Any]]] = {}
    for u, v, pieces in ways:
        if not undirected or u < v:
            pool[u, v] = [[tuple(network.vertices[s] for s in via), Fraction(cap, way_scale)] for via, cap in pieces]
    found = []
    for root, size, arcs in trees:
        left = Fraction(size, tree_scale)
        while left > 0:
            chosen = [_way(pool, u, v, undirected, left) for u, v in arcs]
            part = min([left, *(way[1] for way, _ in chosen)])
            for way, _ in chosen:
                way[1] -= part
            paths = tuple((u, *(reversed(way[0]) if flip else way[0]), v) for (u, v), (way, flip) in zip(arcs, chosen, strict=True))
            found.append(RoutedTree(root, part * unit, paths))
            left -= part
    return merged(found)


def _way(pool: dict[tuple[int, int], list[list[Any]]], u: int, v: int, undirected: bool, wanted: Fraction) -> tuple[list[Any], bool]:
    """The narrowest way that holds all of it, else the widest; and whether it is written the other way round."""
    flip = undirected and u > v
    ways = pool[(v, u) if flip else (u, v)]
    enough = [way for way in ways if way[1] >= wanted]
    return (min(enough, key=lambda way: way[1]) if enough else max(ways, key=lambda way: way[1])), flip


def taste(attempt: int) -> Taste:
    """The taste of the attempt of that number: few trees and shallow ones in turn."""
    return attempt // 2, attempt % 2 == 1


def best_of(pack: Callable[[int], list[RoutedTree]], attempts: int) -> list[RoutedTree]:
    """The packing with the fewest trees and least depth (their sum) of so many."""
    packings = [pack(attempt) for attempt in range(attempts)]
    return min(packings, key=lambda trees: (len(trees) + max(depth(t.root, t.paths) for t in trees), len(trees))) if attempts > 1 else packings[0]


def depth(root: int, paths: Iterable[Path]) -> int:
    """Ranks passed from the root to the farthest rank."""
    return max(_distances(root, _neighbours(paths)).values())


def reroot(tree: RoutedTree) -> RoutedTree:
    """The same undirected tree, rooted at a centre (the lowest-numbered one)."""
    around = _neighbours(tree.paths)
    return rooted_at(tree, min(range(len(tree.paths) + 1), key=lambda r: (max(_distances(r, around).values()), r)))


def rooted_at(tree: RoutedTree, root: int) -> RoutedTree:
    """The same undirected tree, its paths leading away from ``root``."""
    distance = _distances(root, _neighbours(tree.paths))
    paths = [path if distance[path[0]] < distance[path[-1]] else path[::-1] for path in tree.paths]
    return RoutedTree(root, tree.rate, tuple(sorted(paths, key=lambda path: (distance[path[0]], path[0], path[-1]))))


def outward(root: int, edges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """A tree's edges, in whatever direction they are listed, as arcs that lead away from the root, parents first."""
    left, reached, arcs = sorted(edges), [root], []
    for vertex in reached:
        for edge in [e for e in left if vertex in e]:
            left.remove(edge)
            child = edge[0] + edge[1] - vertex
            arcs.append((vertex, child))
            reached.append(child)
    return tuple(arcs)


def merged(trees: Iterable[RoutedTree]) -> list[RoutedTree]:
    """Trees with the same root and paths become one; the fastest come first."""
    total: dict[tuple[int, frozenset[Path]], list[RoutedTree]] = {}
    for tree in trees:
        total.setdefault((tree.root, frozenset(tree.paths)), []).append(tree)
    found = [RoutedTree(same[0].root, sum((t.rate for t in same), Fraction(0)), same[0].paths) for same in total.values()]
    return sorted(found, key=lambda t: (-t.rate, t.root))


def _neighbours(paths: Iterable[Path]) -> dict[Any, list[Any]]:
    """Of each rank, those that a path joins to it."""
    around: dict[Any, list[Any]] = {}
    for path in paths:
        around.setdefault(path[0], []).append(path[-1])
        around.setdefault(path[-1], []).append(path[0])
    return around


def _distances(root: int, around: Mapping[Any, Sequence[Any]]) -> dict[Any, int]:
    """Paths from ``root`` when they are used both ways."""
    distance, queue = {root: 0}, [root]
    for v in queue:
        for w in around.get(v, ()):
            if w not in distance:
                distance[w] = distance[v] + 1
                queue.append(w)
    return distance
