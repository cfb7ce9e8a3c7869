"""Few trees out of given ones, by a mixed-integer program: for networks where not everything can be listed.

Blink (Wang et al., MLSys 2020, section 3.2) chooses among the trees of its fractional packing in the same spirit. The
program is solved in floats and in bounded time, so the choice is the best that was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from ..topology import Path
from .links import Arc
from .mixedinteger import MixedInteger
from .plan import Tree
from .weights import tree_depth, tree_uses

#: Trees that the integer program chooses from, at most: more find little and take long.
_MOST_CANDIDATES = 400


def distinct(trees: Iterable[Tree]) -> list[Tree]:
    """Trees that differ, the first ones if there are too many."""
    found: dict[tuple[int, frozenset[Path], frozenset[Path]], Tree] = {}
    for tree in trees:
        found.setdefault((tree.root, frozenset(tree.up or ()), frozenset(tree.down or ())), tree)
    return list(found.values())[:_MOST_CANDIDATES]


class TreeChoice:
    """Weights of candidate trees within the links' capacities; ``roots`` that all get the same, where there are such."""

    def __init__(self, candidates: Sequence[Tree], capacity: Mapping[Arc, Fraction], roots: Sequence[int] | None):
        self.candidates, self.capacity, self.roots = candidates, capacity, roots
        self.uses = [tree_uses(tree) for tree in candidates]
        self.depth = [tree_depth(tree) for tree in candidates]
        self.scale = max((float(c) for c in capacity.values()), default=1.0)

    def fewest(self, rate: Fraction, most: int, budget_s: float, max_depth: int | None = None) -> list[Tree]:
        """The fewest trees that carry ``rate``; fewer than ``most``, or none."""
        numbers = self._choose(float(rate) / self.scale, None, budget_s, max_depth)
        return [self.candidates[t] for t in numbers] if len(numbers) < most else []

    def fastest(self, most: int, budget_s: float) -> list[Tree]:
        """At most ``most`` trees that carry as much as they can."""
        return [self.candidates[t] for t in self._choose(None, most, budget_s, None)]

    def _choose(self, rate: float | None, most: int | None, budget_s: float, max_depth: int | None) -> list[int]:
        """Numbers of the candidates to use, none if no choice was found."""
        program, few = MixedInteger(), rate is not None
        wide = [min(float(self.capacity[arc] / n) for arc, n in uses.items()) / self.scale for uses in self.uses]
        allowed = [max_depth is None or deep <= max_depth for deep in self.depth]
        weight = [program.variable(w if ok else 0.0, 0.0 if few else -1.0) for w, ok in zip(wide, allowed, strict=True)]
        used = [program.variable(1.0, 1.0 if few else 0.0, integer=True) for _ in wide]
        for x, z, w in zip(weight, used, wide, strict=True):
            program.row({x: 1.0, z: -w}, high=0.0)
        for arc, c in self.capacity.items():
            program.row({x: float(uses[arc]) for x, uses in zip(weight, self.uses, strict=True) if arc in uses}, high=float(c) / self.scale)
        if self.roots is not None:
            of_root = {r: [x for x, tree in zip(weight, self.candidates, strict=True) if tree.root == r] for r in self.roots}
            first = of_root[self.roots[0]]
            program.row(dict.fromkeys(first, 1.0), low=(rate or 0.0) / len(self.roots))
            for r in self.roots[1:]:
                program.row({**dict.fromkeys(first, -1.0), **dict.fromkeys(of_root[r], 1.0)}, 0.0, 0.0)
        elif rate is not None:
            program.row(dict.fromkeys(weight, 1.0), low=rate)
        if most is not None:
            program.row(dict.fromkeys(used, 1.0), high=float(most))
        values = program.minimum(budget_s)
        return [t for t, z in enumerate(used) if values[z] > 0.5] if values else []
