"""The ways that one hop of a tree may take: from one device to another, through switches only.

Where relays act they are devices like the ranks: a way ends at them. With ``restricted``, ways are those that the driver
offers (``topology/peers.py``): NVLink for pairs that have it; beside it, and for pairs without peer access, a way that
crosses a CPU, in whose memory the data is staged; for other pairs any way. Ways over a network are not restricted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush

from ..topology import Path, Topology
from .links import Arc, Network, Vertex

#: Cost of a way and the vertices it passes; a way of more hops costs more at equal price (`STEP` a hop).
Ways = dict[tuple[Vertex, Vertex], tuple[int, Path]]
#: Prices are whole numbers times this; it is more than the hops of any tree, so hops decide between equal prices only.
STEP = 1 << 20


class Hops:
    """The permitted ways between actors (ranks, then relays) of a network."""

    def __init__(self, topology: Topology, network: Network, restricted: bool, reverse: bool = False) -> None:
        self.reverse = reverse
        self.actors: tuple[Vertex, ...] = (*range(network.nranks), *(d.name for d in topology.relays if d.name in network.forwarders))
        self.peers = topology.peers
        self.restricted = restricted
        self._out: dict[Vertex, list[Vertex]] = {}
        for u, v in sorted(network.capacity, key=str):
            self._out.setdefault(u, []).append(v)

    def cheapest(self, prices: Mapping[Arc, int]) -> Ways:
        """For every ordered pair of actors that a permitted way joins, the cheapest; prices are whole numbers.

        With ``reverse``, the way from a to b is one that data takes from b to a.
        """
        cost = {arc: price * STEP + 1 for arc, price in prices.items()}
        found: Ways = {}
        for a in self.actors:
            self._from(a, cost, found)
        return {(b, a): way for (a, b), way in found.items()} if self.reverse else found

    def _from(self, a: Vertex, cost: Mapping[Arc, int], found: Ways) -> None:
        others = [b for b in self.actors if b != a]
        if not self.restricted:
            _keep(found, a, others, self._search([(0, (a,))], cost))
            return
        fast = self._search([(0, (a,))], cost, self.peers.fast_arcs)
        any_way = self._search([(0, (a,))], cost)
        beside = self._search([(0, (a,))], cost, avoid_fast=True)
        # On from every CPU: what came up to it goes down again, over a switch it passed on the way up if need be.
        staged = self._search([beside[cpu] for cpu in sorted(self.peers.cpus) if cpu in beside], cost, avoid_fast=True)
        for b in others:
            if not self.peers.needs_staging(a, b):
                _keep(found, a, [b], any_way)
            else:
                _keep(found, a, [b], fast)
                _keep(found, a, [b], staged)

    def _search(
        self, starts: Sequence[tuple[int, Path]], cost: Mapping[Arc, int], only: frozenset[tuple[Vertex, Vertex]] | None = None, avoid_fast: bool = False
    ) -> dict[Vertex, tuple[int, Path]]:  # fmt: skip
        """Cheapest ways (Dijkstra) from where ``starts`` end, that go on from switches only."""
        queue = [(far, i, path) for i, (far, path) in enumerate(starts)]  # numbered, so that paths are never compared
        actors, known, pushed = set(self.actors), dict[Vertex, tuple[int, Path]](), len(queue)
        heapify(queue)
        while queue:
            far, _, path = heappop(queue)
            here = path[-1]
            if here in known:
                continue
            known[here] = far, path
            if here in actors and len(path) > 1:
                continue
            for there in self._out.get(here, ()):
                arc = (here, there)
                if there in known or (only is not None and arc not in only) or (avoid_fast and arc in self.peers.fast_arcs):
                    continue
                pushed += 1
                heappush(queue, (far + cost[arc], pushed, (*path, there)))
        return known


def _keep(found: Ways, a: Vertex, ends: Sequence[Vertex], ways: Mapping[Vertex, tuple[int, Path]]) -> None:
    for b in ends:
        if b in ways and ((a, b) not in found or ways[b][0] < found[a, b][0]):
            found[a, b] = ways[b]
