"""Which links a plan may use, and what they carry: the exact capacities between vertices that packing works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import gcd, lcm

from ..errors import PackingError
from ..topology import LINK_KINDS, Topology, exact
from .collectives import ROOTED

Vertex = int | str
Number = Fraction | int
Arc = tuple[Vertex, Vertex]
#: The compiled packers count in 64-bit integers and scale by factors up to about this.
_LARGEST = 1 << 62


@dataclass(frozen=True)
class Network:
    """Directed capacities in GB/s between ranks (0..n-1) and the vertices that only forward (switches, relays)."""

    nranks: int
    forwarders: tuple[str, ...]
    capacity: Mapping[Arc, Fraction]

    @cached_property
    def vertices(self) -> tuple[Vertex, ...]:
        """Ranks, then forwarders."""
        return (*range(self.nranks), *self.forwarders)

    @cached_property
    def number(self) -> dict[Vertex, int]:
        """The position of each vertex in :attr:`vertices`: a rank is its own."""
        return {v: i for i, v in enumerate(self.vertices)}

    @cached_property
    def unit(self) -> Fraction:
        """The largest rate in GB/s of which every capacity is a multiple."""
        values = self.capacity.values()
        return Fraction(gcd(*(c.numerator for c in values)), lcm(*(c.denominator for c in values))) if values else Fraction(1)

    @cached_property
    def arcs(self) -> list[tuple[int, int, int]]:
        """Arcs as (from, to, capacity in :attr:`unit`), sorted."""
        number, unit = self.number, self.unit
        return sorted((number[u], number[v], int(c / unit)) for (u, v), c in self.capacity.items())

    @cached_property
    def symmetric(self) -> bool:
        """Whether both directions of every pair carry the same."""
        return all(self.capacity.get((v, u)) == c for (u, v), c in self.capacity.items())

    @cached_property
    def balanced(self) -> bool:
        """Whether every forwarder can give out exactly what it can take in."""
        excess = dict.fromkeys(self.forwarders, Fraction(0))
        for (u, v), c in self.capacity.items():
            if v in excess:
                excess[str(v)] += c
            if u in excess:
                excess[str(u)] -= c
        return not any(excess.values())


def network_of(topology: Topology, links: Iterable[str], rates: str = "planning") -> Network:
    """The capacities of the links of these kinds."""
    kinds = set(links)
    capacity: dict[Arc, Fraction] = {}
    for link in topology.links:
        if link.kind in kinds:
            key = (topology.vertex(link.src), topology.vertex(link.dst))
            capacity[key] = capacity.get(key, Fraction(0)) + exact(link.rate(rates), f"capacity of {link.src}->{link.dst}")
    touched = {v for arc in capacity for v in arc}
    names = [*(relay.name for relay in topology.relays), *(switch.name for switch in topology.switches)]
    return Network(topology.nranks, tuple(name for name in names if name in touched), capacity)


def choose_links(topology: Topology, collective: str, root: int | None, links: str | Iterable[str]) -> tuple[str, ...]:
    """The kinds of link to use, fastest first.

    ``"fastest"`` adds classes from the fastest down until the ranks are connected, ``"all"`` takes all of them, and a
    list is taken as it is.

    Raises
    ------
    PackingError
        Where a kind is unknown or the ranks are not connected by the links; the message names who cannot be reached.
    """
    present = topology.kinds()
    if links == "fastest":
        for count in range(1, len(present)):
            if unreached(topology, present[:count], collective, root) is None:
                return present[:count]
        chosen = present
    elif links == "all":
        chosen = present
    else:
        if not isinstance(links, Iterable):
            raise PackingError(f"links={links!r}: expected 'fastest', 'all' or kinds out of {', '.join(LINK_KINDS)}")
        wanted = {links.upper()} if isinstance(links, str) else {str(kind).upper() for kind in links}
        unknown = wanted - set(LINK_KINDS)
        if unknown or not wanted:
            raise PackingError(f"links={links!r}: expected 'fastest', 'all' or kinds out of {', '.join(LINK_KINDS)}")
        chosen = tuple(kind for kind in present if kind in wanted)
    broken = unreached(topology, chosen, collective, root)
    if broken is not None:
        src, dst = (f"rank {r} ({topology.devices[r].name})" for r in broken)
        kinds = ", ".join(chosen) if chosen else "none"
        raise PackingError(f"topology {topology.name}: {collective} is not possible: nothing leads from {src} to {dst} over its links ({kinds})")
    return chosen


def unreached(topology: Topology, kinds: Iterable[str], collective: str, root: int | None) -> tuple[int, int] | None:
    """A pair (from, to) of ranks that the collective needs and no path joins, or None."""
    wanted = set(kinds)
    out: dict[Vertex, list[Vertex]] = {}
    back: dict[Vertex, list[Vertex]] = {}
    for link in topology.links:
        if link.kind in wanted:
            a, b = topology.vertex(link.src), topology.vertex(link.dst)
            out.setdefault(a, []).append(b)
            back.setdefault(b, []).append(a)
    start = 0 if root is None else root
    if collective not in ROOTED or collective in ("broadcast", "scatter"):
        far = set(range(topology.nranks)) - reach(out, start)
        if far:
            return start, min(far)
    if collective not in ROOTED or collective in ("reduce", "gather"):
        far = set(range(topology.nranks)) - reach(back, start)
        if far:
            return min(far), start
    return None


def reach(out: Mapping[Vertex, list[Vertex]], start: Vertex) -> set[Vertex]:
    """What arcs out of each vertex lead to from ``start``."""
    seen, stack = {start}, [start]
    while stack:
        for v in out.get(stack.pop(), ()):
            if v not in seen:
                seen.add(v)
                stack.append(v)
    return seen
