"""Optima published or derived by hand, in link units."""

from fractions import Fraction
from itertools import combinations

import pytest

from blinkcoll.errors import PackingError
from blinkcoll.packing import make_plan
from blinkcoll.topology import load_topology

LANE = {"dgx1-v100": 20, "dgx1-p100": 18}
ALLREDUCE = [
    ("dgx1-v100", range(8), Fraction(24, 7)),
    ("dgx1-v100", (0, 1, 4), Fraction(1)),
    ("dgx1-v100", (0, 2, 3), Fraction(5, 2)),
    ("dgx1-v100", (0, 1, 2, 4, 5, 7), Fraction(12, 5)),
    ("dgx1-v100", (0, 2, 3, 4, 6, 7), Fraction(14, 5)),
    ("dgx1-p100", range(8), Fraction(16, 7)),
    ("dgx1-p100", (0, 1, 2, 4, 5, 6), Fraction(9, 5)),
]


@pytest.mark.parametrize(("name", "gpus", "units"), ALLREDUCE, ids=str)
def test_allreduce_reaches_the_known_optimum(name, gpus, units):
    plan = make_plan(load_topology(name).subset(list(gpus)), "allreduce")
    plan.check()
    assert plan.rate == plan.bound == units * LANE[name]


@pytest.mark.parametrize(("collective", "root", "units"), [("broadcast", 3, 6), ("reduce", 5, 6), ("allgather", None, Fraction(48, 7)), ("reducescatter", None, Fraction(48, 7))])
def test_eight_v100s_reach_the_known_optimum(collective, root, units):
    plan = make_plan(load_topology("dgx1-v100"), collective, root)
    plan.check()
    assert plan.rate == plan.bound == 20 * units


@pytest.mark.parametrize("name", LANE)
def test_every_nvlink_subset_and_root_meets_its_bound(name):
    topo = load_topology(name)
    checked = 0
    for k in range(2, 9):
        for gpus in combinations(range(8), k):
            part = topo.subset(list(gpus))
            for collective in ("allreduce", "allgather", "reducescatter", "broadcast", "reduce"):
                for root in range(k) if collective in ("broadcast", "reduce") else [None]:
                    try:
                        plan = make_plan(part, collective, root, links=["NVLINK"])
                    except PackingError as error:
                        assert "nothing leads from" in str(error)
                        continue
                    plan.check()
                    assert plan.optimal, (gpus, collective, root, plan.rate, plan.bound)
                    checked += 1
    assert checked > 1900
