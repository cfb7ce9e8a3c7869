import random
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blinkcoll.topology import Device, Link, Topology, exact, layout_names, load_layout


def renamed(topology, seed):
    rng = random.Random(seed)
    vertices = [*topology.devices, *topology.switches]
    names = {v.name: f"v{i}" for i, v in enumerate(rng.sample(vertices, len(vertices)))}
    devices = [replace(d, name=names[d.name]) for d in topology.devices]
    rng.shuffle(devices)
    links = [replace(k, src=names[k.src], dst=names[k.dst]) for k in topology.links]
    rng.shuffle(links)
    return Topology("renamed", tuple(devices), tuple(replace(s, name=names[s.name]) for s in topology.switches), tuple(links))


@pytest.mark.parametrize("name", [n for n in layout_names() if n != "rtx4090x8"])
def test_a_renamed_machine_is_the_machine(name):
    assert load_layout(name).isomorphic(renamed(load_layout(name), 11))


def test_different_machines_are_different():
    layouts = {load_layout(n).name: load_layout(n) for n in layout_names()}
    same = {(a, b) for a in layouts for b in layouts if a < b and layouts[a].isomorphic(layouts[b])}
    assert same == {("hgx-h100", "hgx-h200")}


def test_one_lane_less_is_noticed():
    topology = load_layout("dgx1-v100")
    links = [k for k in topology.links if {k.src, k.dst} != {"gpu0", "gpu1"}]
    assert not topology.isomorphic(replace(topology, links=tuple(links)))


def test_equal_names_ask_for_equal_ranks():
    topology = load_layout("dgx1-v100")
    turned = replace(topology, devices=topology.devices[::-1])
    assert topology.isomorphic(turned)
    assert topology.isomorphic(topology, same_ranks=True)
    assert not topology.restrict(["NVLINK"]).isomorphic(turned.subset([1, 0, 2, 3, 4, 5, 6, 7]).restrict(["NVLINK"]), same_ranks=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(0, 10**6), st.booleans())
def test_agrees_with_networkx_on_random_digraphs(n, seed, regular):
    rng = random.Random(seed)
    print(f"seed {seed}")

    def draw():
        edges = [(a, b) for a in range(n) for b in range(n) if a != b and rng.random() < 0.4]
        if regular:
            edges = [(a, (a + d) % n) for a in range(n) for d in rng.sample(range(1, n), min(2, n - 1))]
        return sorted(set(edges))

    def topology(edges):
        devices = tuple(Device(f"g{i}") for i in range(n))
        return Topology("t", devices, (), tuple(Link(f"g{a}", f"g{b}", "NVLINK", exact(1)) for a, b in edges))

    a, b = draw(), draw()
    graphs = [nx.DiGraph(e) for e in (a, b)]
    for graph in graphs:
        graph.add_nodes_from(range(n))
    assert topology(a).isomorphic(topology(b)) == nx.is_isomorphic(*graphs)
