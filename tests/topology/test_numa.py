"""Memory nodes: read from made-up trees of sysfs, and the topologies that follow."""

from __future__ import annotations

import os
from fractions import Fraction

import pytest

import blinkcoll as bc
from blinkcoll.packing import make_plan
from blinkcoll.topology import HostNodes, host_topology, nodes_here, own_node

EPYC = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n"


def make_sys(folder, cpulists, distances):
    for node, cpus in cpulists.items():
        at = folder / "devices/system/node" / f"node{node}"
        at.mkdir(parents=True)
        (at / "cpulist").write_text(cpus + "\n")
        if distances:
            (at / "distance").write_text(" ".join(map(str, distances[node])) + "\n")
    (folder / "devices/system/node/online").write_text("0-1\n")
    (folder / "cpuinfo").write_text(EPYC)
    return folder


@pytest.fixture
def four_nodes(tmp_path):
    """Two sockets of two nodes; node 2 has memory but no CPU, and numbers have a gap."""
    distances = {0: [10, 12, 32, 32], 1: [12, 10, 32, 32], 2: [32, 32, 10, 12], 5: [32, 32, 12, 10]}
    return make_sys(tmp_path, {0: "0-3,16-19", 1: "4-7", 2: "", 5: "8-15"}, distances)


@pytest.mark.parametrize(
    ("allowed", "running_on", "node"),
    [
        ({0, 18}, 0, 0),
        ({5}, 5, 1),
        ({8, 15}, 12, 5),
        ({3, 4}, 4, 1),  # allowed on two nodes: where it runs
        (range(20), 16, 0),
        ({99}, 99, None),  # a CPU of no node
    ],
)
def test_a_process_is_on_the_node_of_its_cpus(allowed, running_on, node, four_nodes):
    assert own_node(allowed, running_on, four_nodes) == node


def test_pinned_processes_are_not_asked_where_they_run(four_nodes):
    assert own_node({9}, 0, four_nodes) == 5


def test_without_sysfs_nothing_is_known(tmp_path):
    assert own_node({0}, 0, tmp_path) is None and nodes_here([0, 1], tmp_path, tmp_path / "cpuinfo").distances == {}


def test_this_machines_own_node_has_a_cpu_that_may_be_used():
    node = own_node()
    if not os.path.isdir("/sys/devices/system/node/node0"):
        pytest.skip("this kernel shows no memory nodes")
    assert node is not None and os.path.isdir(f"/sys/devices/system/node/node{node}/cpu{min(os.sched_getaffinity(0))}")


def test_distances_go_by_the_order_of_nodes_and_rates_by_the_cpu(four_nodes):
    nodes = nodes_here([0, 5, 5], four_nodes, four_nodes / "cpuinfo")
    assert nodes.distances[0, 5] == 32 and nodes.distances[2, 5] == 12 and len(nodes.distances) == 16
    assert nodes.gb_s == 16 and nodes.used == [0, 5]


def test_a_truncated_distance_file_is_not_guessed_at(tmp_path):
    nodes = nodes_here([0, 1], make_sys(tmp_path, {0: "0", 1: "1"}, {0: [10], 1: [21, 10]}), tmp_path / "cpuinfo")
    assert nodes.distances == {(1, 0): 21, (1, 1): 10}


@pytest.mark.parametrize("nodes", [None, HostNodes((0, 0, 0)), HostNodes((3, 3, 3))])
def test_one_node_is_the_host_as_it_was(nodes):
    topology = host_topology(3, nodes)
    assert topology == host_topology(3) and [s.name for s in topology.switches] == ["memory"] and len(topology.links) == 6


def test_several_nodes_are_memories_that_are_joined():
    topology = host_topology(5, HostNodes((0, 5, 0, 2, 5), {(0, 5): 32, (5, 0): 21}, Fraction(16)))
    assert [s.name for s in topology.switches] == ["memory0", "memory2", "memory5"]
    ends = {(link.src, link.dst): link for link in topology.links}
    attached = {src: dst for (src, dst), link in ends.items() if link.kind == "SHM" and src.startswith(topology.devices[0].name[:-1])}
    assert [attached[d.name] for d in topology.devices] == ["memory0", "memory5", "memory0", "memory2", "memory5"]
    assert len(topology.links) == 2 * 5 + 3 * 2
    own = sum(link.latency_us for link in host_topology(1).links)
    # What node 0 reads of node 5's memory comes over the link from 5 to 0.
    assert ends["memory5", "memory0"].latency_us == own * Fraction(22, 10) and ends["memory0", "memory5"].latency_us == own * Fraction(11, 10)
    assert ends["memory2", "memory0"].latency_us == own and {ends[pair].capacity for pair in ends if pair[0].startswith("memory") and pair[1].startswith("memory")} == {16}
    assert bc.Topology.from_json(topology.to_json()) == topology


def test_plans_cross_the_interconnect_no_more_than_it_carries():
    """Two ranks a node, 1 GB/s between nodes: a broadcast is bound by that link, and meets the bound."""
    topology = host_topology(4, HostNodes((0, 0, 1, 1), {}, Fraction(1)))
    plan = make_plan(topology, "broadcast", root=0)
    plan.check()
    assert plan.rate == plan.bound == 1


def test_nodes_of_another_number_of_ranks_are_refused():
    with pytest.raises(bc.TopologyError, match="a host of 3 ranks, and nodes of 2"):
        host_topology(3, HostNodes((0, 1)))
