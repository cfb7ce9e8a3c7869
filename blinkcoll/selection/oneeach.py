"""One tree a rank, for all-gather and reduce-scatter: the heaviest that the exact plan has for each rank's shard.

Every shard is cut into the same shares, so one rank with a second tree gives all of them a second share, and a rank that is
inside many trees may have more of them than channels. Where one tree each is about as fast, it takes a channel each.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from ..packing import Plan, Tree
from ..packing.weights import in_proportion


def one_tree_each(plan: Plan) -> Plan:
    """The plan of the heaviest tree of every rank, at the rate that they all have when they run at once."""
    heaviest: dict[int, Tree] = {}
    for tree in plan.trees:
        if tree.root not in heaviest or tree.rate > heaviest[tree.root].rate:
            heaviest[tree.root] = tree
    even = Fraction(1, len(heaviest))
    rate, trees = in_proportion([replace(tree, weight=even) for tree in heaviest.values()], plan.topology.restrict(plan.links).capacities())
    return replace(plan, method="one tree a rank", rate=rate, trees=trees)
