"""Blink's first stage: many trees within (1 - epsilon) of the optimum, by multiplicative weight updates.

Wang et al., MLSys 2020, section 3.1; the scheme is Garg and Koenemann's (2007, section 2) with trees in place of paths,
in ``csrc/packing/treeweights.h``. With a step of epsilon / 2 it guarantees (1 - epsilon / 2)^2 >= 1 - epsilon of the optimum. Its weights
are scaled here, in rationals, until the fullest link is exactly full.
"""

from __future__ import annotations

from fractions import Fraction

from .. import _core
from ..errors import PackingError
from .arborescences import RoutedTree, outward, reroot
from .collectives import ROOTED
from .links import Network


def multiplicative_weights(network: Network, collective: str, root: int | None, epsilon: float) -> list[RoutedTree]:
    """Trees with exact rates that lead away from the root (or, for all-reduce, undirected ones around their centres).

    Parameters
    ----------
    network
        Without switches; symmetric for all-reduce.
    epsilon
        What may be missing of the optimum, 0 < epsilon < 1. Time and, roughly, trees grow with 1 / epsilon^2.
    """
    if not 0 < epsilon < 1:
        raise PackingError(f"epsilon must lie between 0 and 1, got {epsilon!r}")
    undirected = collective not in ROOTED
    arcs = [(v, u, c) if collective == "reduce" else (u, v, c) for u, v, c in network.arcs if u < v or not undirected]
    try:
        taken, _ = _core.weigh_trees(network.nranks, [(u, v, float(c)) for u, v, c in arcs], root or 0, undirected, epsilon / 2)
    except ValueError as error:
        raise PackingError(f"blink: epsilon={epsilon!r}: {error}") from None
    load: dict[int, Fraction] = {}
    for tree, weight in taken:
        for a in tree:
            load[a] = load.get(a, Fraction(0)) + Fraction(weight)
    scale = min(arcs[a][2] / used for a, used in load.items()) * network.unit
    found = [RoutedTree(root or 0, Fraction(weight) * scale, outward(root or 0, [arcs[i][:2] for i in tree])) for tree, weight in taken]
    return [reroot(tree) for tree in found] if undirected else found
