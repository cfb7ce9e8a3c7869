from itertools import combinations

import networkx as nx
import pytest

from blinkcoll.topology import load_topology


@pytest.mark.parametrize(("name", "classes"), [("dgx1-p100", [4, 3, 3, 1, 1]), ("dgx1-v100", [14, 14, 10, 2, 1])])
def test_dgx1_has_the_classes_that_blink_counts(name, classes):
    """14 classes of three to eight GPUs on P100 machines, 46 on V100 ones (MLSys 2020, section 2)."""
    found = [len(load_topology(name).unique_subsets(k)) for k in range(4, 9)]
    assert found == classes
    assert len(load_topology(name).unique_subsets(3)) + sum(found) == {"dgx1-p100": 14, "dgx1-v100": 46}[name]


@pytest.mark.parametrize("name", ["dgx2", "hgx-h100", "mi300x", "gb200-nvl72", "host"])
def test_where_all_are_alike_there_is_one_class_a_size(name):
    topology = load_topology(name)
    assert [len(topology.unique_subsets(k)) for k in range(1, 9)] == [1] * 8
    assert topology.unique_subsets(topology.nranks + 1) == []


@pytest.mark.parametrize("k", [2, 3, 4])
def test_mi250x_classes_agree_with_pairwise_networkx(k):
    topology = load_topology("mi250x").restrict(["XGMI"])
    graphs = []
    for ranks in combinations(range(16), k):
        graph = nx.Graph()
        graph.add_nodes_from(ranks)
        for link in topology.links:
            a, b = topology.vertex(link.src), topology.vertex(link.dst)
            if a in ranks and b in ranks:
                graph.add_edge(a, b, lanes=link.lanes)
        if nx.is_connected(graph) and not any(
            nx.is_isomorphic(graph, g, edge_match=lambda x, y: x["lanes"] == y["lanes"]) for g in graphs
        ):
            graphs.append(graph)
    assert len(load_topology("mi250x").unique_subsets(k)) == len(graphs)


def test_pcie_machines_have_classes_by_switch_and_socket():
    found = {tuple(d.index for d in t.devices) for t in load_topology("l40sx8").unique_subsets(2)}
    assert found == {(0, 1), (0, 2), (0, 4)}
