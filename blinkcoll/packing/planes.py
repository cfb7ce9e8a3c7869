"""Switches that are copies of each other (the planes of an NVSwitch fabric) planned as one.

Forwarders with the same neighbours, whose capacities are in one proportion, are merged; a tree through the merged one
is cut into one tree a plane. Nothing is lost: a plan's share on each plane fills that plane's links as the whole fills
the merged ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import accumulate, pairwise

from .arborescences import RoutedTree
from .links import Arc, Network, Vertex
from .plan import Flow

#: Merged forwarder to (name, share) of its planes; shares add up to 1.
Planes = Mapping[str, tuple[tuple[str, Fraction], ...]]


def merge_planes(network: Network) -> tuple[Network, Planes]:
    """The network with each group of planes as one forwarder (named after the first), and the groups."""
    around: dict[str, dict[tuple[Vertex, bool], Fraction]] = {s: {} for s in network.forwarders}
    for (u, v), c in network.capacity.items():
        if u in around:
            around[str(u)][v, True] = c
        if v in around:
            around[str(v)][u, False] = c
    alike: dict[frozenset[tuple[tuple[Vertex, bool], Fraction]], list[str]] = {}
    total = {s: sum(arcs.values(), Fraction(0)) for s, arcs in around.items()}
    for s, arcs in around.items():
        if all(isinstance(v, int) for v, _ in arcs):
            alike.setdefault(frozenset((key, c / total[s]) for key, c in arcs.items()), []).append(s)
    groups = [names for names in alike.values() if len(names) > 1]
    if not groups:
        return network, {}
    planes = {}
    into: dict[Vertex, Vertex] = {}
    for names in groups:
        whole = sum((total[s] for s in names), Fraction(0))
        planes[names[0]] = tuple((s, total[s] / whole) for s in names)
        into.update(dict.fromkeys(names, names[0]))
    capacity: dict[Arc, Fraction] = {}
    for (u, v), c in network.capacity.items():
        arc = (into.get(u, u), into.get(v, v))
        capacity[arc] = capacity.get(arc, Fraction(0)) + c
    forwarders = tuple(s for s in network.forwarders if into.get(s, s) == s)
    return Network(network.nranks, forwarders, capacity), planes


def with_planes(vertices: Iterable[Vertex], planes: Planes) -> frozenset[Vertex]:
    """The vertices of the network before merging that these stand for."""
    return frozenset(name for v in vertices for name in (_names(planes[v]) if isinstance(v, str) and v in planes else (v,)))


def _names(group: tuple[tuple[str, Fraction], ...]) -> tuple[str, ...]:
    return tuple(name for name, _ in group)


def split_tree(tree: RoutedTree, planes: Planes) -> list[RoutedTree]:
    """The tree cut into trees that each use one plane of every group."""
    found = []
    for share, chosen in slices({v for path in tree.paths for v in path[1:-1]}, planes):
        paths = tuple([tuple([chosen.get(v, v) for v in path]) for path in tree.paths]) if chosen else tree.paths
        found.append(RoutedTree(tree.root, tree.rate * share, paths))
    return found


def spread_flows(flows: list[Flow], planes: Planes) -> list[Flow]:
    """Each flow as one a plane."""
    found = []
    for flow in flows:
        for share, chosen in slices(flow.path[1:-1], planes):
            found.append(Flow(flow.src, flow.dst, flow.rate * share, tuple([chosen.get(v, v) for v in flow.path])))
    return found


def spread_exchange(flows: list[Flow], planes: Planes, nranks: int) -> list[Flow] | None:
    """An all-to-all in which every pair has one flow through the one merged switch: few flows need more than one plane.

    The pairs (a, a + d mod n) of one distance d use every port once. The distances are laid one after the other along
    the planes' shares (McNaughton's wrap-around rule, 1959), so each plane gets its share of every port and only the
    pairs on a boundary are cut. None where the flows are of another form.
    """
    hubs = {flow.path[1:-1] for flow in flows}
    if len(hubs) != 1 or len(flows) != nranks * (nranks - 1) or len({flow.rate for flow in flows}) != 1:
        return None
    (hub,) = hubs
    if len(hub) != 1 or hub[0] not in planes:
        return None
    ends = list(accumulate(share for _, share in planes[str(hub[0])]))
    pieces: dict[int, list[tuple[str, Fraction]]] = {}
    for d in range(1, nranks):
        low, high = Fraction(d - 1, nranks - 1), Fraction(d, nranks - 1)
        start = Fraction(0)
        pieces[d] = []
        for (name, _), end in zip(planes[str(hub[0])], ends, strict=True):
            part = min(high, end) - max(low, start)
            if part > 0:
                pieces[d].append((name, part * (nranks - 1) * flows[0].rate))
            start = end
    return [Flow(f.src, f.dst, rate, (f.src, name, f.dst)) for f in flows for name, rate in pieces[(f.dst - f.src) % nranks]]


def slices(used: Iterable[Vertex], planes: Planes) -> list[tuple[Fraction, dict[Vertex, str]]]:
    """Shares that add up to 1, and for each the plane that every merged forwarder in ``used`` stands for."""
    groups = {s: planes[s] for s in sorted(map(str, used)) if s in planes}
    ends = {s: list(accumulate(share for _, share in group)) for s, group in groups.items()}
    cuts = sorted({Fraction(0), Fraction(1)}.union(*ends.values()))
    found = []
    for low, high in pairwise(cuts):
        chosen: dict[Vertex, str] = {s: next(name for (name, _), end in zip(group, ends[s], strict=True) if high <= end) for s, group in groups.items()}
        found.append((high - low, chosen))
    return found
