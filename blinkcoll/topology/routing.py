"""The way data takes between two devices that no link joins: through switches only, never through another device.

Fewest hops first, the widest narrowest link next, names last, so that the answer never depends on listing order
(Dijkstra over lexicographic labels).
"""

from __future__ import annotations

import heapq
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
    out, switches = topology.ways_on, topology.switch_names
    queue: list[tuple[int, Fraction, tuple[str, ...], Path]] = [(0, Fraction(0), (), (src,))]
    done: set[int | str] = set()
    while queue:
        hops, minus_width, _, path = heapq.heappop(queue)
        here = path[-1]
        if here == dst:
            return path
        if here in done:
            continue
        done.add(here)
        for there, width in out.get(here, ()):
            if there == dst or there in switches:
                narrowest = width if not hops else min(-minus_width, width)
                longer = (*path, there)
                heapq.heappush(queue, (hops + 1, -narrowest, tuple(map(str, longer)), longer))
    a, b = topology.devices[src].name, topology.devices[dst].name
    raise TopologyError(f"topology {topology.name}: nothing leads from {a} to {b} but through other devices")
