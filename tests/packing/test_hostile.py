"""Inputs that nobody sane would plan on: each gives a valid plan or an error that says what is wrong."""

import random
import time
from dataclasses import replace
from fractions import Fraction

import pytest
from packing_fabrics import a100_boxes, both, mi250_boxes, star, topology

from blinkcoll.errors import PackingError, TopologyError
from blinkcoll.packing import make_plan
from blinkcoll.packing.progress import progress
from blinkcoll.topology import Link, load_topology

COLLECTIVES = [("broadcast", 0), ("reduce", 0), ("allreduce", None), ("allgather", None), ("reducescatter", None), ("gather", 0), ("scatter", 0), ("alltoall", None)]
every_collective = pytest.mark.parametrize(("collective", "root"), COLLECTIVES)


def changed(topo, ends, factor):
    """The link between two vertices, in that direction only, at another speed; 0 takes it out."""
    links = (replace(k, capacity=k.capacity * factor) if (k.src, k.dst) == ends and factor else k for k in topo.links)
    return replace(topo, links=tuple(k for k in links if factor or (k.src, k.dst) != ends))


def planned(topo, collective, root):
    plan = make_plan(topo, collective, root)
    plan.check()
    assert plan.optimal
    return plan


@every_collective
def test_one_rank_has_nothing_to_plan(collective, root):
    with pytest.raises(PackingError, match="a single rank"):
        make_plan(load_topology("dgx1-v100").subset([3]), collective, root)


@every_collective
def test_two_ranks_and_one_link(collective, root):
    both_ways = {"allreduce": 1, "allgather": 2, "reducescatter": 2, "gather": 2, "scatter": 2, "alltoall": 2}.get(collective, 1)
    assert planned(topology(2, both({(0, 1): Fraction(76, 7)})), collective, root).rate == both_ways * Fraction(76, 7)


@every_collective
def test_ranks_that_nothing_joins_are_named(collective, root):
    with pytest.raises(PackingError, match=r"nothing leads from rank \d \(gpu\d\) to rank \d \(gpu\d\)"):
        make_plan(topology(4, both({(0, 1): 1, (2, 3): 1})), collective, root)


@every_collective
def test_no_links_at_all(collective, root):
    with pytest.raises(PackingError, match="nothing leads"):
        make_plan(topology(3, {}), collective, root)


@every_collective
@pytest.mark.parametrize("scale", [Fraction(10**15), Fraction(1, 10**15), Fraction(76, 7), Fraction(10**9 + 7, 998244353)], ids=str)
def test_huge_tiny_and_ugly_capacities(collective, root, scale):
    topo = load_topology("dgx1-v100").restrict(["NVLINK"]).subset([0, 1, 2, 4, 5, 7])
    scaled = replace(topo, links=tuple(replace(k, capacity=k.capacity * scale) for k in topo.links))
    assert planned(scaled, collective, root).rate == scale * planned(topo, collective, root).rate


@every_collective
def test_capacities_with_many_different_denominators(collective, root):
    edges = {(a, b): Fraction(1 + a + 7 * b, p) for (a, b), p in zip([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], (101, 103, 107, 109, 113, 127), strict=True)}
    planned(topology(4, both(edges)), collective, root)


@every_collective
@pytest.mark.parametrize("seed", range(6))
def test_capacities_twelve_orders_of_magnitude_apart(collective, root, seed):
    """Floats find no basis for these at once: the linear programs have to be refined."""
    draw = random.Random(seed)
    arcs = {(a, b): Fraction(draw.randint(1, 10**4), draw.randint(1, 50)) * Fraction(10) ** draw.randint(-6, 6) for a in range(4) for b in range(4) if a != b}
    arcs.update({arc: Fraction(10) ** draw.randint(-6, 6) for r in range(4) for arc in ((r, "s"), ("s", r)) if draw.random() < 0.7})
    planned(topology(4, arcs, ["s"]), collective, root)


@every_collective
def test_capacities_too_far_apart_are_refused_or_planned(collective, root):
    edges = {(0, 1): Fraction(10) ** 40, (1, 2): Fraction(1, 10**7), (0, 2): Fraction(1, 3)}
    try:
        planned(topology(3, both(edges)), collective, root)
    except PackingError as error:
        assert "bits" in str(error) or "exact LP" in str(error)


@every_collective
def test_a_thousand_parallel_links(collective, root):
    single = load_topology("dgx1-p100").restrict(["NVLINK"]).subset([0, 1, 2, 3])
    links = tuple(replace(k, capacity=k.capacity / 1000) for k in single.links for _ in range(1000))
    assert planned(replace(single, links=links), collective, root).rate == planned(single, collective, root).rate


@every_collective
@pytest.mark.parametrize("factor", [0, Fraction(1, 2), 3])
def test_a_link_that_is_broken_or_degraded_in_one_direction(collective, root, factor):
    topo = load_topology("dgx1-v100").restrict(["NVLINK"])
    whole, part = planned(topo, collective, root), planned(changed(topo, ("gpu0", "gpu3"), factor), collective, root)
    assert (part.rate <= whole.rate) if factor < 1 else (part.rate >= whole.rate)


@every_collective
def test_a_switch_with_one_slow_port(collective, root):
    slow = changed(star(8, 100), ("gpu3", "sw0"), Fraction(1, 3))
    start = time.monotonic()
    planned(slow, collective, root)
    assert time.monotonic() - start < 5


@every_collective
def test_capacities_given_as_ints_and_floats_mean_what_is_written(collective, root):
    topo = topology(3, both({(0, 1): 1, (1, 2): 1}))
    rough = replace(topo, links=tuple(replace(k, capacity=20.6 if k.src == "gpu0" else 25) for k in topo.links))
    fine = replace(topo, links=tuple(replace(k, capacity=Fraction(103, 5) if k.src == "gpu0" else Fraction(25)) for k in topo.links))
    assert planned(rough, collective, root).rate == planned(fine, collective, root).rate


def test_capacities_that_are_no_numbers_are_refused():
    topo = topology(2, both({(0, 1): 1}))
    with pytest.raises(TopologyError, match="is not an int"):
        make_plan(replace(topo, links=tuple(replace(k, capacity=float("inf")) for k in topo.links)), "allreduce")


def test_servers_of_unequal_sizes():
    topo = a100_boxes(2)
    part = topo.subset([topo.devices[i].name for i in (0, 1, 2, 3, 4, 8, 9, 10)])
    assert planned(part, "allgather", None).rate == 120  # three ranks that 75 GB/s lead into need five others' shards


def test_a_server_with_a_broken_nic():
    topo = changed(changed(mi250_boxes(2), ("gpu3", "ib"), 0), ("ib", "gpu3"), 0)
    assert planned(topo, "broadcast", 0).rate == 240


def test_a_switch_that_nothing_leaves_is_no_way():
    topo = topology(2, {**both({(0, 1): 1}), (0, "s"): 100, (1, "s"): 100}, ["s"])
    assert planned(topo, "allreduce", None).rate == 1


def test_a_broadcast_needs_one_direction_only():
    topo = topology(3, {(0, 1): 2, (1, 2): 2})
    assert planned(topo, "broadcast", 0).rate == 2
    with pytest.raises(PackingError, match="from rank 1"):
        make_plan(topo, "reduce", 0)


def test_relays_of_a_flow_forward():
    topo = load_topology("dgx1-v100").subset([0, 1], relays=[2, 3])
    plan = planned(topo, "alltoall", None)
    assert {v for flow in plan.flows for v in flow.path[1:-1]} == {"gpu2", "gpu3"}
    assert plan.rate == 160  # every lane of gpu0 to the other three: one direct, one over gpu2, one over gpu3, one over both


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"collective": "allrduce"}, "unknown collective 'allrduce'"),
        ({"collective": "broadcast"}, "needs a root"),
        ({"collective": "allreduce", "root": 0}, "has no root"),
        ({"collective": "broadcast", "root": 8}, "not a rank"),
        ({"collective": "broadcast", "root": True}, "not a rank"),
        ({"collective": "allreduce", "method": "magic"}, "unknown method"),
        ({"collective": "allreduce", "links": ["WIRE"]}, "expected 'fastest', 'all'"),
        ({"collective": "allreduce", "links": []}, "expected 'fastest', 'all'"),
        ({"collective": "allreduce", "links": ["XGMI"]}, "over its links \\(none\\)"),
        ({"collective": "allreduce", "rates": "best"}, "unknown rates"),
        ({"collective": "allreduce", "max_tree": 3}, "does not know the option max_tree"),
    ],
)
def test_wrong_arguments_say_what_is_expected(arguments, message):
    with pytest.raises(PackingError, match=message):
        make_plan(load_topology("dgx1-v100"), **arguments)


def test_underscores_and_case_do_not_matter():
    assert make_plan(load_topology("dgx1-p100"), "All_Reduce").collective == "allreduce"


def test_an_all_to_all_out_of_time_reports_its_gap():
    topo = load_topology("dgx1-v100").restrict(["NVLINK"])
    plan = make_plan(topo, "alltoall", budget_s=0.0)
    plan.check()
    best = make_plan(topo, "alltoall")
    assert plan.method == "approximate" and not plan.optimal
    assert plan.rate < best.rate <= plan.bound
    assert 0 < plan.gap == 1 - plan.rate / plan.bound < Fraction(1, 10)


def test_progress_is_reported_when_it_takes_long(capsys):
    with progress("planning something", first_s=0.05):
        time.sleep(0.3)
    with progress("planning nothing", first_s=5):
        pass
    err = capsys.readouterr().err
    assert "# planning something: 0.05 s so far" in err and "nothing" not in err


def test_links_of_other_kinds_stay_out_of_it():
    topo = topology(2, both({(0, 1): 1}))
    slow = tuple(Link(src=a, dst=b, kind="NIC", capacity=Fraction(5)) for a, b in (("gpu0", "gpu1"), ("gpu1", "gpu0")))
    plan = planned(replace(topo, links=(*topo.links, *slow)), "allreduce", None)
    assert (plan.links, plan.bound, plan.bound_all) == (("NVLINK",), 1, 6)
