"""The servers of a topology as three-phase plans see them: what joins the ranks inside each, and its ways to the network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from ..errors import PackingError
from ..topology import BETWEEN_SERVERS, Topology, exact
from .links import Arc, Network, Vertex, network_of, reach, unreached

#: The network switch as every server calls it.
NETWORK = "network"


@dataclass(frozen=True)
class Server:
    """One server; its ranks are numbered from 0 here.

    Parameters
    ----------
    ranks
        The topology's rank of each.
    names
        The topology's names of its forwarders, by the names here (``f0``, ``f1`` ...), and of the network switch.
    inside
        What its trees may use.
    ways
        What its traffic to and from the network may use: no link joins two ranks, and none leads to a dead end.
    """

    ranks: tuple[int, ...]
    names: Mapping[str, str]
    inside: Network
    ways: Mapping[Arc, Fraction]

    def global_path(self, path: tuple[Vertex, ...]) -> tuple[Vertex, ...]:
        """A path by the names here, in the topology's."""
        return tuple(self.ranks[v] if isinstance(v, int) else self.names[v] for v in path)

    def alike(self, other: Server) -> bool:
        """Whether the two are one machine, rank for rank."""
        return dict(self.inside.capacity) == dict(other.inside.capacity) and dict(self.ways) == dict(other.ways)


def servers_of(topology: Topology, links: tuple[str, ...], local: str, rates: str) -> tuple[Server, ...]:
    """The servers in the order of ``Device.server``.

    Parameters
    ----------
    local
        Which links trees inside a server may use: ``"fastest"``, the fastest classes that join its ranks, or ``"all"``.

    Raises
    ------
    PackingError
        Where there is only one server, not exactly one network switch between them, or a server whose own links do not
        join its ranks.
    """
    numbers = sorted({device.server for device in topology.devices})
    between = [s.name for s in topology.switches if s.server == BETWEEN_SERVERS]
    if len(numbers) < 2:
        raise PackingError(f"topology {topology.name}: three phases need ranks in at least two servers, these are all in one")
    if len(between) != 1:
        raise PackingError(f"topology {topology.name}: three phases are planned over one network switch between servers, there are {len(between)}")
    if local not in ("fastest", "all"):
        raise PackingError(f"local={local!r}: expected 'fastest' or 'all'")
    return tuple(_server(topology, number, between[0], links, local, rates) for number in numbers)


def _server(topology: Topology, number: int, network: str, links: tuple[str, ...], local: str, rates: str) -> Server:
    ranks = tuple(rank for rank, device in enumerate(topology.devices) if device.server == number)
    forwarders = [*(d.name for d in topology.relays if d.server == number), *(s.name for s in topology.switches if s.server == number)]
    here: dict[Vertex, Vertex] = {rank: i for i, rank in enumerate(ranks)}
    here |= {name: f"f{i}" for i, name in enumerate(forwarders)}
    whole = {(here[u], here[v]): c for (u, v), c in network_of(topology, links, rates).capacity.items() if u in here and v in here}
    ways = {arc: c for arc, c in whole.items() if not all(isinstance(v, int) for v in arc)}
    for link in topology.links:
        a, b = topology.vertex(link.src), topology.vertex(link.dst)
        if link.kind in links and network in (a, b) and (a in here or b in here):
            arc = (here.get(a, NETWORK), here.get(b, NETWORK))
            ways[arc] = ways.get(arc, Fraction(0)) + exact(link.rate(rates))
    ways = _leading_on(ways)
    kinds = _local_links(topology, ranks, network, links) if local == "fastest" and len(ranks) > 1 else links
    inside = {(here[u], here[v]): c for (u, v), c in network_of(topology, kinds, rates).capacity.items() if u in here and v in here}
    touched = {v for arc in inside for v in arc if isinstance(v, str)}
    names = {str(here[name]): name for name in forwarders} | {NETWORK: network}
    server = Server(ranks, names, Network(len(ranks), tuple(sorted(touched, key=lambda f: int(f[1:]))), inside), ways)
    _check_joined(topology, number, server)
    return server


def _leading_on(ways: Mapping[Arc, Fraction]) -> dict[Arc, Fraction]:
    """Those that traffic with the network can take: not into a switch from which it gets no further without a rank."""
    forwards: dict[Vertex, list[Vertex]] = {}
    backwards: dict[Vertex, list[Vertex]] = {}
    for u, v in ways:
        if not isinstance(u, int) and not isinstance(v, int):
            forwards.setdefault(u, []).append(v)
            backwards.setdefault(v, []).append(u)
    entered, left = reach(forwards, NETWORK), reach(backwards, NETWORK)
    return {(u, v): c for (u, v), c in ways.items() if v in left or u in entered}


def _local_links(topology: Topology, ranks: Collection[int], network: str, links: tuple[str, ...]) -> tuple[str, ...]:
    """The fastest classes that join a server's ranks without the network, out of ``links``; all of these if none do."""
    alone = topology.subset([topology.devices[rank].name for rank in ranks], [d.name for d in topology.relays])
    alone = replace(alone, links=tuple(k for k in alone.links if network not in (k.src, k.dst)))
    kinds = tuple(kind for kind in alone.kinds() if kind in links)
    return next((kinds[:n] for n in range(1, len(kinds)) if unreached(alone, kinds[:n], "allreduce", None) is None), kinds)


def _check_joined(topology: Topology, number: int, server: Server) -> None:
    """Every rank reaches every other inside the server."""
    for turned in (False, True):
        out: dict[Vertex, list[Vertex]] = {}
        for u, v in server.inside.capacity:
            out.setdefault(v if turned else u, []).append(u if turned else v)
        seen = reach(out, 0)
        far = [rank for i, rank in enumerate(server.ranks) if i not in seen]
        if far:
            raise PackingError(
                f"topology {topology.name}: inside server {number} nothing joins rank {far[0]} ({topology.devices[far[0]].name}) "
                f"to rank {server.ranks[0]}; three phases need servers whose own links join their ranks"
            )
