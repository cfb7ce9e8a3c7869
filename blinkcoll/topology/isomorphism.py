"""Whether two topologies are one machine under other names.

Individualisation and refinement (as in McKay, "Practical graph isomorphism", Congressus Numerantium 1981): vertices are
split into classes by their kind and by the classes they have links to, again and again until nothing splits; while a
class holds several, one vertex of it is singled out in the first graph and each of the class in turn in the second.
Kinds, rates, lanes and generations of links count; latencies, ports and measured rates do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from .model import Topology


@dataclass(frozen=True)
class _Graph:
    """Per vertex its colour and its (neighbour, label) pairs; a label tells direction and links."""

    colours: dict[str, Hashable]
    around: dict[str, list[tuple[str, Hashable]]]


def isomorphic(a: Topology, b: Topology, same_ranks: bool = False) -> bool:
    """Whether a mapping of vertices turns ``a`` into ``b``; with ``same_ranks`` only one that keeps every rank.

    Notes
    -----
    Exact. A refinement is O(links log vertices) a round, and on trees, meshes and cubes one branch is followed; regular
    graphs far from any machine's can take exponentially many.
    """
    labels: dict[Hashable, int] = {}
    left, right = _graph(a, same_ranks, labels), _graph(b, same_ranks, labels)
    return _match(left, right, left.colours, right.colours)


def _graph(topology: Topology, same_ranks: bool, labels: dict[Hashable, int]) -> _Graph:
    """The vertices and links of a topology; ``labels`` numbers sets of links alike for both graphs."""
    colours: dict[str, Hashable] = {}
    for rank, device in enumerate(topology.devices):
        colours[device.name] = ("rank", rank if same_ranks else -1, device.kind, device.arch)
    for device in topology.relays:
        colours[device.name] = ("relay", -1, device.kind, device.arch)
    for switch in topology.switches:
        colours[switch.name] = (switch.kind, switch.multicast, switch.reduce)
    links: dict[tuple[str, str], Counter[Hashable]] = {}
    for link in topology.links:
        links.setdefault((link.src, link.dst), Counter())[link.kind, link.capacity, link.lanes, link.generation] += 1
    for pair in topology.no_peer_access:
        links.setdefault(pair, Counter())["no peer access"] += 1
    around: dict[str, list[tuple[str, Hashable]]] = {v: [] for v in colours}
    for (src, dst), found in links.items():
        label = labels.setdefault(frozenset(found.items()), len(labels))
        around[src].append((dst, ("out", label)))
        around[dst].append((src, ("in", label)))
    return _Graph(colours, around)


def _match(left: _Graph, right: _Graph, a: dict[str, Hashable], b: dict[str, Hashable]) -> bool:
    refined = _refine(left, right, a, b)
    if refined is None:
        return False
    a, b = refined
    sizes = Counter(a.values())
    shared = [colour for colour, size in sizes.items() if size > 1]
    if not shared:
        return _agree(left, right, a, b)
    colour = min(shared, key=lambda c: (sizes[c], str(c)))
    single = next(v for v, c in a.items() if c == colour)
    alone = ("alone", len(sizes))
    return any(_match(left, right, {**a, single: alone}, {**b, v: alone}) for v, c in b.items() if c == colour)


def _refine(
    left: _Graph, right: _Graph, a: dict[str, Hashable], b: dict[str, Hashable]
) -> tuple[dict[str, Hashable], dict[str, Hashable]] | None:
    """Colours that no further round splits, the same in both graphs; None where the two differ."""
    while True:
        if Counter(a.values()) != Counter(b.values()):
            return None
        numbers: dict[Hashable, Hashable] = {}
        finer = [
            {
                v: numbers.setdefault((old[v], frozenset(Counter((old[w], label) for w, label in graph.around[v]).items())), len(numbers))
                for v in old
            }
            for graph, old in ((left, a), (right, b))
        ]
        if len(numbers) == len(set(a.values())):
            return a, b
        a, b = finer


def _agree(left: _Graph, right: _Graph, a: dict[str, Hashable], b: dict[str, Hashable]) -> bool:
    """Whether the mapping that colours give, one vertex each, keeps every link."""
    named = {colour: v for v, colour in b.items()}
    return all(
        Counter((named[a[w]], label) for w, label in around) == Counter(right.around[named[a[v]]])
        for v, around in left.around.items()
    )
