"""Proofs that no plan can be faster, each checked in a few lines from the topology alone, without any planning code.

They name the class of algorithms that they speak of. ``MODEL``: data moves along trees (or paths) whose vertices are
ranks, switches pass on what they get and neither copy nor add. Without switches, on symmetric links, that holds for any
algorithm that neither splits nor codes elements. ``SWITCH_MODEL``: switches may copy and add, too; a cut alone bounds these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush

from ..errors import PackingError
from ..topology import Topology, exact

Vertex = int | str

MODEL = "trees over forwarding switches"
SWITCH_MODEL = "multicast/reduce switches"
RELAY_MODEL = "trees over forwarding switches and relays that only forward"


def link_capacities(topology: Topology, links: Collection[str], rates: str) -> dict[tuple[Vertex, Vertex], Fraction]:
    """GB/s of each directed pair over the links of these kinds: read here again, so that proofs need no planning code."""
    total: dict[tuple[Vertex, Vertex], Fraction] = {}
    for link in topology.links:
        if link.kind in links:
            pair = (topology.vertex(link.src), topology.vertex(link.dst))
            total[pair] = total.get(pair, Fraction(0)) + exact(link.rate(rates))
    return total


@dataclass(frozen=True)
class CutCertificate:
    """A set of vertices and what has to get in (or out).

    Whatever the plan, every byte whose home is outside must enter ``inside`` at least once when a rank inside is to
    have it, so rate <= scale * (capacity entering) (``direction="in"``), likewise leaving (``direction="out"``).

    All-reduce, either direction: an element, or a sum that it is part of, must leave ``inside`` when a rank outside is to
    have it, and enter it likewise.

    ``scale`` is 1 for broadcast, reduce and all-reduce, n / (ranks outside) for all-gather and reduce-scatter, and n / (ranks
    inside) for gather and scatter.
    """

    bound: Fraction
    inside: frozenset[Vertex]
    collective: str
    direction: str
    links: tuple[str, ...]
    root: int | None = None
    rates: str = "planning"
    model: str = MODEL

    def scale(self, nranks: int) -> Fraction:
        """algbw per GB/s of the cut's capacity; refuses sets that say nothing about the collective."""
        ranks = sum(1 for v in self.inside if isinstance(v, int))
        if not 0 < ranks < nranks:
            raise PackingError(f"certificate: the cut has {ranks} of {nranks} ranks inside, so nothing has to cross it")
        if self.collective in ("broadcast", "reduce", "gather", "scatter") and self.root in self.inside:
            raise PackingError(f"certificate: the root {self.root} is inside the cut, so nothing has to cross it")
        if self.collective in ("broadcast", "reduce", "allreduce"):
            return Fraction(1)
        if self.collective in ("gather", "scatter"):
            return Fraction(nranks, ranks)
        return Fraction(nranks, nranks - ranks)

    def check(self, topology: Topology) -> None:
        """Add up the capacity across the cut and compare."""
        _check_vertices(self.inside, topology)
        _check_root(self.collective, self.root, topology.nranks)
        wanted = "in" if self.collective in ("broadcast", "allgather", "scatter") else "out"
        if self.collective == "alltoall" or self.direction not in ((wanted,) if self.collective != "allreduce" else ("in", "out")):
            raise PackingError(f"certificate: a cut's {self.direction}-capacity does not bound {self.collective}")
        far, near = (0, 1) if self.direction == "in" else (1, 0)
        capacity = link_capacities(topology, self.links, self.rates)
        crossing = sum((c for arc, c in capacity.items() if arc[far] not in self.inside and arc[near] in self.inside), Fraction(0))
        _equal(self.bound, crossing * self.scale(topology.nranks))

    def describe(self, topology: Topology) -> str:
        """The cut in words."""
        way = "into" if self.direction == "in" else "out of"
        crossing = self.bound / self.scale(topology.nranks)
        return f"the cut {_names(self.inside, topology)} proves it: {_gb(crossing)} lead {way} it"


@dataclass(frozen=True)
class PartitionCertificate:
    """Disjoint vertex sets that hold all the ranks: all-reduce.

    Every byte's down tree enters all parts but the root's, and its up tree leaves them. What a switch outside all
    parts takes from parts it gives to parts, so an arc between two parts counts once and an arc between a part and
    such a switch half: 2 (parts - 1) rate <= the sum of what these can carry.
    """

    bound: Fraction
    parts: tuple[frozenset[Vertex], ...]
    links: tuple[str, ...]
    rates: str = "planning"
    model: str = MODEL

    def check(self, topology: Topology) -> None:
        """Check that the parts are a partition, add up and compare."""
        part_of: dict[Vertex, int] = {}
        for i, part in enumerate(self.parts):
            _check_vertices(part, topology)
            if not any(isinstance(v, int) for v in part):
                raise PackingError(f"certificate: part {i} holds no rank")
            for v in part:
                if v in part_of:
                    raise PackingError(f"certificate: {v!r} is in two parts")
                part_of[v] = i
        if any(rank not in part_of for rank in range(topology.nranks)) or len(self.parts) < 2:
            raise PackingError("certificate: the parts do not cover the ranks, or there is only one")
        total = Fraction(0)
        for (u, v), c in link_capacities(topology, self.links, self.rates).items():
            a, b = part_of.get(u), part_of.get(v)
            if a != b:
                total += c if a is not None and b is not None else c / 2
        _equal(self.bound, total / (2 * (len(self.parts) - 1)))

    def describe(self, topology: Topology) -> str:
        """The partition in words."""
        shown = " | ".join(_names(part, topology) for part in self.parts)
        return f"the partition {shown} proves it: each tree crosses it at least {len(self.parts) - 1} times"


@dataclass(frozen=True)
class TreeDualCertificate:
    """Weighted cuts and potentials: the dual of the linear program behind trees (see ``treelp``).

    Every tree away from its root enters each set A of ``cuts`` ("down") that holds a rank but not its root, every tree
    towards it leaves each set of an "up" cut. What a half sends through a forwarder is conserved, so a potential p there
    adds p(v) - p(u) to the arc (u, v) ("up": p(u) - p(v)) without changing the sum. An arc's price is what the dearer
    half pays on it, and rate x (weight a byte has to pay) <= sum of capacity x price.
    """

    bound: Fraction
    cuts: tuple[tuple[str, frozenset[Vertex], Fraction], ...]
    potentials: tuple[tuple[str, str, Fraction], ...]
    collective: str
    links: tuple[str, ...]
    root: int | None = None
    rates: str = "planning"
    model: str = MODEL

    def check(self, topology: Topology) -> None:
        """Price every arc, add up and compare."""
        _check_root(self.collective, self.root, topology.nranks)
        halves = {"broadcast": ("down",), "allgather": ("down",), "reduce": ("up",), "reducescatter": ("up",), "allreduce": ("down", "up")}
        capacity = link_capacities(topology, self.links, self.rates)
        potential: dict[tuple[str, Vertex], Fraction] = {(half, s): p for half, s, p in self.potentials}
        paid = dict.fromkeys(range(topology.nranks), Fraction(0))
        for half, inside, weight in self.cuts:
            _check_vertices(inside, topology)
            if half not in halves.get(self.collective, ()) or weight < 0 or not any(isinstance(v, int) for v in inside):
                raise PackingError(f"certificate: a {half} cut of weight {weight} says nothing about {self.collective}")
            for rank in paid:
                paid[rank] += 0 if rank in inside else weight
        if any(isinstance(s, int) for _, s in potential):
            raise PackingError("certificate: a potential at a vertex that does not merely forward")
        total = Fraction(0)
        for (u, v), c in capacity.items():
            prices = [Fraction(0)]
            for half in halves[self.collective]:
                a, b = (u, v) if half == "down" else (v, u)
                entered = sum((w for h, inside, w in self.cuts if h == half and a not in inside and b in inside), Fraction(0))
                prices.append(entered + potential.get((half, b), 0) - potential.get((half, a), 0))
            total += c * max(prices)
        if self.root is not None:
            due = paid[self.root]
        elif self.collective == "allreduce":
            due = min(paid.values())
        else:
            due = sum(paid.values(), Fraction(0)) / topology.nranks
        if due <= 0:
            raise PackingError("certificate: some byte has to pay nothing")
        _equal(self.bound, total / due)

    def describe(self, topology: Topology) -> str:
        """The dual in words."""
        sets = ", ".join(f"{weight} x {half} {_names(inside, topology)}" for half, inside, weight in self.cuts)
        return f"weighted cuts prove it: {sets}"


@dataclass(frozen=True)
class MetricCertificate:
    """A length for every link (those not listed have 0): all-to-all.

    A pair's data travels at least the pair's distance, so rate of a pair x (sum of distances) <= sum of capacity x length.
    """

    bound: Fraction
    lengths: tuple[tuple[Vertex, Vertex, Fraction], ...]
    links: tuple[str, ...]
    rates: str = "planning"
    model: str = "any routing that does not code"

    def check(self, topology: Topology) -> None:
        """Compute all distances, add up and compare."""
        capacity = link_capacities(topology, self.links, self.rates)
        lengths = {(u, v): length for u, v, length in self.lengths}
        if any(length < 0 or arc not in capacity for arc, length in lengths.items()):
            raise PackingError("certificate: a length is negative or belongs to no link")
        far = sum((sum(distances(capacity, topology.nranks, s, lengths).values(), Fraction(0)) for s in range(topology.nranks)), Fraction(0))
        if far <= 0:
            raise PackingError("certificate: no pair has to travel any length")
        total = sum((capacity[arc] * length for arc, length in lengths.items()), Fraction(0))
        _equal(self.bound, topology.nranks * total / far)

    def describe(self, topology: Topology) -> str:
        """The metric in words."""
        sources = {u for u, _, _ in self.lengths}
        if len({length for *_, length in self.lengths}) == 1 and len(sources) == 1:
            return f"what leaves {_names(frozenset(sources), topology)} proves it"
        return f"lengths on {len(self.lengths)} links prove it: all pairs' distances need more than the links carry beyond it"


def distances(
    arcs: Iterable[tuple[Vertex, Vertex]], nranks: int, source: int, lengths: Mapping[tuple[Vertex, Vertex], Fraction]
) -> dict[Vertex, Fraction]:
    """Distances from a rank to the other ranks (Dijkstra); links without a length have 0."""
    out: dict[Vertex, list[tuple[Vertex, Fraction]]] = {}
    for u, v in arcs:
        out.setdefault(u, []).append((v, lengths.get((u, v), Fraction(0))))
    known: dict[Vertex, Fraction] = {}
    queue: list[tuple[Fraction, int, Vertex]] = [(Fraction(0), 0, source)]
    pushed = 0
    while queue:
        far, _, u = heappop(queue)
        if u in known:
            continue
        known[u] = far
        for v, length in out.get(u, ()):
            if v not in known:
                pushed += 1
                heappush(queue, (far + length, pushed, v))
    if any(r not in known for r in range(nranks)):
        raise PackingError(f"certificate: rank {source} does not reach every rank")
    return {r: known[r] for r in range(nranks) if r != source}


def _check_vertices(vertices: Iterable[Vertex], topology: Topology) -> None:
    """A set may name only ranks and forwarders that exist: one more rank would have to be paid for by nobody."""
    forwarders = {s.name for s in topology.switches} | {d.name for d in topology.relays}
    for v in vertices:
        exists = v in forwarders if isinstance(v, str) else type(v) is int and 0 <= v < topology.nranks
        if not exists:
            raise PackingError(f"certificate: {v!r} is no rank, switch or relay of {topology.name}")


def _check_root(collective: str, root: int | None, nranks: int) -> None:
    if (collective in ("broadcast", "reduce", "gather", "scatter")) != (root is not None) or (root is not None and not 0 <= root < nranks):
        raise PackingError(f"certificate: {collective} of {nranks} ranks cannot have root {root!r}")


def _equal(claimed: Fraction, found: Fraction) -> None:
    if claimed != found:
        raise PackingError(f"certificate: claims a bound of {claimed} GB/s, the links give {found}")


def _names(vertices: frozenset[Vertex], topology: Topology) -> str:
    ranks = sorted(v for v in vertices if isinstance(v, int))
    others = sorted(v for v in vertices if not isinstance(v, int))
    return "{" + ", ".join([*map(str, ranks), *others]) + "}"


def _gb(rate: Fraction) -> str:
    return f"{float(rate):.6g} GB/s"
