"""What can be had for what: plans of which none is as good as another in rate, number of trees and depth at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import PackingError
from ..topology import Topology
from .collectives import FLOWS
from .exact import Problem
from .make import make_plan
from .minimise import FewTrees, with_trees
from .plan import Plan, Tree
from .weights import rate_of

#: Parts of the budget: for the fewest trees at the full rate, for each number of trees (of which some rates are tried), for depths.
_FEWEST_SHARE, _COUNTS_SHARE, _RATES_A_COUNT, _DEPTHS_SHARE = 0.05, 0.15, 5, 0.1


def pareto(topology: Topology, collective: str, root: int | None = None, links: str | Iterable[str] = "fastest", budget_s: float = 10.0, **options: Any) -> tuple[Plan, ...]:
    """Plans that no other one found beats or equals in all of rate, number of trees and depth; the fastest first.

    Parameters
    ----------
    topology, collective, root, links, options
        As for :func:`blinkcoll.packing.make_plan`.
    budget_s
        Seconds of search in all: a part for each number of trees and each depth.

    Raises
    ------
    PackingError
        As ``make_plan``, and where a collective has flows instead of trees.

    Notes
    -----
    The first plan has the bound's rate. Nothing says that the others are the best there are: each is the best that was found. The result
    is the same every time, unless the time runs out before the work does that it is worth.

    Examples
    --------
    >>> import blinkcoll as bc
    >>> for plan in bc.pareto(bc.load_topology("dgx1-p100").subset([0, 1, 2, 3]), "broadcast", root=0):
    ...     print(plan.rate, len(plan.trees), plan.depth)
    54 3 2
    """
    plan = make_plan(topology, collective, root, links=links, budget_s=budget_s, **options)
    if plan.collective in FLOWS:
        raise PackingError(f"{plan.collective} has flows, not trees: there is no trade-off between rate, trees and depth")
    problem = Problem.of(topology, plan.collective, plan.root, plan.links, plan.rates, budget_s)
    search = FewTrees(plan, problem, problem.solve(), budget_s)
    few = search.fewest(plan.rate, share=_FEWEST_SHARE)
    few = search.shallower(plan.rate, few, len(few), _FEWEST_SHARE / 5)
    found = [plan.trees, few, *_grid(search, plan, len(few))]
    return _front(with_trees(plan, trees) for trees in found if trees)


def _grid(search: FewTrees, plan: Plan, most: int) -> Iterator[tuple[Tree, ...]]:
    """The fastest found for every number of trees up to ``most``; for every depth the fastest, and the fewest trees found for each of the rates before."""
    least = plan.topology.nranks if plan.collective in ("allgather", "reducescatter") else 1
    best: tuple[Tree, ...] = ()
    rates = [plan.rate]
    for count in range(least, most):
        best = search.fastest(count, best, _COUNTS_SHARE / (most - least) / _RATES_A_COUNT)
        rates.append(rate_of(best))
        yield best
    depths = search.depths()
    for limit in depths:
        yield search.fastest_within(limit)
        for rate in sorted(set(rates)):
            yield search.fewest(rate, 4 * len(plan.trees), _DEPTHS_SHARE / len(depths) / len(rates), limit)


def _front(plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """One plan of each kind that no other dominates."""
    kinds: dict[tuple[Any, int, int], Plan] = {}
    for plan in plans:
        kinds.setdefault((plan.rate, len(plan.trees), plan.depth), plan)

    def beaten(a: tuple[Any, int, int]) -> bool:
        return any(b != a and b[0] >= a[0] and b[1] <= a[1] and b[2] <= a[2] for b in kinds)

    return tuple(kinds[kind] for kind in sorted(kinds, key=lambda k: (-k[0], k[1], k[2])) if not beaten(kind))
