"""The proof for trees with relays that act: prices of links under which every tree is dear.

With acting relays a collective's trees are Steiner trees: their vertices are the ranks and whichever relays they pass.
A cut still bounds them, but they need not reach it (coding might: Agarwal and Charikar, On the advantage of network
coding, 2004). The dual of their packing does: any prices prove rate x (cost of the cheapest tree) <= cost of all links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import lcm

from ..errors import PackingError
from ..topology import Topology
from .certificates import Vertex, _check_root, _equal, link_capacities

ACTING_MODEL = "trees over forwarding switches, relays copy and add"
#: The check looks at 3^n ways to divide n ranks.
MOST_RANKS = 10
_HALVES = {"broadcast": ("down",), "allgather": ("down",), "reduce": ("up",), "reducescatter": ("up",), "allreduce": ("down", "up")}


@dataclass(frozen=True)
class TreePriceCertificate:
    """A price for every link (those not listed have 0): broadcast, reduce, all-gather, reduce-scatter, all-reduce.

    Every byte takes a tree (all-reduce: one to its root and one from it) that pays each link it crosses, as often as it
    crosses it; so rate x (the least that a byte has to pay) <= sum of capacity x price. The least is computed exactly, by
    dynamic programming over the sets of ranks that a subtree may serve; relays may join any tree, and branch.
    """

    bound: Fraction
    prices: tuple[tuple[Vertex, Vertex, Fraction], ...]
    collective: str
    links: tuple[str, ...]
    root: int | None = None
    rates: str = "planning"
    model: str = ACTING_MODEL

    def check(self, topology: Topology) -> None:
        """Find what a byte has to pay at least, add up the links, and compare."""
        n = topology.nranks
        _check_root(self.collective, self.root, n)
        if self.collective not in _HALVES or n > MOST_RANKS:
            raise PackingError(f"certificate: prices of links bound tree collectives of up to {MOST_RANKS} ranks, not {self.collective} of {n}")
        capacity = link_capacities(topology, self.links, self.rates)
        price = {(u, v): p for u, v, p in self.prices}
        if any(p < 0 or arc not in capacity for arc, p in price.items()):
            raise PackingError("certificate: a price is negative or belongs to no link")
        scale = lcm(*(p.denominator for p in price.values()))
        whole = {arc: int(price.get(arc, Fraction(0)) * scale) for arc in capacity}
        relays = [d.name for d in topology.relays]
        costs = {"down": lambda: tree_costs(whole, n, relays), "up": lambda: tree_costs({(v, u): p for (u, v), p in whole.items()}, n, relays)}
        per_root = [sum(parts) for parts in zip(*(costs[half]() for half in _HALVES[self.collective]), strict=True)]
        if self.root is not None:
            due = Fraction(per_root[self.root])
        else:
            due = Fraction(min(per_root)) if self.collective == "allreduce" else Fraction(sum(per_root), n)
        if due <= 0:
            raise PackingError("certificate: some byte has to pay nothing")
        _equal(self.bound, sum((c * p for arc, p in whole.items() if (c := capacity[arc])), Fraction(0)) / due)

    def describe(self, topology: Topology) -> str:
        """The prices in words."""
        return f"prices on {len(self.prices)} links prove it: no tree, with whatever relays, pays less than its share of what they carry"


def tree_costs(price: Mapping[tuple[Vertex, Vertex], int], nranks: int, relays: Sequence[str]) -> list[int]:
    """For every rank the cost of the cheapest tree from it to all ranks."""
    actors: list[Vertex] = [*range(nranks), *relays]
    far = _distances(price, actors)

    @cache
    def served(ranks: frozenset[int]) -> dict[Vertex, int]:
        """From every actor, the cheapest tree to these ranks."""
        if len(ranks) == 1:
            (only,) = ranks
            return {v: far[v][only] for v in actors}
        first, *rest = sorted(ranks)
        forks = [frozenset({first, *(r for i, r in enumerate(rest) if chosen >> i & 1)}) for chosen in range((1 << len(rest)) - 1)]
        branch = {v: min(served(part)[v] + served(ranks - part)[v] for part in forks) for v in actors}
        return {v: min(far[v][w] + branch[w] for w in actors) for v in actors}

    return [served(frozenset(range(nranks)) - {root})[root] for root in range(nranks)]


def _distances(price: Mapping[tuple[Vertex, Vertex], int], actors: Sequence[Vertex]) -> dict[Vertex, dict[Vertex, int]]:
    """Between all pairs of actors, over whatever is cheapest (Bellman and Ford); more than all links where nothing leads."""
    nothing = 1 + sum(price.values())
    found: dict[Vertex, dict[Vertex, int]] = {}
    for a in actors:
        far: dict[Vertex, int] = {a: 0}
        changed = True
        while changed:
            changed = False
            for (u, v), p in price.items():
                if u in far and far[u] + p < far.get(v, nothing):
                    far[v] = far[u] + p
                    changed = True
        found[a] = {b: far.get(b, nothing) for b in actors}
    return found
