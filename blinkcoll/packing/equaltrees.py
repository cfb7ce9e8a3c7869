"""Trees of one rate: a little less than the bound, in a form that fair links carry as planned.

All-reduce: a multigraph with every capacity times k has floor(k * strength) edge-disjoint spanning trees (Nash-Williams
1961, Tutte 1961), each of rate unit / k. Among the k with few enough trees the fastest is taken. All-gather and
reduce-scatter: k trees rooted at every rank, each of rate y, fit if and only if they do in whole capacities
floor(capacity / y) (Edmonds 1973), so the best y for k is found by bisection over those at which one of these changes;
ForestColl (Zhao et al., arXiv 2402.06787) packs for a fixed k by the same rounding. Exact plans have trees of unequal
rates, whose channels share links evenly all the same and so get less than planned.
"""

from __future__ import annotations

from fractions import Fraction

from .. import _core
from ..errors import PackingError
from .arborescences import IntArcs, RoutedTree, depth, merged, outward, pack_shares, run
from .links import Network


def equal_trees(network: Network, strength: Fraction, most: int) -> list[RoutedTree]:
    """At most ``most`` trees of one rate, as fast as such can be; roots spread over the ranks.

    Parameters
    ----------
    network
        Symmetric links without switches.
    strength
        Of the network, in its unit.
    most
        The most trees.

    Raises
    ------
    PackingError
        Where the network has switches or is not symmetric, or ``most`` is too small for a tree.
    """
    if not network.symmetric or len(network.vertices) != network.nranks:
        raise PackingError("trees of one rate are packed on symmetric links without switches only")
    k = _finest(strength, most)
    ntrees = int(strength * k)
    # A tree uses an edge once, so more copies than trees are of no use.
    edges = [(u, v) for u, v, c in network.arcs if u < v for _ in range(min(c * k, ntrees))]
    packed = _core.pack_forests(network.nranks, ntrees, edges)
    if len(packed) != ntrees:
        raise AssertionError(f"{len(packed)} edge-disjoint trees where Nash-Williams and Tutte promise {ntrees}")
    return merged(_rooted([[(min(e), max(e)) for e in tree] for tree in packed], network.nranks, network.unit / k))


def equal_arborescences(network: Network, arcs: IntArcs, bound: Fraction, most: int) -> list[RoutedTree]:
    """At most ``most`` trees of one rate, as many rooted at every rank, as fast as such can be.

    Parameters
    ----------
    network
        Links without switches.
    arcs
        The network's arcs, reversed where trees lead to their roots.
    bound
        Of the collective, in the network's unit.
    most
        The most trees; one for each rank at least.

    Raises
    ------
    PackingError
        Where the network has switches, or ``most`` is less than the number of ranks.
    """
    n = network.nranks
    if len(network.vertices) != n:
        raise PackingError("trees of one rate are packed on links without switches only")
    if most < n:
        raise PackingError(f"equal_trees={most}: each of the {n} ranks is the root of a tree")
    best = (Fraction(0), 0, Fraction(0))
    for k in range(1, most // n + 1):
        if bound <= best[0]:
            break
        rate = _fastest(network, arcs, bound, k)
        best = max(best, (n * k * rate, -k, rate))
    _, minus_k, rate = best
    return merged(pack_shares(network, _whole(arcs, rate), [-minus_k] * n, rate * network.unit, (0, True)))


def _fastest(network: Network, arcs: IntArcs, bound: Fraction, k: int) -> Fraction:
    """The highest rate of which ``k`` trees fit for every root."""
    n = network.nranks
    # A tree uses an arc once, so no arc carries more than n k of them.
    steps = sorted({Fraction(c, m) for c in {c for *_, c in arcs} for m in range(1, n * k + 1)})
    low, high = 0, len(steps) - 1  # the lowest fits: every arc carries all trees
    while low < high:
        middle = (low + high + 1) // 2
        if n * k * steps[middle] <= bound and _fits(network, _whole(arcs, steps[middle]), k):
            low = middle
        else:
            high = middle - 1
    return steps[low]


def _fits(network: Network, arcs: IntArcs, k: int) -> bool:
    num, den, _ = run("root_cut", arcs, network.nranks, network.nranks, arcs, [1] * network.nranks)
    return bool(num >= k * den)


def _whole(arcs: IntArcs, rate: Fraction) -> IntArcs:
    """How many trees of this rate each arc carries."""
    carried = ((u, v, int(c / rate)) for u, v, c in arcs)
    return [(u, v, c) for u, v, c in carried if c]


def _finest(strength: Fraction, most: int) -> int:
    """The k with the highest floor(k * strength) / k for at most ``most`` trees; the least such k."""
    fitting = [k for k in range(1, int((most + 1) / strength) + 2) if 1 <= int(k * strength) <= most]
    if not fitting:
        raise PackingError(f"equal_trees={most}: the least number of trees of one rate here is {int(strength) or 1}")
    return max(fitting, key=lambda k: (Fraction(int(k * strength), k), -k))


def _rooted(trees: list[list[tuple[int, int]]], nranks: int, rate: Fraction) -> list[RoutedTree]:
    """Every tree rooted where it is shallow, every rank root of its part of them: a root runs one channel, not two."""
    depths = [[depth(root, tree) for root in range(nranks)] for tree in trees]
    roots = [of_tree.index(min(of_tree)) for of_tree in depths]
    for rank in range(nranks):
        while roots.count(rank) < len(trees) // nranks:
            movable = [t for t, root in enumerate(roots) if roots.count(root) > len(trees) // nranks]
            t = min(movable, key=lambda t: (depths[t][rank] - depths[t][roots[t]], t))
            roots[t] = rank
    return [RoutedTree(root, rate, outward(root, tree)) for root, tree in zip(roots, trees, strict=True)]
