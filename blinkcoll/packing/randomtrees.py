"""Random spanning trees over wide links: what a packing that aims at the full rate does not think of.

Prim's algorithm on random keys, drawn so that a link of twice the capacity is about twice as likely to come first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from .arborescences import RoutedTree, reroot
from .links import Network


def random_trees(network: Network, root: int, count: int, reverse: bool, undirected: bool) -> Iterator[RoutedTree]:
    """The widest tree and random ones, that lead away from ``root`` (over reversed links if ``reverse``), or undirected ones around their centres.

    Rates are 0: they are for the caller to choose. Only ranks and the links between them are used; fewer trees come
    where these do not join all ranks.
    """
    draw = random.Random(root)
    arcs = [(v, u, float(c)) if reverse else (u, v, float(c)) for u, v, c in network.arcs if max(u, v) < network.nranks]
    largest = max((c for *_, c in arcs), default=1.0)
    for number in range(count):
        # The first tree is the widest there is: no other has a wider narrowest link.
        key = {(u, v): c if number == 0 else draw.random() ** (largest / c) for u, v, c in arcs}
        if undirected:
            key = {(u, v): key[min(u, v), max(u, v)] for u, v in key}
        inside, paths = {root}, []
        while True:
            ways = [(k, arc) for arc, k in key.items() if arc[0] in inside and arc[1] not in inside]
            if not ways:
                break
            _, best = max(ways)
            inside.add(best[1])
            paths.append(best)
        if len(inside) == network.nranks:
            tree = RoutedTree(root, network.unit * 0, tuple(paths))
            yield reroot(tree) if undirected else tree
