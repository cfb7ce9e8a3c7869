"""Trees of fewest hops, for sizes whose time is latency: breadth first from a centre of the graph.

A tree of depth d takes an all-reduce 2d hops where a ring takes 2(n - 1). Rates are what links leave to such trees when all
run at once; the plan is judged by the same bound as the exact one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from ..errors import PackingError
from ..packing import Plan, Tree
from ..packing.weights import in_proportion
from ..topology import Path, Topology, route
from .planned import default_plan

_Hop = tuple["int | str", "int | str"]


def shallow_plan(topology: Topology, collective: str, root: int | None, roots: Sequence[int] | None) -> Plan:
    """One breadth-first tree a root of ``roots``, of equal rates; where that is None, of ``root`` or the best centre.

    Raises
    ------
    PackingError
        Where the plan's links do not join the ranks.
    """
    exact = default_plan(topology, collective, root)
    fast = topology.restrict(list(exact.links))
    ways = _ways(fast)
    if root is not None:
        roots = [root]
    elif roots is None:
        roots = [min(range(topology.nranks), key=lambda r: (_depth(ways, r), r))]
    up, down = collective != "broadcast", collective != "reduce"
    even = Fraction(1, len(roots))
    trees = []
    for r in roots:
        arcs = _breadth_first(ways, r)
        trees.append(Tree(r, even, even, _paths(ways, arcs, True) if up else None, _paths(ways, arcs, False) if down else None))
    rate, at_it = in_proportion(trees, fast.capacities())
    return replace(exact, method="shallow", rate=rate, trees=at_it)


def _ways(topology: Topology) -> dict[tuple[int, int], Path]:
    """Pairs of ranks joined by a link, or by switches alone, and the way between them."""
    capacities = topology.capacities()
    switches = {v for hop in capacities for v in hop if isinstance(v, str)}
    n = topology.nranks
    if not switches:
        return {hop: hop for hop in capacities if all(isinstance(v, int) for v in hop)}  # type: ignore[misc]
    return {(a, b): route(topology, a, b) for a in range(n) for b in range(n) if a != b}


def _breadth_first(ways: dict[tuple[int, int], Path], root: int) -> list[tuple[int, int]]:
    """(parent, child) arcs; of the parents of a level each child takes the one with fewest children yet, then the lowest."""
    ranks = {v for pair in ways for v in pair}
    reached, level, arcs = {root}, [root], []
    while level:
        children = sorted({b for a in level for b in ranks - reached if (a, b) in ways and (b, a) in ways})
        taken = dict.fromkeys(level, 0)
        for child in children:
            parent = min((a for a in level if (a, child) in ways), key=lambda a: (taken[a], len(ways[a, child]), a))
            taken[parent] += 1
            arcs.append((parent, child))
        reached |= set(children)
        level = children
    if reached != ranks:
        raise PackingError(f"a breadth-first tree from rank {root} reaches {len(reached)} of {len(ranks)} ranks")
    return arcs


def _depth(ways: dict[tuple[int, int], Path], root: int) -> int:
    depth = {root: 0}
    for parent, child in _breadth_first(ways, root):
        depth[child] = depth[parent] + 1
    return max(depth.values())


def _paths(ways: dict[tuple[int, int], Path], arcs: list[tuple[int, int]], up: bool) -> tuple[Path, ...]:
    return tuple(ways[child, parent] if up else ways[parent, child] for parent, child in arcs)
