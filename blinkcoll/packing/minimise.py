"""Few trees: choose among the trees of many packings, by a mixed-integer program, and weigh them exactly.

Blink (Wang et al., MLSys 2020, section 3.2) chooses among the trees of its fractional packing in the same spirit. The
program is solved in floats and in bounded time, so the result is the best that was found, not proven to be the fewest;
the rates of the trees chosen come from an exact linear program, and the plan says what it reaches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from ..errors import PackingError
from ..topology import Path
from .certificates import link_capacities
from .exactlp import LinearProgram, maximise
from .highs import quiet_highs, run_solver
from .links import Arc, Number
from .plan import Plan, Tree

#: Trees that the integer program chooses from, at most: more find little and take long.
_MOST_CANDIDATES = 400


@dataclass(frozen=True)
class Wish:
    """What to give up for few trees: at most so many, or as few as reach (1 - tolerance) of the plan's rate."""

    max_trees: int | None = None
    tolerance: Fraction = Fraction(0)

    @classmethod
    def of(cls, max_trees: int | None, tolerance: Number | float | str | None, minimise: bool) -> Wish | None:
        """The options of ``make_plan`` as a wish; None where none was given."""
        if max_trees is None and tolerance is None and not minimise:
            return None
        if max_trees is not None and (isinstance(max_trees, bool) or not isinstance(max_trees, int) or max_trees < 1):
            raise PackingError(f"max_trees must be a positive number of trees, got {max_trees!r}")
        try:
            part = Fraction(str(tolerance or 0))
        except (ValueError, ZeroDivisionError):
            part = Fraction(-1)
        if not 0 <= part < 1:
            raise PackingError(f"tolerance must be a part of the rate, 0 <= tolerance < 1, got {tolerance!r}")
        return cls(max_trees, part)


def with_fewer_trees(plan: Plan, more: Iterable[Tree], wish: Wish, budget_s: float) -> Plan:
    """The plan with as few trees as were found for what is wished, out of its own and ``more`` trees of any rate.

    Raises
    ------
    PackingError
        Where no choice of ``max_trees`` trees was found.
    """
    if wish.max_trees is not None and plan.collective in ("allgather", "reducescatter") and wish.max_trees < plan.topology.nranks:
        raise PackingError(f"{plan.collective} needs a tree for each of the {plan.topology.nranks} ranks, got max_trees={wish.max_trees}")
    if wish.max_trees is not None and len(plan.trees) <= wish.max_trees:
        return plan
    candidates = _candidates([*plan.trees, *more])
    program = _Choice(plan, candidates)
    rate, trees = program.weigh(program.choose(wish, budget_s))
    if wish.max_trees is None and (rate < (1 - wish.tolerance) * plan.rate or len(trees) >= len(plan.trees)):
        return plan
    if not trees or (wish.max_trees is not None and len(trees) > wish.max_trees):
        raise PackingError(f"{plan.collective}: no plan of at most {wish.max_trees} trees was found among {len(candidates)} trees within {budget_s:g} s")
    method = plan.method if rate == plan.bound else "approximate"
    return replace(plan, method=method, rate=rate, trees=tuple(sorted(trees, key=lambda t: (-t.rate, t.root))))


def _candidates(trees: Iterable[Tree]) -> list[Tree]:
    """Trees that differ, the first ones if there are too many."""
    found: dict[tuple[int, frozenset[Path], frozenset[Path]], Tree] = {}
    for tree in trees:
        found.setdefault((tree.root, frozenset(tree.up or ()), frozenset(tree.down or ())), tree)
    return list(found.values())[:_MOST_CANDIDATES]


class _Choice:
    """Weights of candidate trees within the links' capacities."""

    def __init__(self, plan: Plan, candidates: list[Tree]):
        self.plan, self.candidates = plan, candidates
        self.capacity = link_capacities(plan.topology, plan.links, plan.rates)
        self.uses = [_uses(tree) for tree in candidates]
        self.per_root = plan.collective in ("allgather", "reducescatter")

    def roots(self) -> range:
        return range(self.plan.topology.nranks)

    def choose(self, wish: Wish, budget_s: float) -> list[int]:
        """Numbers of the candidates to use, none if no choice was found: a mixed-integer program in floats."""
        import highspy
        import numpy as np

        highs = quiet_highs()
        highs.setOptionValue("time_limit", float(budget_s))
        count, scale = len(self.candidates), float(self.plan.rate)
        few = wish.max_trees is None
        most = [min(float(self.capacity[arc] / n) for arc, n in uses.items()) / scale for uses in self.uses]
        for t in range(count):
            highs.addVar(0.0, most[t])
            highs.changeColCost(t, 0.0 if few else -1.0)
        for t in range(count):
            highs.addVar(0.0, 1.0)
            highs.changeColCost(count + t, 1.0 if few else 0.0)
            highs.changeColIntegrality(count + t, highspy.HighsVarType.kInteger)

        def row(low: float, high: float, entries: dict[int, float]) -> None:
            highs.addRow(low, high, len(entries), np.array(list(entries), dtype=np.int32), np.array(list(entries.values()), dtype=np.float64))

        infinite = highspy.kHighsInf
        for t in range(count):
            row(-infinite, 0.0, {t: 1.0, count + t: -most[t]})
        for arc, c in self.capacity.items():
            row(-infinite, float(c) / scale, {t: float(uses[arc]) for t, uses in enumerate(self.uses) if arc in uses})
        target = float(1 - wish.tolerance)
        if self.per_root:
            first = [t for t, tree in enumerate(self.candidates) if tree.root == 0]
            row(target / len(self.roots()) if few else 0.0, infinite, dict.fromkeys(first, 1.0))
            for r in self.roots()[1:]:
                row(0.0, 0.0, {**dict.fromkeys(first, -1.0), **{t: 1.0 for t, tree in enumerate(self.candidates) if tree.root == r}})
        elif few:
            row(target, infinite, dict.fromkeys(range(count), 1.0))
        if wish.max_trees is not None:
            row(-infinite, float(wish.max_trees), dict.fromkeys(range(count, 2 * count), 1.0))
        run_solver(highs)
        if highs.getInfo().primal_solution_status != highspy.kSolutionStatusFeasible:
            return []
        values = highs.getSolution().col_value
        return [t for t in range(count) if values[count + t] > 0.5]

    def weigh(self, chosen: list[int]) -> tuple[Fraction, list[Tree]]:
        """The best rate of these trees, exact, and the trees that it uses."""
        program = LinearProgram()
        weight = {t: program.add_variable(0 if self.per_root else 1) for t in chosen}
        for arc, c in self.capacity.items():
            entries = {weight[t]: self.uses[t][arc] for t in chosen if arc in self.uses[t]}
            if entries:
                program.add_row(entries, c)
        if self.per_root:
            rate = program.add_variable(1)
            for r in self.roots():
                program.add_row({**{weight[t]: len(self.roots()) for t in chosen if self.candidates[t].root == r}, rate: -1}, 0, equal=True)
        if not chosen:
            return Fraction(0), []
        solution = maximise(program)
        used = [(self.candidates[t], solution.x[weight[t]]) for t in chosen if solution.x[weight[t]]]
        return solution.value, [replace(tree, rate=x, weight=x / solution.value) for tree, x in used]


def _uses(tree: Tree) -> dict[Arc, int]:
    """How often the tree crosses each link."""
    uses: dict[Arc, int] = {}
    for path in (*(tree.up or ()), *(tree.down or ())):
        for arc in pairwise(path):
            uses[arc] = uses.get(arc, 0) + 1
    return uses
