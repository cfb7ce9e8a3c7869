"""The same all-reduce trees from other roots: loads on links stay as they are, work in ranks moves.

At its root a tree's two directions meet in one step, which feeds all children at once; everywhere else they are two channels.
A tree of several children is split into two halves, rooted at both ends of a longest path: no rank has all the roots.
"""

from __future__ import annotations

from dataclasses import replace

from ..packing import Plan, Tree
from ..topology import Path


def from_both_ends(plan: Plan) -> Plan:
    """The plan with every tree in two halves, rooted at the ends of a longest path of it, the lowest among equals."""
    halves = []
    for tree in plan.trees:
        half = replace(tree, rate=tree.rate / 2, weight=tree.weight / 2)
        near = _reroot(half, _farthest(half))
        halves += [near, _reroot(near, _farthest(near))]
    return replace(plan, trees=tuple(halves))


def _edges(tree: Tree) -> dict[tuple[int, int], tuple[Path, Path]]:
    """(parent, child) to the ways up and down."""
    up = {(path[-1], path[0]): path for path in tree.up or ()}
    down = {(path[0], path[-1]): path for path in tree.down or ()}
    return {(a, b): (up[a, b], down[a, b]) for a, b in down if isinstance(a, int) and isinstance(b, int)}


def _farthest(tree: Tree) -> int:
    edges = _edges(tree)
    depth, queue = {tree.root: 0}, [tree.root]
    for rank in queue:
        for a, b in sorted(edges):
            if a == rank:
                depth[b] = depth[rank] + 1
                queue.append(b)
    return min(depth, key=lambda rank: (-depth[rank], rank))


def _reroot(tree: Tree, root: int) -> Tree:
    """Edges between the two roots turn round: what led down leads up."""
    edges = _edges(tree)
    parent = {b: a for a, b in edges}
    turned, rank = set(), root
    while rank != tree.root:
        turned.add((parent[rank], rank))
        rank = parent[rank]
    ways = [(down, up) if edge in turned else (up, down) for edge, (up, down) in edges.items()]
    return replace(tree, root=root, up=tuple(up for up, _ in ways), down=tuple(down for _, down in ways))
