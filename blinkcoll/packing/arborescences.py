"""Trees that meet the bound exactly: Edmonds' packing on ranks and arborescences, from integers back to rates.

Every tree collective comes down to one question: given capacities and a number of trees for each root, find the trees.
Broadcast has one root, all-gather all of them equally; reduce and reduce-scatter are the same on reversed links;
all-reduce on symmetric links packs trees in an orientation of them and uses each tree in both directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from .. import _core
from ..errors import PackingError
from .links import Network

#: A directed spanning tree as arcs (parent, child).
Arcs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Arborescence:
    """A directed spanning tree on ranks with its rate in GB/s."""

    root: int
    rate: Fraction
    arcs: Arcs


def pack(network: Network, arcs: Sequence[tuple[int, int, int]], shares: Sequence[int], unit: Fraction) -> list[Arborescence]:
    """Arborescences, ``shares[r] * unit`` GB/s of them rooted at r, within ``arcs`` (capacities in ``unit``)."""
    if network.forwarders:
        raise PackingError("arborescences: switches must be removed first")
    packed = _core.pack_arborescences(network.nranks, list(arcs), list(shares))
    return [Arborescence(root, size * unit, tuple(map(tuple, tree))) for root, size, tree in packed]


def depth(root: int, arcs: Arcs) -> int:
    """Hops from the root to the farthest rank."""
    return max(_distances(root, arcs).values())


def reroot(tree: Arborescence) -> Arborescence:
    """The same undirected tree, rooted at a centre (the lowest-numbered one)."""
    ranks = sorted({v for arc in tree.arcs for v in arc})
    root = min(ranks, key=lambda r: (depth(r, tree.arcs), r))
    distance = _distances(root, tree.arcs)
    arcs = sorted(((a, b) if distance[a] < distance[b] else (b, a) for a, b in tree.arcs), key=lambda arc: (distance[arc[0]], arc))
    return Arborescence(root, tree.rate, tuple(arcs))


def merged(trees: Iterable[Arborescence]) -> list[Arborescence]:
    """Trees with the same root and arcs become one; the fastest come first."""
    total: dict[tuple[int, frozenset[tuple[int, int]]], list[Arborescence]] = {}
    for tree in trees:
        total.setdefault((tree.root, frozenset(tree.arcs)), []).append(tree)
    found = [Arborescence(same[0].root, sum((t.rate for t in same), Fraction(0)), same[0].arcs) for same in total.values()]
    return sorted(found, key=lambda t: (-t.rate, t.root, sorted(t.arcs)))


def _distances(root: int, arcs: Arcs) -> dict[int, int]:
    """Hops from ``root`` when arcs are used both ways."""
    around: dict[int, list[int]] = {root: []}
    for a, b in arcs:
        around.setdefault(a, []).append(b)
        around.setdefault(b, []).append(a)
    distance, queue = {root: 0}, [root]
    for v in queue:
        for w in around[v]:
            if w not in distance:
                distance[w] = distance[v] + 1
                queue.append(w)
    return distance
