from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkcoll._core import Partition
from blinkcoll.cost import default_chunk_bytes
from blinkcoll.cost.chunks import LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES, _ways_on_without_cycles, pipeline_shape
from blinkcoll.packing import make_plan
from blinkcoll.schedules import lower_rings, lower_trees
from blinkcoll.simulator import run
from blinkcoll.topology import load_topology

CASES = [("dgx1-v100", (0, 1, 4)), ("dgx1-v100", (0, 2, 3)), ("dgx1-v100", tuple(range(8))), ("dgx1-p100", tuple(range(8)))]


def programs(name, gpus):
    topology = load_topology(name).subset(gpus)
    yield lower_trees(make_plan(topology, "allreduce"))
    yield lower_trees(make_plan(topology, "broadcast", 0))
    yield lower_rings(topology, [range(len(gpus))] * 2)


@pytest.mark.parametrize(("name", "gpus"), CASES, ids=str)
@pytest.mark.parametrize("nbytes", [1 << 16, 1 << 20, 1 << 24, pytest.param(1 << 28, marks=pytest.mark.slow)])
def test_the_default_is_within_a_tenth_of_the_best_chunk_size(name, gpus, nbytes):
    for program in programs(name, gpus):
        chosen = run(program, nbytes, chunk_bytes=default_chunk_bytes(program, nbytes)).time_us
        best = min(run(program, nbytes, chunk_bytes=int(2 ** (k / 2)) // 16 * 16).time_us for k in range(20, 41))
        assert chosen <= 1.1 * best, (program.algorithm, program.collective, chosen, best)


_PROGRAM = lower_trees(make_plan(load_topology("dgx1-v100"), "allreduce"))


@given(st.integers(0, 1 << 40))
def test_chunks_are_aligned_and_within_their_limits(nbytes):
    chunk = default_chunk_bytes(_PROGRAM, nbytes)
    assert chunk % 16 == 0 and 0 < chunk <= MOST_CHUNK_BYTES


@pytest.mark.parametrize("nbytes", [8, 512, 4096])
def test_small_sizes_take_one_iteration(nbytes):
    chunk = default_chunk_bytes(_PROGRAM, nbytes)
    partition = Partition(nbytes // 4, 4, 1, _PROGRAM.weights, chunk)
    assert max(partition.iterations(share) for share in range(len(_PROGRAM.weights))) == 1
    assert chunk <= LEAST_CHUNK_BYTES


def test_depth_and_rate_of_a_chain():
    # 1 - 0 - 4 on a V100 DGX-1: up one hop, down one hop; NV1 to GPU 1, NV2 to GPU 4.
    program = lower_trees(make_plan(load_topology("dgx1-v100").subset([1, 0, 4]), "allreduce"))
    shape = pipeline_shape(program)
    assert (shape.depth, shape.lockstep) == (2, False)
    assert shape.rate_gb_s * len(program.weights) == pytest.approx(20)


def test_rings_are_lockstep_programs_with_the_largest_chunks_that_slots_hold():
    program = lower_rings(load_topology("dgx1-v100"), [range(8)])
    assert pipeline_shape(program).lockstep
    assert default_chunk_bytes(program, 1 << 30) == MOST_CHUNK_BYTES
    assert default_chunk_bytes(program, 1 << 20) == (1 << 20) // 8 + 16


def test_the_depth_is_that_of_the_deepest_of_equally_heavy_shares():
    plan = make_plan(load_topology("mi250x"), "broadcast", 0)
    program = lower_trees(plan)
    assert len(set(program.weights)) == 1
    depths = [max(nx.shortest_path_length(nx.DiGraph((path[0], path[-1]) for path in tree.down), 0).values()) for tree in plan.trees]
    assert pipeline_shape(program).depth == max(depths) > min(depths)


@given(st.lists(st.tuples(st.sets(st.integers(0, 11), min_size=1), st.sets(st.integers(0, 11))), max_size=12))
def test_the_longest_way_on_is_that_of_the_graph_of_connections_and_none_where_it_has_a_cycle(steps):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(12))
    graph.add_edges_from((c, d) for reads, writes in steps for c in reads for d in writes)
    found = _ways_on_without_cycles(12, [(sorted(reads), sorted(writes)) for reads, writes in steps])
    if not nx.is_directed_acyclic_graph(graph):
        assert found is None
        return
    longest: dict[int, int] = {}
    for c in reversed(list(nx.topological_sort(graph))):
        longest[c] = 1 + max((longest[d] for d in graph[c]), default=0)
    assert found == longest
