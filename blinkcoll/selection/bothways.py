"""An all-reduce of an all-gather's trees: each is walked towards its root with sums first, then down again with results.

Every rank is the root of trees, as in ForestColl (Zhao et al., 2024), so that no rank has all the roots' work, and trees are as
shallow as the all-gather's. Links carry sums as well as results: rates are what is left to each tree when all run at once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from ..errors import PackingError
from ..packing import Plan


def both_ways(allgather: Plan, allreduce: Plan) -> Plan:
    """The plan of the first one's trees, in the same proportions, judged by the bound of the second.

    Raises
    ------
    PackingError
        Where a tree crosses a link that has no way back.
    """
    capacities = allreduce.topology.restrict(allgather.links).capacities()
    load: dict[tuple[int | str, int | str], Fraction] = defaultdict(Fraction)
    trees = []
    for tree in allgather.trees:
        up = tuple(tuple(reversed(path)) for path in tree.down or ())
        trees.append(replace(tree, up=up))
        for path in (*up, *(tree.down or ())):
            for hop in pairwise(path):
                load[hop] += tree.weight
    if missing := [hop for hop in load if hop not in capacities]:
        raise PackingError(f"there is no link {missing[0][0]}→{missing[0][1]} for the way back")
    rate = min(capacities[hop] / part for hop, part in load.items())
    return replace(allreduce, method="both ways", links=allgather.links, rate=rate, trees=tuple(replace(tree, rate=rate * tree.weight) for tree in trees))
