"""The best rates of given trees, exactly: what any choice of trees comes down to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from ..topology import Path
from .arborescences import depth
from .check import loaded_paths
from .exactlp import LinearProgram, maximise
from .links import Arc
from .plan import Plan, Tree


def weigh(trees: Sequence[Tree], capacity: Mapping[Arc, Fraction], roots: Sequence[int] | None = None) -> tuple[Fraction, tuple[Tree, ...]]:
    """The best rate of these trees within the capacities, and those that it uses, fastest first.

    Parameters
    ----------
    roots
        All of them get the same, where given (all-gather and reduce-scatter).
    """
    if not trees or (roots and {tree.root for tree in trees} != set(roots)):
        return Fraction(0), ()
    program = LinearProgram()
    weight = [program.add_variable(0 if roots else 1) for _ in trees]
    uses = [tree_uses(tree) for tree in trees]
    for arc, c in capacity.items():
        entries = {w: u[arc] for w, u in zip(weight, uses, strict=True) if arc in u}
        if entries:
            program.add_row(entries, c)
    if roots:
        rate = program.add_variable(1)
        for r in roots:
            program.add_row({**{w: len(roots) for w, tree in zip(weight, trees, strict=True) if tree.root == r}, rate: -1}, 0, equal=True)
    solution = maximise(program)
    if not solution.value:
        return Fraction(0), ()
    used = [replace(tree, rate=solution.x[w], weight=solution.x[w] / solution.value) for w, tree in zip(weight, trees, strict=True) if solution.x[w]]
    return solution.value, tuple(sorted(used, key=lambda tree: (-tree.rate, tree.root)))


def in_proportion(trees: Sequence[Tree], capacity: Mapping[Arc, Fraction]) -> tuple[Fraction, tuple[Tree, ...]]:
    """The best rate of these trees by their weights when all run at once within the capacities, and the trees at it."""
    load = tree_load(replace(tree, rate=tree.weight) for tree in trees)
    rate = min(capacity[arc] / part for arc, part in load.items())
    return rate, tuple(replace(tree, rate=rate * tree.weight) for tree in trees)


def rate_of(trees: Iterable[Tree]) -> Fraction:
    """What these trees carry together, GB/s."""
    return sum((tree.rate for tree in trees), Fraction(0))


def tree_uses(tree: Tree) -> dict[Arc, int]:
    """How often the tree crosses each link."""
    uses: dict[Arc, int] = {}
    for path in _loaded(tree):
        for arc in pairwise(path):
            uses[arc] = uses.get(arc, 0) + 1
    return uses


def tree_load(trees: Iterable[Tree]) -> dict[Arc, Fraction]:
    """What these trees send over each link, GB/s."""
    load: dict[Arc, Fraction] = {}
    for tree in trees:
        for arc, times in tree_uses(tree).items():
            load[arc] = load.get(arc, Fraction(0)) + times * tree.rate
    return load


def _loaded(tree: Tree) -> list[Path]:
    """The paths that the tree's rate loads, of both halves."""
    halves = [(half, name) for half, name in ((tree.up, "up"), (tree.down, "down")) if half is not None]
    return [path for half, name in halves for path in loaded_paths(tree, half, name, len(half) + 1)]


def tree_depth(tree: Tree) -> int:
    """Ranks passed between the root and the farthest rank, in the deeper half."""
    return max(depth(tree.root, half) for half in (tree.up, tree.down) if half is not None)


def link_load(plan: Plan) -> dict[Arc, Fraction]:
    """What the plan sends over each directed pair of vertices, GB/s."""
    load = tree_load(plan.trees)
    carried = [(part.rate, p) for part in plan.partitions for p in (*(part.up or ()), *(part.down or ()), *part.exchange)]
    for rate, path in [*carried, *((f.rate, f.path) for f in plan.flows)]:
        for hop in pairwise(path):
            load[hop] = load.get(hop, Fraction(0)) + rate
    return load
