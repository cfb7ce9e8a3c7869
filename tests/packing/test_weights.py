from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest

from blinkcoll.packing import make_plan
from blinkcoll.packing.weights import in_proportion, link_load, tree_load
from blinkcoll.topology import load_topology

CASES = [("dgx1-v100", "allreduce", None), ("dgx1-v100", "broadcast", 3), ("mi250x", "allgather", None), ("dgx2", "reduce", 0), ("hgx-h100", "reducescatter", None)]


@pytest.mark.parametrize(("layout", "collective", "root"), CASES)
def test_trees_load_every_link_of_their_paths_with_their_rate(layout, collective, root):
    plan = make_plan(load_topology(layout), collective, root)
    load: Counter[tuple[int | str, int | str]] = Counter()
    for tree in plan.trees:
        for half in (tree.up, tree.down):
            for path in half or ():
                load.update(dict.fromkeys(pairwise(path), Fraction(0)))
                for hop in pairwise(path):
                    load[hop] += tree.rate
    assert tree_load(plan.trees) == load == link_load(plan)


@pytest.mark.parametrize(("layout", "collective", "root"), CASES)
def test_in_proportion_the_busiest_link_is_full_and_none_is_more(layout, collective, root):
    plan = make_plan(load_topology(layout), collective, root)
    capacity = plan.topology.restrict(plan.links).capacities()
    rate, trees = in_proportion(plan.trees, capacity)
    assert [tree.weight for tree in trees] == [tree.weight for tree in plan.trees]
    assert all(tree.rate == rate * tree.weight for tree in trees)
    assert max(used / capacity[hop] for hop, used in tree_load(trees).items()) == 1
    assert rate == plan.rate  # nothing faster has these proportions
