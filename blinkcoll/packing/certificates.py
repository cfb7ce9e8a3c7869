"""Proofs that no plan can be faster, each checked in a few lines from the topology alone.

All speak of the class of algorithms ``MODEL``: data moves along trees (or paths) whose vertices are ranks, switches
pass on what they get and neither copy nor add. Without switches, on symmetric links, that holds for any algorithm that
neither splits nor codes elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ..errors import PackingError
from ..topology import Topology
from .links import Vertex, network_of

MODEL = "trees over forwarding switches"


@dataclass(frozen=True)
class CutCertificate:
    """A set of vertices and what has to get in (or out).

    Whatever the plan, every byte whose home is outside must enter ``inside`` at least once when a rank inside is to
    have it, so rate <= scale * (capacity entering) (``direction="in"``), likewise leaving (``direction="out"``).

    ``scale`` is 1 for broadcast and reduce, n / (ranks outside) for all-gather and reduce-scatter, and n / (ranks
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
        if self.collective in ("broadcast", "reduce"):
            return Fraction(1)
        if self.collective in ("gather", "scatter"):
            return Fraction(nranks, ranks)
        return Fraction(nranks, nranks - ranks)

    def check(self, topology: Topology) -> None:
        """Add up the capacity across the cut and compare."""
        wanted = "in" if self.collective in ("broadcast", "allgather", "scatter") else "out"
        if self.direction != wanted or self.collective in ("allreduce", "alltoall"):
            raise PackingError(f"certificate: a cut's {self.direction}-capacity does not bound {self.collective}")
        far, near = (0, 1) if self.direction == "in" else (1, 0)
        capacity = network_of(topology, self.links, self.rates).capacity
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
            if not any(isinstance(v, int) for v in part):
                raise PackingError(f"certificate: part {i} holds no rank")
            for v in part:
                if v in part_of:
                    raise PackingError(f"certificate: {v!r} is in two parts")
                part_of[v] = i
        if any(rank not in part_of for rank in range(topology.nranks)) or len(self.parts) < 2:
            raise PackingError("certificate: the parts do not cover the ranks, or there is only one")
        total = Fraction(0)
        for (u, v), c in network_of(topology, self.links, self.rates).capacity.items():
            a, b = part_of.get(u), part_of.get(v)
            if a != b:
                total += c if a is not None and b is not None else c / 2
        _equal(self.bound, total / (2 * (len(self.parts) - 1)))

    def describe(self, topology: Topology) -> str:
        """The partition in words."""
        shown = " | ".join(_names(part, topology) for part in self.parts)
        return f"the partition {shown} proves it: each tree crosses it at least {len(self.parts) - 1} times"


def _equal(claimed: Fraction, found: Fraction) -> None:
    if claimed != found:
        raise PackingError(f"certificate: claims a bound of {claimed} GB/s, the links give {found}")


def _names(vertices: frozenset[Vertex], topology: Topology) -> str:
    ranks = sorted(v for v in vertices if isinstance(v, int))
    others = sorted(v for v in vertices if not isinstance(v, int))
    return "{" + ", ".join([*map(str, ranks), *others]) + "}"


def _gb(rate: Fraction) -> str:
    return f"{float(rate):.6g} GB/s"
