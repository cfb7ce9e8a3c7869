"""The way data takes between two devices that no link joins: through switches only, never through another device.

Fewest hops first, the widest narrowest link next, names last, so that the answer never depends on listing order
(Dijkstra over lexicographic labels).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from fractions import Fraction

from ..errors import TopologyError
from .model import Topology

Path = tuple[int | str, ...]


def route(topology: Topology, src: int, dst: int) -> Path:
    """The path from rank ``src`` to rank ``dst``: ``(src, switch..., dst)``.

    Raises
    ------
    TopologyError
        Where neither a link nor switches lead from one to the other.
    """
    if (src, dst) not in topology._routes:
        topology._routes[src, dst] = _search(topology, src, dst)
    return topology._routes[src, dst]


def _search(topology: Topology, src: int, dst: int) -> Path:
    hops_left, halfway, total = _meeting(topology, src, dst)
    layers: dict[int, list[int | str]] = {}
    for vertex, left in hops_left.items():
        layers.setdefault(left, []).append(vertex)
    queue: list[tuple[int, Fraction, tuple[str, ...], Path]] = [(0, Fraction(0), (), (src,))]
    done: set[int | str] = set()
    while True:
        hops, minus_width, _, path = heapq.heappop(queue)
        here = path[-1]
        if here == dst:
            return path
        if here in done:
            continue
        done.add(here)
        ways = topology.ways_on.get(here, ()) if hops + 1 < halfway else _into(topology, here, layers.get(total - hops - 1, ()))
        for there, width in ways:
            if there in topology.switch_names or there == dst:
                narrowest = width if not hops else min(-minus_width, width)
                longer = (*path, there)
                heapq.heappush(queue, (hops + 1, -narrowest, tuple(map(str, longer)), longer))


def _into(topology: Topology, here: int | str, some: Sequence[int | str]) -> Iterator[tuple[int | str, Fraction]]:
    """The ways from a vertex, which may have thousands, that lead into these few."""
    on = topology.ways_on[here]
    for there in some:
        back = topology.ways_back[there]
        yield from ((there, w) for v, w in back if v == here) if len(back) < len(on) else ((v, w) for v, w in on if v == there)


def _meeting(topology: Topology, src: int, dst: int) -> tuple[dict[int | str, int], int, int]:
    """The hops from every vertex near ``dst`` to it, how far from ``src`` that begins, and the hops of the whole way.

    Found from both ends, one hop at a time at the end that has fewer vertices to look at: on a cluster the search does not
    go through the network into every server.
    """
    switches = topology.switch_names
    depths: tuple[dict[int | str, int], dict[int | str, int]] = ({src: 0}, {dst: 0})
    fronts: list[list[int | str]] = [[src], [dst]]
    reached = [0, 0]
    while not depths[0].keys() & fronts[1] and not depths[1].keys() & fronts[0]:
        if not fronts[0] or not fronts[1]:
            a, b = topology.devices[src].name, topology.devices[dst].name
            raise TopologyError(f"topology {topology.name}: nothing leads from {a} to {b} but through other devices")
        end = int(len(fronts[1]) < len(fronts[0]))
        neighbours, target = (topology.ways_back, src) if end else (topology.ways_on, dst)
        reached[end] += 1
        found = {there for here in fronts[end] for there, _ in neighbours.get(here, ()) if there in switches or there == target}
        fronts[end] = [there for there in found if there not in depths[end]]
        depths[end].update(dict.fromkeys(fronts[end], reached[end]))
    return depths[1], reached[0], sum(reached)
