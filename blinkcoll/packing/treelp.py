"""The linear program behind trees, for links where no combinatorial theorem holds.

It maximises over the capacities that trees may use: ``f`` (one per half: trees away from their roots, trees towards
them) within the links' capacities, conserved at every forwarder by each half on its own, and root shares ``x``, with
in_f(A) >= x(outside A) for every set A that holds a rank. Those exponentially many rows are added as flows find them
violated. It is needed where a forwarder takes in more than it can give out or the reverse (there the plain minimum cut
overstates: r->s, s->a, s->b of capacity 1 each have minimum cut 1 and reach 1/2), and for all-reduce on asymmetric links,
where the split of each link between the halves and the shares of the roots are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from time import monotonic

from ..errors import PackingError
from .arborescences import IntArcs, run
from .exactlp import FloatSolver, LinearProgram, Solution, maximise
from .links import Network

#: Rounds of cut generation; each adds at least one new cut, a handful do in practice.
_MOST_ROUNDS = 200
#: Integers that float solutions are rounded to, and how much of the shares is asked for there.
_GRID, _SLACK = 1 << 30, 1 - 1e-6
#: Seconds in all; there is no approximation to fall back on, so running out of them is an error.
BUDGET_S = 60.0


@dataclass(frozen=True)
class Half:
    """One half's usable capacities: arcs as integers in ``unit``; towards the roots they are reversed."""

    arcs: IntArcs
    shares: tuple[int, ...]
    unit: Fraction


@dataclass(frozen=True)
class TreeBound:
    """The optimum in GB/s, what to pack, and the multipliers that prove it."""

    rate: Fraction
    halves: dict[str, Half]
    cuts: tuple[tuple[str, frozenset[int], Fraction], ...]
    potentials: tuple[tuple[str, int, Fraction], ...]


def solve_tree_lp(network: Network, halves: Sequence[str], weights: Sequence[int] | None, budget_s: float = BUDGET_S) -> TreeBound:
    """The best rate of trees whose ``halves`` ("down", "up") share the links.

    Parameters
    ----------
    weights
        The roots' shares up to a common factor, or None where they are free (all-reduce).
    """
    return TreeProgram(network, halves, weights).solve(budget_s)


class TreeProgram:
    """The rows and columns of one network's trees, in a linear program of their own or as part of a larger one.

    As a part (``within`` a program and its unit in GB/s), ``share`` gives each root's share in that program's variables,
    and ``capacity_row`` names the rows in which others may claim capacity of a link too.
    """

    def __init__(
        self, network: Network, halves: Sequence[str], weights: Sequence[int] | None,
        within: tuple[LinearProgram, Fraction] | None = None, share: Sequence[dict[int, Fraction | int]] = (),
    ) -> None:  # fmt: skip
        self.network, self.halves, self.weights = network, tuple(halves), weights
        self.program, self.unit = within or (LinearProgram(), network.unit)
        n = network.nranks
        if within is not None:
            self.share = list(share)
        elif weights is None:
            shares = [self.program.add_variable(1) for _ in range(n)]
            self.share = [{variable: 1} for variable in shares]
        else:
            scale = self.program.add_variable(sum(weights))
            self.share = [{scale: w} if w else {} for w in weights]
        self.arcs = {half: [(u, v) if half == "down" else (v, u) for u, v, _ in network.arcs] for half in halves}
        self.flow = {half: [self.program.add_variable() for _ in network.arcs] for half in halves}
        self.capacity_row = {
            (network.vertices[u], network.vertices[v]): self.program.add_row({self.flow[half][i]: 1 for half in halves}, c * network.unit / self.unit)
            for i, (u, v, c) in enumerate(network.arcs)
        }
        self.conserved: list[tuple[int, str, int]] = []
        self.cuts: dict[tuple[str, frozenset[int]], int] = {}
        for half in halves:
            for s in range(n, len(network.vertices)):
                row: dict[int, Fraction | int] = {}
                for variable, (u, v) in zip(self.flow[half], self.arcs[half], strict=True):
                    if s in (u, v):
                        row[variable] = 1 if v == s else -1
                self.conserved.append((self.program.add_row(row, 0, equal=True), half, s))
            for v in range(n):
                self.add_cut(half, frozenset({v}))
            self.add_cut(half, frozenset(range(len(network.vertices))) - {0})

    def add_cut(self, half: str, inside: frozenset[int]) -> bool:
        """Demand that enough enters ``inside``; False where that is demanded already."""
        if (half, inside) in self.cuts:
            return False
        row: dict[int, Fraction | int] = {}
        for r in range(self.network.nranks):
            if r not in inside:
                for variable, w in self.share[r].items():
                    row[variable] = row.get(variable, 0) + w
        for variable, (u, v) in zip(self.flow[half], self.arcs[half], strict=True):
            if u not in inside and v in inside:
                row[variable] = -1
        self.cuts[half, inside] = self.program.add_row(row, 0)
        return True

    def solve(self, budget_s: float) -> TreeBound:
        """Cuts that a float solution violates first, as that is quick; then those that the exact one does."""
        deadline = monotonic() + budget_s
        floats = FloatSolver(self.program)
        for _ in range(_MOST_ROUNDS):
            values = floats.values(max(0.0, deadline - monotonic()))
            if self.add_violated({half: self.rounded(half, values) for half in self.halves}):
                continue
            # The basis of this run, or, where rounding spoiled it, of a run on its own.
            solution = floats.exact() or maximise(self.program, max(0.0, deadline - monotonic()))
            capacities = {half: self.capacities(half, solution) for half in self.halves}
            if not any(self.violated(capacities[half]) for half in self.halves):
                return self.result(solution, capacities)
            if not self.add_violated(capacities):
                raise PackingError("tree LP: a cut is violated that the program already holds")
        raise PackingError(f"tree LP: cuts are still violated after {_MOST_ROUNDS} rounds")

    def add_violated(self, capacities: dict[str, Half]) -> bool:
        """Add the cuts that these capacities violate; whether there were new ones."""
        # A list, not a generator: every half gets its cuts in every round.
        return any([self.add_cut(half, inside) for half in self.halves for inside in self.violated(capacities[half])])

    def rounded(self, half: str, values: list[float]) -> Half:
        """A float solution in integers, with shares a little less, so that rounding alone violates nothing."""
        shares = [max(0, int(sum(float(w) * values[variable] for variable, w in share.items()) * _GRID * _SLACK)) for share in self.share]
        arcs = [(u, v, c) for (u, v), variable in zip(self.arcs[half], self.flow[half], strict=True) if (c := int(values[variable] * _GRID)) > 0]
        return Half(arcs, tuple(shares), Fraction(1))

    def capacities(self, half: str, solution: Solution) -> Half:
        """What an exact solution gives a half, in integers."""
        shares = [sum((w * solution.x[variable] for variable, w in share.items()), Fraction(0)) for share in self.share]
        values = [solution.x[variable] for variable in self.flow[half]]
        scale = lcm(*(v.denominator for v in (*shares, *values)))
        arcs = [(u, v, int(c * scale)) for (u, v), c in zip(self.arcs[half], values, strict=True) if c]
        return Half(arcs, tuple(int(x * scale) for x in shares), self.unit / scale)

    def violated(self, half: Half) -> list[frozenset[int]]:
        """Sets that less enters than the shares outside ask for."""
        n = len(self.network.vertices)
        sets = run("violated_cuts", [*half.arcs, *((0, 0, x) for x in half.shares)], n, self.network.nranks, list(half.arcs), list(half.shares))
        return [frozenset(inside) for inside in sets]

    def result(self, solution: Solution, capacities: dict[str, Half]) -> TreeBound:
        """The optimum with its multipliers."""
        cuts = tuple((half, inside, solution.y[row]) for (half, inside), row in self.cuts.items() if solution.y[row])
        potentials = tuple((half, s, -solution.y[row]) for row, half, s in self.conserved if solution.y[row])
        return TreeBound(solution.value * self.network.unit, capacities, cuts, potentials)
