"""Blink's own pipeline: many trees by multiplicative weights, few of them by an integer program, fractions only where needed.

Wang et al., MLSys 2020, section 3, in three stages, each of which the plan reports (:attr:`Plan.stages`):

1. ``mwu``: a packing within (1 - epsilon) of the optimum, of many trees (``mwu``).
2. ``ilp``: of these trees, as many as fit when each carries a link's rate or nothing.
3. ``relaxed``: where that misses the optimum by more than a threshold (the paper's 5 %), fractions of a link's rate
   are added. Our procedure (the paper gives none that could be followed to the letter): whole trees are given up one at a time until the
   rest can reach the threshold with free weights; an integer program then chooses few of these.

Where all ranks meet in one switch the paper uses one-hop trees instead (section 3.5, DGX-2), and so does this. Programs are solved in
floats; what is reported is computed in rationals, and the optimum is the exact one, with its certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from time import monotonic

from ..errors import PackingError
from .certificates import link_capacities
from .exact import Problem
from .links import Arc
from .mixedinteger import MixedInteger
from .mwu import multiplicative_weights
from .onehop import one_hop_trees
from .plan import Plan, Stage, Tree
from .treechoice import TreeChoice, distinct
from .weights import rate_of, tree_load, tree_uses, weigh

EPSILON, THRESHOLD = 0.05, Fraction(1, 20)
#: Trees that the last stage chooses from, beside those of the linear program.
_MOST_FREE = 60
_COLLECTIVES = ("broadcast", "reduce", "allreduce")


def blink_plan(plan: Plan, budget_s: float, epsilon: float = EPSILON, threshold: Fraction | float | str = THRESHOLD) -> Plan:
    """The exact plan's problem solved as Blink does, with the exact plan's bound and proof.

    Parameters
    ----------
    epsilon
        Of the first stage.
    threshold
        What part of the optimum may be given up for few trees.

    Raises
    ------
    PackingError
        Where the paper has no method: switches that are not one for all ranks, all-reduce on asymmetric links, other
        collectives. Where the candidates, or the solver within ``budget_s``, do not come within the threshold.
    """
    part = Fraction(str(threshold))
    if not 0 <= part < 1:
        raise PackingError(f"blink: threshold must be a part of the rate, 0 <= threshold < 1, got {threshold!r}")
    if plan.collective not in _COLLECTIVES:
        raise PackingError(f"method 'blink' plans {', '.join(_COLLECTIVES)}, not {plan.collective}; use method='exact'")
    problem = Problem.of(plan.topology, plan.collective, plan.root, plan.links, plan.rates, budget_s)
    if problem.network.forwarders:
        return _one_hop(plan, problem)
    if plan.collective == "allreduce" and not problem.network.symmetric:
        raise PackingError("method 'blink' packs undirected trees, and these links carry more one way than the other; use method='exact'")
    trees = [problem.tree(tree, plan.rate) for tree in multiplicative_weights(problem.network, plan.collective, plan.root, epsilon)]
    return _choose(plan, trees, (1 - part) * plan.bound, budget_s)


def _one_hop(plan: Plan, problem: Problem) -> Plan:
    if one_hop_trees(problem.network, plan.collective, plan.root, plan.bound) is None:
        raise PackingError(
            f"method 'blink' on {plan.topology.name}: the paper has one-hop trees for ranks that meet in one switch, and none for these links "
            f"({', '.join(plan.links)}); use method='exact'"
        )
    trees = problem.trees(problem.solve())
    return replace(plan, method="blink", trees=trees, stages=(Stage("one-hop", len(trees), plan.rate),))


def _choose(plan: Plan, trees: Sequence[Tree], wanted: Fraction, budget_s: float) -> Plan:
    """The second stage, and the third if needed."""
    capacity = link_capacities(plan.topology, plan.links, plan.rates)
    unit, deadline = min(capacity.values()), monotonic() + budget_s
    stages = [Stage("mwu", len(trees), rate_of(trees))]
    chosen = _whole(trees, capacity, unit, budget_s / 2)
    stages.append(Stage("ilp", len(chosen), rate_of(chosen)))
    if stages[-1].rate < wanted:
        chosen = _relaxed(trees, chosen, capacity, wanted, max(0.0, deadline - monotonic()))
        stages.append(Stage("relaxed", len(chosen), rate_of(chosen)))
    rate = stages[-1].rate
    if rate < wanted:
        raise PackingError(
            f"blink: the {len(trees)} trees of the first stage reach {float(rate):.6g} GB/s, the threshold asks for {float(wanted):.6g}; lower epsilon or raise threshold"
        )
    ordered = sorted((replace(tree, weight=tree.rate / rate) for tree in chosen), key=lambda tree: (-tree.rate, tree.root))
    return replace(plan, method="blink", rate=rate, trees=tuple(ordered), stages=tuple(stages))


def _whole(trees: Sequence[Tree], capacity: dict[Arc, Fraction], unit: Fraction, budget_s: float) -> list[Tree]:
    """As many trees as fit, each at one link's rate."""
    program = MixedInteger()
    taken = [program.variable(1.0, -1.0, integer=True) for _ in trees]
    uses = [tree_uses(tree) for tree in trees]
    for arc, c in capacity.items():
        program.row({z: float(use[arc]) for z, use in zip(taken, uses, strict=True) if arc in use}, high=float(c // unit))
    values = program.minimum(budget_s)
    if not values:
        raise PackingError(f"blink: no 0/1 choice among {len(trees)} trees within {budget_s:g} s; raise budget_s")
    return [replace(tree, rate=unit) for tree, z in zip(trees, taken, strict=True) if values[z] > 0.5]


def _relaxed(trees: Sequence[Tree], whole: list[Tree], capacity: dict[Arc, Fraction], wanted: Fraction, budget_s: float) -> list[Tree]:
    """As many of the whole trees as leave room to reach ``wanted``, and few with fractions of a link's rate."""
    while True:
        left = _left(capacity, whole)
        missing = wanted - rate_of(whole)
        rate, free = weigh(trees, left)
        if rate >= missing or not whole:
            break
        # The whole tree that the others gain most without is given up.
        whole = max(([t for t in whole if t is not given] for given in whole), key=lambda kept: weigh(trees, _left(capacity, kept))[0])
    by_rate = sorted(trees, key=lambda tree: -tree.rate)
    pool = distinct([*free, *by_rate[:_MOST_FREE]])
    fewer = TreeChoice(pool, left, None).fewest(missing, len(free), budget_s)
    reached, weighed = weigh(fewer, left)
    return [*whole, *(weighed if reached >= missing else free)]


def _left(capacity: dict[Arc, Fraction], trees: Sequence[Tree]) -> dict[Arc, Fraction]:
    return capacity | {arc: capacity[arc] - used for arc, used in tree_load(trees).items()}


def pcie_bytes(nbytes: int, pcie_gb_s: Fraction, nvlink_gb_s: Fraction, t_dpa_us: Fraction) -> Fraction:
    """What part of the data Blink sends over PCIe beside NVLink, in bytes, so that both end together.

    Parameters
    ----------
    pcie_gb_s, nvlink_gb_s
        Rates of the plans over either kind of link.
    t_dpa_us
        Microseconds that it takes to switch peer access off before PCIe can be used at all: the driver takes NVLink
        as long as access is on. Blink measures it at start; no value is assumed here.

    Notes
    -----
    D_pcie = (D BW_pcie - T_dpa BW_pcie BW_nvl) / (BW_pcie + BW_nvl), Wang et al., MLSys 2020, section 3.4; 0 where
    switching takes longer than NVLink alone would. The cost exists only in that design: current plans that use both kinds of
    link at once route over host memory and need no switching.
    """
    # 1 GB/s x 1 us = 1000 bytes.
    over = (nbytes * pcie_gb_s - t_dpa_us * 1000 * pcie_gb_s * nvlink_gb_s) / (pcie_gb_s + nvlink_gb_s)
    return max(Fraction(0), over)
