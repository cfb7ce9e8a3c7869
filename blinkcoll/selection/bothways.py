"""An all-reduce of an all-gather's trees: each is walked towards its root with sums first, then down again with results.

Every rank is the root of trees, as in ForestColl (Zhao et al., 2024), so that no rank has all the roots' work, and trees are as
shallow as the all-gather's. Links carry sums as well as results: rates are what is left to each tree when all run at once.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import PackingError
from ..packing import Plan
from ..packing.weights import in_proportion, tree_uses


def both_ways(allgather: Plan, allreduce: Plan) -> Plan:
    """The plan of the first one's trees, in the same proportions, judged by the bound of the second.

    Raises
    ------
    PackingError
        Where a tree crosses a link that has no way back.
    """
    capacities = allreduce.topology.restrict(allgather.links).capacities()
    trees = [replace(tree, up=tuple(tuple(reversed(path)) for path in tree.down or ())) for tree in allgather.trees]
    if missing := [hop for tree in trees for hop in tree_uses(tree) if hop not in capacities]:
        raise PackingError(f"there is no link {missing[0][0]}→{missing[0][1]} for the way back")
    rate, at_it = in_proportion(trees, capacities)
    return replace(allreduce, method="both ways", links=allgather.links, rate=rate, trees=at_it)
