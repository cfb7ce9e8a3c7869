"""What must hold of every run: bytes conserved, monotone in latency and bandwidth, never above the bound, deterministic."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blinkcoll.packing import make_plan
from blinkcoll.packing.plan import Plan, Tree
from blinkcoll.schedules import Program, lower_rings, lower_trees
from blinkcoll.simulator import FLUID, Launch, Parameters, Protocol, run
from blinkcoll.simulator.critical_path import critical_path
from blinkcoll.simulator.traffic import links_crossed
from blinkcoll.topology import Device, Link, Topology, load_topology

SIZES = st.integers(1, 200_000).map(lambda count: count * 4)


@st.composite
def machines(draw: st.DrawFn) -> Topology:
    """A connected graph of 2-6 ranks with random capacities and latencies, both directions of every link."""
    n = draw(st.integers(2, 6))
    graph = nx.random_labeled_tree(n, seed=draw(st.integers(0, 10_000)))
    extra = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] != e[1]), max_size=5))
    graph.add_edges_from(extra)
    links = []
    for a, b in sorted(map(sorted, graph.edges)):
        capacity, latency = Fraction(draw(st.integers(1, 100))), Fraction(draw(st.integers(0, 30)), 10)
        links += [Link(f"g{x}", f"g{y}", "NVLINK", capacity, latency) for x, y in ((a, b), (b, a))]
    return Topology("random", tuple(Device(f"g{i}") for i in range(n)), (), tuple(links))


@st.composite
def tree_programs(draw: st.DrawFn, most: int = 3) -> Program:
    """One to ``most`` random spanning trees with random rates (not a packing: links are overbooked)."""
    topology = draw(machines())
    graph = nx.Graph(list(topology.capacities()))
    collective = draw(st.sampled_from(["broadcast", "reduce", "allreduce"]))
    root = draw(st.integers(0, topology.nranks - 1))
    trees = []
    for _ in range(draw(st.integers(1, most))):
        order = list(graph.edges)
        draw(st.randoms(use_true_random=False)).shuffle(order)
        spanning = nx.Graph()
        spanning.add_nodes_from(graph)
        for a, b in order:
            if not nx.has_path(spanning, a, b):
                spanning.add_edge(a, b)
        own_root = root if collective != "allreduce" else draw(st.integers(0, topology.nranks - 1))
        down = tuple(nx.bfs_edges(spanning, own_root))
        up = tuple((b, a) for a, b in down)
        trees.append(Tree(own_root, Fraction(draw(st.integers(1, 40 if most > 1 else 20))), Fraction(1), None if collective == "broadcast" else up, None if collective == "reduce" else down))
    rate = sum((t.rate for t in trees), Fraction(0))
    plan = Plan(topology, collective, "random", rate, rate, rate, None, ("NVLINK",), None if collective == "allreduce" else root, tuple(trees))
    return lower_trees(plan, slots=draw(st.integers(1, 5)), max_channels=256)


def slower(params: Parameters, factor: float) -> Parameters:
    """Every latency and synchronisation times ``factor``."""
    return replace(
        params,
        launch=Launch(params.launch.base_us * factor),
        protocols=tuple((n, replace(p, busy_us=p.busy_us * factor, flag_us=p.flag_us * factor)) for n, p in params.protocols),
    )


@settings(max_examples=60, deadline=None)
@given(tree_programs(), SIZES, st.integers(16, 40_000))
def test_every_chunk_crosses_every_link_of_its_path_once(program, nbytes, chunk_bytes):
    result = run(program, nbytes, chunk_bytes=chunk_bytes, trace=True)
    expected: dict[tuple[int | str, int | str], float] = {}
    for record in result.trace:
        step = program.ranks[record.rank][record.channel].steps[record.step]
        for hop, crossings in links_crossed(program, record.rank, step).items():
            expected[hop] = expected.get(hop, 0.0) + crossings * record.nbytes
    assert {hop: carried for hop, carried in result.link_bytes.items() if carried} == pytest.approx({h: b for h, b in expected.items() if b})
    # A tree has n - 1 edges each way: the whole buffer crosses that many links, whatever the shares.
    halves = 2 if program.collective == "allreduce" else 1
    assert sum(result.link_bytes.values()) == pytest.approx(halves * (program.nranks - 1) * nbytes)


@settings(max_examples=60, deadline=None)
@given(tree_programs(), SIZES, st.integers(16, 40_000))
def test_no_link_carries_more_than_its_capacity_at_any_time(program, nbytes, chunk_bytes):
    result = run(program, nbytes, chunk_bytes=chunk_bytes, trace=True)
    assert all(0 <= u <= 1 + 1e-6 for u in result.link_utilisation.values())
    capacities = program.topology.capacities()
    for hop, carried in result.link_bytes.items():
        first = min(r.start_us for r in result.trace)
        busy = max(r.end_us for r in result.trace) - first
        assert carried <= float(capacities[hop]) * 1e3 * busy * (1 + 1e-6)


# Monotone, as a theorem, where flows never meet: one tree, one channel each way. Where they share links, another order of
# sharing can arrive later with less latency (Graham's anomalies).


@settings(max_examples=40, deadline=None)
@given(tree_programs(most=1), SIZES, st.integers(64, 40_000), st.floats(1.0, 4.0))
def test_time_grows_with_latency(program, nbytes, chunk_bytes, factor):
    plain = run(program, nbytes, chunk_bytes=chunk_bytes, params=Parameters()).time_us
    late = run(program, nbytes, chunk_bytes=chunk_bytes, params=slower(Parameters(), factor)).time_us
    assert late >= plain * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(tree_programs(most=1), SIZES, st.integers(64, 40_000), st.integers(2, 5))
def test_time_shrinks_with_bandwidth(program, nbytes, chunk_bytes, factor):
    wide = replace(program.topology, links=tuple(replace(k, capacity=k.capacity * factor) for k in program.topology.links))
    plain = run(program, nbytes, chunk_bytes=chunk_bytes).time_us
    fast = run(replace(program, topology=wide), nbytes, chunk_bytes=chunk_bytes).time_us
    assert fast <= plain * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(tree_programs(), SIZES)
def test_a_run_repeats_itself_exactly(program, nbytes):
    again = replace(program)
    assert run(program, nbytes).time_us == run(again, nbytes).time_us == run(program, nbytes, trace=True).time_us


@settings(max_examples=40, deadline=None)
@given(tree_programs(), SIZES, st.integers(64, 40_000))
def test_the_critical_path_accounts_for_all_of_the_time(program, nbytes, chunk_bytes):
    result = run(program, nbytes, chunk_bytes=chunk_bytes, trace=True)
    path = critical_path(result)
    assert path.launch_us + path.moving_us + path.waiting_us == pytest.approx(result.time_us)
    assert path.steps[-1].end_us == pytest.approx(result.time_us)
    for before, after in zip(path.steps, path.steps[1:], strict=False):
        assert before.end_us <= after.start_us + 1e-6


@settings(max_examples=40, deadline=None)
@given(tree_programs(), SIZES, st.integers(64, 40_000))
def test_no_slot_is_written_before_it_was_given_back(program, nbytes, chunk_bytes):
    result = run(program, nbytes, chunk_bytes=chunk_bytes, trace=True)
    written: dict[int, list[float]] = {}
    taken: dict[int, list[tuple[float, float]]] = {}
    for record in sorted(result.trace, key=lambda r: (r.rank, r.channel, r.iteration)):
        for c in program.ranks[record.rank][record.channel].steps[record.step].signal:
            if program.connections[c].src == record.rank:
                written.setdefault(c, []).append((record.start_us, record.end_us))
            else:
                taken.setdefault(c, []).append((record.start_us, record.end_us))
    for c, writes in written.items():
        slots = program.connections[c].slots
        assert len(writes) == len(taken[c])
        for i, (start, end) in enumerate(writes):
            assert taken[c][i][0] >= end - 1e-5
            assert i < slots or start >= taken[c][i - slots][1] - 1e-5


@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
def test_no_simulated_rate_exceeds_the_bound(collective):
    topology = load_topology("dgx1-v100")
    for gpus in ((0, 1, 4), (0, 1, 2, 3), tuple(range(8))):
        plan = make_plan(topology.subset(gpus), collective, None if collective == "allreduce" else 0)
        program = lower_trees(plan)
        for nbytes in (1 << 20, 1 << 28):
            for params in (None, FLUID):
                assert run(program, nbytes, params=params).algbw <= float(plan.bound) * (1 + 1e-9)


def test_a_ring_on_a_single_rank_copies_and_nothing_else():
    topology = load_topology("dgx1-v100").subset([3])
    result = run(lower_rings(topology, [[0]]), 1 << 20, params=Parameters(protocols=(("simple", Protocol()),)))
    assert result.link_bytes == {}
    assert result.time_us == pytest.approx(6.6 + (1 << 20) / 26.5e3, rel=1e-6)


def test_nothing_to_move_takes_the_launch_alone():
    program = lower_rings(load_topology("dgx1-v100"), [range(8)])
    assert run(program, 0).time_us == 6.6


def test_threads_may_simulate_one_program_at_once():
    program = lower_rings(load_topology("dgx1-v100"), [range(8)] * 2)
    sizes = [1 << k for k in range(12, 28)]
    expected = [run(program, nbytes).time_us for nbytes in sizes]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda nbytes: run(program, nbytes).time_us, sizes * 4)) == expected * 4
