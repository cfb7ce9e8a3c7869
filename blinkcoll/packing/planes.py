"""Switches that are copies of each other (the planes of an NVSwitch fabric) planned as one.

Forwarders with the same neighbours, whose capacities are in one proportion, are merged; a tree through the merged one
is cut into one tree a plane. Nothing is lost: a plan's share on each plane fills that plane's links as the whole fills
the merged ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from ..topology import Path
from .arborescences import RoutedTree
from .links import Arc, Network, Vertex

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
    for share, chosen in slices({str(v) for path in tree.paths for v in path[1:-1]}, planes):
        paths = tuple(rename(path, chosen) for path in tree.paths) if chosen else tree.paths
        found.append(replace(tree, rate=tree.rate * share, paths=paths))
    return found


def slices(used: Iterable[str], planes: Planes) -> list[tuple[Fraction, dict[str, str]]]:
    """Shares that add up to 1, and for each the plane that every merged forwarder in ``used`` stands for."""
    groups = {s: planes[s] for s in sorted(used) if s in planes}
    edges = {Fraction(0), Fraction(1)}
    ends: dict[str, list[Fraction]] = {}
    for s, group in groups.items():
        ends[s] = [sum((share for _, share in group[: i + 1]), Fraction(0)) for i in range(len(group))]
        edges.update(ends[s])
    cuts = sorted(edges)
    found = []
    for low, high in pairwise(cuts):
        found.append((high - low, {s: next(name for (name, _), end in zip(group, ends[s], strict=True) if high <= end) for s, group in groups.items()}))
    return found


def rename(path: Path, chosen: Mapping[str, str]) -> Path:
    """The path with merged forwarders replaced by the chosen planes."""
    return tuple(chosen.get(v, v) if isinstance(v, str) else v for v in path)
