"""Forwarders between just two neighbours (a NIC between its GPU and the network), planned as the link they amount to."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

from ..topology import Path
from .links import Arc, Network, Vertex

#: Arc of the shorter network to the path it stands for, where that has a forwarder.
Series = Mapping[Arc, Path]


def contract_series(network: Network) -> tuple[Network, Series]:
    """The network without such forwarders, wherever their neighbours are not joined in another way."""
    capacity = dict(network.capacity)
    ways: dict[Arc, Path] = {}
    around: dict[Vertex, set[Vertex]] = {v: set() for v in network.vertices}
    for u, v in capacity:
        around[u].add(v)
        around[v].add(u)
    left = []
    for s in network.forwarders:
        ends = sorted(around[s], key=str)
        if len(ends) != 2 or ends[1] in around[ends[0]]:
            left.append(s)
            continue
        a, b = ends
        for u, v in ((a, b), (b, a)):
            first, second = capacity.pop((u, s), None), capacity.pop((s, v), None)
            if first is not None and second is not None:
                capacity[u, v] = min(first, second)
                ways[u, v] = _joined(ways.get((u, s), (u, s)), ways.get((s, v), (s, v)))
        for v, w in ((a, b), (b, a)):
            around[v].discard(s)
            around[v].add(w)
    return Network(network.nranks, tuple(left), capacity), ways


def _joined(first: Path, second: Path) -> Path:
    return first + second[1:]


def with_series(path: Path, ways: Series) -> Path:
    """The path in the network before."""
    whole: Path = path[:1]
    for arc in pairwise(path):
        whole += ways.get(arc, arc)[1:]
    return whole


def lengths_with_series(lengths: Mapping[Arc, Fraction], ways: Series, network: Network) -> dict[Arc, Fraction]:
    """A contracted link's length on the narrowest of the links it stands for."""
    found: dict[Arc, Fraction] = {}
    for arc, length in lengths.items():
        path = ways.get(arc, arc)
        narrow = min(pairwise(path), key=lambda hop: network.capacity[hop])
        found[narrow] = found.get(narrow, Fraction(0)) + length
    return found
