"""Few and shallow trees: the fewest that carry a rate, the fastest of a given number, the shallowest.

On small networks without switches trees are peeled (``peeling``); elsewhere a mixed-integer program chooses among the
trees of many packings (``treechoice``). Both propose; the rates of what they propose come from an exact linear program, and
``treebound`` says how many trees it takes at least.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property
from math import gcd
from time import monotonic
from typing import TYPE_CHECKING

from ..errors import PackingError
from .certificates import link_capacities
from .links import Number
from .peeling import Peeling
from .plan import Plan, Tree
from .treebound import fewest_trees, largest_determinant
from .treechoice import TreeChoice, distinct
from .weights import rate_of, tree_depth, weigh

if TYPE_CHECKING:
    from .exact import Problem, Solved

#: Parts of the budget: for packings to choose from, for the search for few trees, for each step towards shallow ones.
_POOL_SHARE, _SEARCH_SHARE, _DEPTH_SHARE = 0.25, 0.25, 0.05
#: Rates tried for a number of trees, their largest denominator, and the part of the budget that each may take.
_MOST_RATES, _LARGEST_DENOMINATOR, _STEP_SHARE = 40, 9, 0.05
#: What ``minimise`` may say.
WHAT = ("trees", "depth")


@dataclass(frozen=True)
class Wish:
    """What to give up for few or shallow trees.

    At most ``max_trees``, or as few (as shallow, if ``depth_first``) as reach (1 - tolerance) of the plan's rate.
    """

    max_trees: int | None = None
    tolerance: Fraction = Fraction(0)
    depth_first: bool = False

    @classmethod
    def of(cls, max_trees: int | None, tolerance: Number | float | str | None, minimise: bool | str) -> Wish | None:
        """The options of ``make_plan`` as a wish; None where none was given."""
        if not isinstance(minimise, bool) and minimise not in WHAT:
            raise PackingError(f"minimise must be True, False or one of {', '.join(WHAT)}, got {minimise!r}")
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
        return cls(max_trees, part, minimise == "depth")


def with_fewer_trees(plan: Plan, problem: Problem, solved: Solved, wish: Wish, budget_s: float) -> Plan:
    """The plan with few or shallow trees, as far as they were found in the budget.

    Raises
    ------
    PackingError
        Where no choice of ``max_trees`` trees was found.
    """
    _check_enough(plan, wish)
    if wish.max_trees is not None and len(plan.trees) <= wish.max_trees and not wish.depth_first:
        return plan
    search = FewTrees(plan, problem, solved, budget_s)
    if wish.max_trees is not None:
        found = search.fastest(wish.max_trees)
        if not found:
            raise PackingError(f"{plan.collective}: no plan of at most {wish.max_trees} trees was found within {budget_s:g} s")
        target = rate_of(found)
    else:
        target = (1 - wish.tolerance) * plan.rate
        found = plan.trees if wish.depth_first else search.fewest(target)
    if wish.depth_first:
        return with_trees(plan, search.shallowest(target, found, wish.max_trees))
    return with_trees(plan, search.shallower(target, found, wish.max_trees or len(found)))


def chosen_among(plan: Plan, more: Iterable[Tree], wish: Wish, budget_s: float) -> Plan:
    """The plan with few or shallow trees out of its own and ``more``: where no packing of ``exact`` makes further ones.

    Raises
    ------
    PackingError
        Where no choice of ``max_trees`` trees was found.
    """
    _check_enough(plan, wish)
    if wish.max_trees is not None and len(plan.trees) <= wish.max_trees and not wish.depth_first:
        return plan
    roots = range(plan.topology.nranks) if plan.collective in ("allgather", "reducescatter") else None
    capacity = link_capacities(plan.topology, plan.links, plan.rates)
    choice = TreeChoice(distinct([*plan.trees, *more]), capacity, roots)
    if wish.max_trees is not None:
        target, found = weigh(choice.fastest(wish.max_trees, budget_s / 2), capacity, roots)
        if not found or len(found) > wish.max_trees:
            raise PackingError(f"{plan.collective}: no plan of at most {wish.max_trees} trees was found within {budget_s:g} s")
    else:
        target, found = (1 - wish.tolerance) * plan.rate, plan.trees
        rate, fewer = weigh(choice.fewest(target, len(plan.trees), budget_s / 2), capacity, roots)
        found = fewer if rate >= target and not wish.depth_first else found
    if wish.depth_first:
        for limit in range(min(choice.depth), max(map(tree_depth, found))):
            rate, shallow = weigh(choice.fewest(target, wish.max_trees or len(choice.candidates), budget_s / 8, limit), capacity, roots)
            if shallow and rate >= target:
                return with_trees(plan, shallow)
    return with_trees(plan, found)


def _check_enough(plan: Plan, wish: Wish) -> None:
    if wish.max_trees is not None and plan.collective in ("allgather", "reducescatter") and wish.max_trees < plan.topology.nranks:
        raise PackingError(f"{plan.collective} needs a tree for each of the {plan.topology.nranks} ranks, got max_trees={wish.max_trees}")


def with_trees(plan: Plan, trees: Sequence[Tree]) -> Plan:
    """The plan with these trees instead of its own, fastest first."""
    rate = rate_of(trees)
    ordered = tuple(sorted((replace(t, weight=t.rate / rate) for t in trees), key=lambda t: (-t.rate, t.root)))
    return replace(plan, method=plan.method if rate == plan.bound else "approximate", rate=rate, trees=ordered)


class FewTrees:
    """The search for one plan; all trees that it returns are weighed."""

    def __init__(self, plan: Plan, problem: Problem, solved: Solved, budget_s: float):
        self.plan, self.budget_s, self.deadline = plan, budget_s, monotonic() + budget_s
        self.capacity = link_capacities(plan.topology, plan.links, plan.rates)
        self.roots = range(plan.topology.nranks) if plan.collective in ("allgather", "reducescatter") else None
        self.problem = problem
        self.peeling = None if problem.planes else Peeling.of(problem.network, plan.collective, plan.root)
        if self.peeling is not None:
            self.peeling.with_trees(tree for pack in solved.halves.values() for attempt in range(2) for tree in pack(attempt))
        self.solved = solved

    @cached_property
    def choice(self) -> TreeChoice:
        """Among the trees of many packings: where peeling is not possible."""
        more = self.problem.more_trees(self.solved, self.budget_s * _POOL_SHARE)
        return TreeChoice(distinct([*self.plan.trees, *more]), self.capacity, self.roots)

    @cache  # noqa: B019 - as long as the search lives
    def needs(self, rate: Fraction) -> int:
        """Trees that this rate takes at least."""
        return fewest_trees(replace(self.plan, rate=rate)).count

    def fewest(self, rate: Fraction, most: int | None = None, share: float = _SEARCH_SHARE, max_depth: int | None = None) -> tuple[Tree, ...]:
        """Fewer than ``most`` trees that carry ``rate``, none where none were found; the plan's own at worst without ``most``."""
        limit = len(self.plan.trees) if most is None else most
        found: tuple[Tree, ...] = ()
        if self.needs(rate) < limit and self._is_reachable(rate, max_depth):
            found = self._weighed(self._search(rate, limit, share * self.budget_s, max_depth), rate)
        return found if found or most is not None else self.plan.trees

    def fastest(self, most: int, floor: tuple[Tree, ...] = (), share: float = _STEP_SHARE) -> tuple[Tree, ...]:
        """At most ``most`` trees, as fast as were found; ``floor`` where nothing is faster."""
        best = floor
        if self.peeling is not None:
            for rate in self._likely(most):
                if rate > rate_of(best):
                    best = self.fewest(rate, most + 1, share) or best
        if not best or self.peeling is None:
            found = self._weighed(self.choice.fastest(most, share / _STEP_SHARE * _SEARCH_SHARE * self.budget_s), Fraction(0))
            best = max(best, found, key=rate_of)
        return best

    def _likely(self, most: int) -> list[Fraction]:
        """Rates to try for so many trees: the whole one, then multiples of the links' unit by a small number, simple ones first.

        The best rates of ``most`` trees are such: see the determinants in ``treebound``.
        """
        unit = self.problem.network.unit
        largest = self.plan.rate / unit
        denominators = range(1, min(largest_determinant(most), _LARGEST_DENOMINATOR) + 1)
        rates = [Fraction(p, q) for q in denominators for p in range(int(largest * q), 0, -1) if gcd(p, q) == 1 and 2 * p >= largest * q]
        widths = sorted(set(self.capacity.values()), reverse=True)
        return [self.plan.rate, *(rate * unit for rate in rates[:_MOST_RATES]), *(width for width in widths if width < self.plan.rate)]

    def shallower(self, rate: Fraction, trees: tuple[Tree, ...], most: int, share: float = _DEPTH_SHARE) -> tuple[Tree, ...]:
        """At most ``most`` trees for the same rate, less deep if such are found a step at a time."""
        while trees:
            deepest = max(map(tree_depth, trees))
            found = self.fewest(rate, most + 1, share, deepest - 1) if deepest > 1 else ()
            if not found:
                break
            trees = found
        return trees

    def shallowest(self, rate: Fraction, trees: tuple[Tree, ...], most: int | None = None) -> tuple[Tree, ...]:
        """The shallowest trees found for the rate, of these few and at most ``most``; ``trees`` where none are as good."""
        deepest = max(map(tree_depth, trees))
        for limit in range(self._least_depth(), deepest + 1):
            found = self.fewest(rate, 4 * len(self.plan.trees) if most is None else most + 1, _SEARCH_SHARE, limit)
            if not found and most is None and self._is_reachable(rate, limit):
                found = self.fastest_within(limit)
            if rate_of(found) >= rate and (max(map(tree_depth, found)), len(found)) < (deepest, len(trees)):
                return found
        return trees

    def fastest_within(self, max_depth: int) -> tuple[Tree, ...]:
        """The fastest trees so deep, however many; none where trees are too many to be listed."""
        trees = () if self.peeling is None else self.peeling.reachable(max_depth)[1]
        return self._weighed([self.problem.tree(tree, self.plan.rate) for tree in trees], Fraction(0))

    def depths(self) -> list[int]:
        """Limits of depth that make a difference."""
        deepest = self.plan.topology.nranks - 1 if self.plan.collective != "allreduce" else self.plan.topology.nranks // 2
        return list(range(self._least_depth(), deepest + 1))

    def _least_depth(self) -> int:
        return min(self.choice.depth) if self.peeling is None else self.peeling.shallowest()

    def _search(self, rate: Fraction, most: int, seconds: float, max_depth: int | None) -> list[Tree]:
        if self.peeling is None:
            return self.choice.fewest(rate, most, seconds, max_depth)
        found = self.peeling.search(self._shares(rate), most, self.needs(rate), seconds, self.deadline, max_depth)
        return [self.problem.tree(tree, rate) for tree in found]

    def _is_reachable(self, rate: Fraction, max_depth: int | None) -> bool:
        if max_depth is None or self.peeling is None:
            return True
        return float(self._shares(rate)[0]) <= self.peeling.reachable(max_depth)[0] * (1 + 1e-6)

    def _shares(self, rate: Fraction) -> list[Fraction]:
        """What each root's trees carry at this rate."""
        nroots = 1 if self.roots is None else len(self.roots)
        return [rate / nroots] * nroots

    def _weighed(self, trees: Sequence[Tree], rate: Fraction) -> tuple[Tree, ...]:
        """The trees with their best rates; none where floats promised more than these carry."""
        reached, weighed = weigh(trees, self.capacity, self.roots)
        return weighed if reached and reached >= rate else ()
