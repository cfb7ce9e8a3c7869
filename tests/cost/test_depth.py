from __future__ import annotations

import networkx as nx
import pytest

from blinkcoll.cost.depth import least_depth
from blinkcoll.packing import make_plan
from blinkcoll.schedules import lower_rings, lower_trees
from blinkcoll.schedules.encoding import number_uses
from blinkcoll.schedules.handshake import begun_first, begun_meanwhile
from blinkcoll.selection import Request, table_for
from blinkcoll.simulator.baselines.ring import store_directly
from blinkcoll.topology import load_topology


def depth_by_graph(program) -> int:
    """The longest path of steps, an arc for each use of a connection; what lies between in a channel costs nothing."""
    steps = number_uses(program).steps
    writers = {(c, use): node for node, step in steps.items() for c, use in step.signals if program.connections[c].src == node[0]}
    graph = nx.DiGraph()
    graph.add_nodes_from(steps)
    for (rank, channel, s), step in steps.items():
        graph.add_edges_from(((rank, channel, earlier), (rank, channel, s)) for earlier in range(s) if steps[rank, channel, earlier].step.share == step.step.share)
        for use in step.waits:
            if program.connections[use[0]].dst == rank:
                graph.add_edge(writers[use], (rank, channel, s), hops=1)
    shares = [[node for node, step in steps.items() if step.step.share == share] for share in range(len(program.weights))]
    return min(nx.dag_longest_path_length(graph.subgraph(nodes), weight="hops", default_weight=0) for nodes in shares)


@pytest.mark.parametrize("nranks", [3, 4, 5, 8])
def test_rings_take_a_hop_a_rank_but_one_each_time_around(nranks):
    topology = load_topology("dgx2").subset(list(range(nranks)))
    depths = {c: least_depth(lower_rings(topology, [list(range(nranks))], collective=c)) for c in ("allreduce", "allgather", "reducescatter")}
    assert depths == {"allreduce": 2 * (nranks - 1), "allgather": nranks - 1, "reducescatter": nranks - 1}


@pytest.mark.parametrize("nranks", [4, 5, 8])
def test_what_is_told_meanwhile_is_no_hop_and_what_is_told_first_is_one(nranks):
    topology = load_topology("dgx2").subset(list(range(nranks)))
    program = store_directly(lower_rings(topology, [list(range(nranks))], collective="allgather"))
    assert [least_depth(p) for p in (program, begun_meanwhile(program), begun_first(program))] == [nranks - 1, nranks - 1, nranks]


def test_unequal_trees_have_the_depth_of_the_shallowest():
    plan = make_plan(load_topology("mi250x"), "broadcast", 0)
    heights = [max(nx.shortest_path_length(nx.DiGraph((path[0], path[-1]) for path in tree.down), 0).values()) for tree in plan.trees]
    assert least_depth(lower_trees(plan)) == min(heights) < max(heights)


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "reducescatter", "broadcast", "alltoall", "gather"])
@pytest.mark.parametrize(("layout", "gpus"), [("dgx1-v100", (0, 1, 4)), ("hgx-h100", (0, 1, 2, 3)), ("mi250x", (0, 1, 2, 3)), ("rtx4090x8", (0, 1, 4, 5))])
def test_the_depth_is_the_longest_path_of_every_candidate(layout, gpus, collective):
    topology = load_topology(layout).subset(list(gpus))
    contest = table_for(Request(topology, collective, 0 if collective in ("broadcast", "gather") else None, 32)).contest
    for candidate in contest.candidates:
        assert least_depth(candidate.draft.program) == depth_by_graph(candidate.draft.program), candidate.name
