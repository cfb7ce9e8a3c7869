"""Ways through switches, against a search that looks at every way of the fewest hops."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import pytest

from blinkcoll.errors import TopologyError
from blinkcoll.topology import Topology, load_topology, route

NAMES = ["dgx1-v100", "a100-pcie-nvbridge", "mi250x", "hgx-h100", "rtx4090x8", "dgx-a100*3@25", "dgx1-v100*2@12.5", "gb200-nvl72*2@50"]


def best(topology: Topology, src: int, dst: int) -> tuple[int | str, ...]:
    """Fewest hops, then the widest narrowest link up to every vertex on the way, then names."""
    capacities = topology.capacities()
    through = {src, dst} | {s.name for s in topology.switches}
    graph = nx.DiGraph((a, b) for a, b in capacities if a in through and b in through)
    kept: dict[int | str, tuple[object, tuple[str, ...], tuple[int | str, ...]]] = {}
    layers = list(nx.bfs_layers(graph, src))
    for layer, after in pairwise(layers):
        for b in after:
            ways = []
            for a in layer:
                if (a, b) in capacities and (a == src or a in kept):
                    minus, _, path = kept.get(a, (None, (), (src,)))
                    width = -capacities[a, b] if minus is None else max(minus, -capacities[a, b])
                    ways.append((width, tuple(map(str, (*path, b))), (*path, b)))
            kept[b] = min(ways)
        if dst in after:
            return kept[dst][2]
    raise AssertionError("no way")


@pytest.mark.parametrize("name", NAMES)
def test_routes_are_the_best_of_those_with_the_fewest_hops(name):
    topology = load_topology(name)
    step = 1 if topology.nranks <= 16 else topology.nranks // 6
    for src in range(0, topology.nranks, step):
        for dst in range(0, topology.nranks, max(1, step - 1)):
            if src != dst:
                assert route(topology, src, dst) == best(topology, src, dst)


def test_where_nothing_leads_there_the_devices_are_named():
    whole = load_topology("dgx-a100*2@25")
    apart = Topology("apart", whole.devices, whole.switches, tuple(k for k in whole.links if "network" not in (k.src, k.dst)))
    with pytest.raises(TopologyError, match=r"nothing leads from s0\.gpu0 to s1\.gpu0"):
        route(apart, 0, 8)
