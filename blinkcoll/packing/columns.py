"""The best rate of trees of a given kind, by a linear program over trees that are generated as prices ask for them.

Its dual gives each link a price: maximise what the cheapest tree costs, under prices at which all links together cost 1.
The optimum z is one over the rate, and any prices at all prove a bound: rate x (cost of the cheapest tree) <= cost of all
links. Trees are the dual's rows; those that are too cheap at the prices of the moment are added until there are none
(column generation: Gilmore and Gomory, 1961; for Steiner trees Jain, Mahdian and Salavatipour, Packing Steiner trees,
SODA 2003, whose separation oracle is the cheapest tree). As everywhere here floats only propose: the last prices are
rational, and that no tree is cheaper is checked on whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm
from time import monotonic

from ..topology import Path
from .exactlp import BudgetExceeded, FloatSolver, LinearProgram, Solution, maximise
from .hops import Hops, Ways
from .links import Arc, Network
from .steiner import Branches, cheapest_trees

#: Whole numbers that float prices are rounded to; a tree this much cheaper than the others is worth adding.
_GRID, _WORTH = 1 << 30, 1e-7
#: At least so much of the time is left for the rational solution.
_SOLVER_SHARE = 0.6


@dataclass(frozen=True)
class Column:
    """A tree: paths of its halves in the direction of travel, None where it has no such half."""

    root: int
    down: tuple[Path, ...] | None
    up: tuple[Path, ...] | None


@dataclass(frozen=True)
class Packed:
    """Trees with rates in GB/s (all-gather, reduce-scatter: rates of all roots together), and prices that prove ``bound``.

    ``columns`` are all trees that were generated. ``rate == bound`` unless time ran out.
    """

    rate: Fraction
    bound: Fraction
    trees: tuple[tuple[Column, Fraction], ...]
    columns: tuple[Column, ...]
    prices: dict[Arc, Fraction]


class TreeColumns:
    """The linear program for one collective on one network.

    Parameters
    ----------
    halves
        ``("down",)``, ``("up",)`` or both; ``("both",)`` for all-reduce on symmetric links, where one undirected tree
        serves both ways.
    root
        The root of all trees, or None: free, or, with ``each``, every rank of the same rate.
    """

    def __init__(self, hops: Mapping[str, Hops], network: Network, halves: Sequence[str], root: int | None, each: bool = False) -> None:
        self.hops, self.network, self.halves, self.each = hops, network, tuple(halves), each
        self.both = self.halves == ("both",)
        self.roots = [root] if root is not None else [0] if self.both else list(range(network.nranks))
        self.actors = next(iter(hops.values())).actors
        self.program = LinearProgram()
        self.price = {arc: self.program.add_variable() for arc in sorted({self._edge(arc) for arc in network.capacity}, key=str)}
        cheapest = [self.program.add_variable(1) for _ in (self.roots if each else [0])]
        self.cheapest = dict(zip(self.roots, cheapest * (1 if each else len(self.roots)), strict=True))
        self.whole = self.program.add_row({v: int(network.capacity[arc] / network.unit) for arc, v in self.price.items()}, 1)
        self.rows: dict[Column, int] = {}

    def _edge(self, arc: Arc) -> Arc:
        """The arc that stands for both directions of a link where trees are used both ways."""
        return min(arc, arc[::-1], key=lambda a: (str(a[0]), str(a[1]))) if self.both else arc

    def add(self, column: Column) -> bool:
        """Demand that this tree is not cheaper than the others; False where that is demanded already."""
        if column in self.rows:
            return False
        row: dict[int, Fraction | int] = {self.cheapest[column.root]: 1}
        for arc, times in self._uses(column).items():
            row[self.price[arc]] = -times
        self.rows[column] = self.program.add_row(row, 0)
        return True

    def _uses(self, column: Column) -> dict[Arc, int]:
        uses: dict[Arc, int] = {}
        for path in (*(column.down or ()), *(column.up or ())):
            for hop in pairwise(path):
                arc = self._edge(hop)
                uses[arc] = uses.get(arc, 0) + 1
        return uses

    def solve(self, budget_s: float, known: Iterable[Column] = ()) -> Packed:
        """The optimum, or what was found in the time, with the bound that its prices prove; ``known`` are trees to start from."""
        for column in (*self._at({arc: 1 + int(_GRID * self.network.unit / self.network.capacity[arc]) for arc in self.price}), *known):
            self.add(column)
        floats = FloatSolver(self.program)  # loads the solver, which counts for nobody
        deadline = monotonic() + budget_s
        self._add_by_floats(floats, monotonic() + budget_s * _SOLVER_SHARE)
        while True:
            solution = maximise(self.program)
            prices, scale = _whole([solution.x[v] for v in self.price.values()])
            integral = dict(zip(self.price, prices, strict=True))
            columns = self._at(integral)
            # Out of time, any prices do that prove something: under them no tree is free.
            if (monotonic() > deadline and self._due(columns, integral) > 0) or not any([self.add(column) for column in columns]):
                return self._packed(solution, columns, integral, scale)

    def _due(self, cheapest: Sequence[Column], prices: Mapping[Arc, int]) -> int:
        """What a byte has to pay at least at these prices: the least of the roots' cheapest trees, or with ``each`` their sum."""
        costs = [sum(times * prices[arc] for arc, times in self._uses(column).items()) for column in cheapest]
        return sum(costs) if self.each else min(costs)

    def _add_by_floats(self, floats: FloatSolver, deadline: float) -> None:
        """Trees that are cheaper than the rest at prices in floats, until there are none or the time is up."""
        while (left := deadline - monotonic()) > 0:
            try:
                values = floats.values(left)
            except BudgetExceeded:
                return
            largest = max(values[v] for v in self.price.values())
            prices = {arc: int(max(0.0, values[v]) / largest * _GRID) for arc, v in self.price.items()}
            worth = [
                column
                for column in self._at(prices)
                if sum(times * values[self.price[arc]] for arc, times in self._uses(column).items()) < values[self.cheapest[column.root]] * (1 - _WORTH)
            ]
            if not any([self.add(column) for column in worth]):
                return

    def _at(self, prices: Mapping[Arc, int]) -> list[Column]:
        """The cheapest trees at whole prices: one a root."""
        whole = {arc: prices[self._edge(arc)] for arc in self.network.capacity} if self.both else prices
        found: dict[str, tuple[Ways, dict[int, Branches]]] = {}
        for half in self.halves:
            ways = self.hops[half].cheapest(whole)
            found[half] = ways, cheapest_trees(self.actors, self.network.nranks, self.roots, ways)

        def paths(half: str, root: int) -> tuple[Path, ...] | None:
            if half not in found:
                return None
            ways, trees = found[half]
            return tuple(ways[branch][1] for branch in trees[root])

        return [Column(root, paths("both" if self.both else "down", root), paths("up", root)) for root in self.roots]

    def _packed(self, solution: Solution, cheapest: Sequence[Column], prices: Mapping[Arc, int], scale: int) -> Packed:
        unit, price = self.network.unit, solution.y[self.whole]
        trees, left = [], dict.fromkeys(set(self.cheapest.values()), unit / price)
        for column, row in self.rows.items():
            # A root whose trees cost nothing may have got more than the others.
            x = min(solution.y[row] / price * unit, left[self.cheapest[column.root]])
            if x:
                left[self.cheapest[column.root]] -= x
                trees.append((column, x))
        due = Fraction(self._due(cheapest, prices), scale)
        # What all links cost is 1, or less where the program leaves some over.
        spent = sum((Fraction(p, scale) * self.network.capacity[arc] for arc, p in prices.items()), Fraction(0))
        count = len(self.roots) if self.each else 1
        per_arc = {arc: Fraction(prices[self._edge(arc)], scale) / (2 if self.both else 1) for arc in self.network.capacity}
        rate = sum((x for _, x in trees), Fraction(0))
        return Packed(rate, spent / due * count, tuple(trees), tuple(self.rows), {arc: p for arc, p in per_arc.items() if p})


def _whole(values: Sequence[Fraction]) -> tuple[list[int], int]:
    """The values as whole numbers over one denominator."""
    scale = lcm(*(v.denominator for v in values))
    return [int(v * scale) for v in values], scale
