"""All-reduce trees of one rate: a little less than the bound, in a form that fair links carry as planned.

A multigraph with every capacity times k has floor(k * strength) edge-disjoint spanning trees (Nash-Williams 1961,
Tutte 1961), each of rate unit / k. Among the k with few enough trees the fastest is taken. Exact plans have trees of
unequal rates, whose channels share links evenly all the same and so get less than planned.
"""

from __future__ import annotations

from fractions import Fraction

from .. import _core
from ..errors import PackingError
from .arborescences import RoutedTree, depth, merged, outward
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
