"""Allocations that differ: classes of subsets with isomorphic fast links.

A scheduler can hand out any k of the n devices; most of those sets look alike. Two sets are in one class when the links
of the fastest kind among them are isomorphic with their capacities; classes whose fast links do not connect them are
left out. On a DGX-1 that leaves 14 (P100) and 46 (V100) classes of three to eight GPUs, as Blink (Wang et al., MLSys
2020, section 2) counts them.
"""

from __future__ import annotations

from itertools import combinations

import networkx as nx

from .model import Topology


def unique_subsets(topology: Topology, k: int) -> list[Topology]:
    """One subset of each connected class of ``k`` devices, in the order of GPU indices.

    Notes
    -----
    Every one of the C(n, k) sets is looked at, and compared (VF2) with the representatives whose capacities and degrees
    agree with its own: meant for servers, not for clusters.
    """
    fast = _fast_graph(topology)
    representatives: dict[tuple[object, ...], list[tuple[nx.DiGraph, tuple[int, ...]]]] = {}
    chosen: list[tuple[int, ...]] = []
    for ranks in combinations(range(topology.nranks), k):
        graph = fast.subgraph(ranks)
        if k > 1 and not nx.is_strongly_connected(graph):
            continue
        known = representatives.setdefault(_signature(graph), [])
        if not any(nx.is_isomorphic(graph, other, edge_match=lambda a, b: a["capacity"] == b["capacity"]) for other, _ in known):
            known.append((graph, ranks))
            chosen.append(ranks)
    return [topology.subset([topology.devices[r].name for r in ranks]) for ranks in chosen]


def _fast_graph(topology: Topology) -> nx.DiGraph:
    """Devices and the links of the fastest kind that joins devices directly."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(topology.nranks))
    names = {device.name for device in topology.devices}
    direct = [link for link in topology.links if link.src in names and link.dst in names]
    kinds = [kind for kind in topology.kinds() if any(link.kind == kind for link in direct)]
    for link in direct:
        if link.kind == kinds[0]:
            a, b = topology.vertex(link.src), topology.vertex(link.dst)
            before = graph.get_edge_data(a, b, {"capacity": 0})["capacity"]
            graph.add_edge(a, b, capacity=before + link.capacity)
    return graph


def _signature(graph: nx.DiGraph) -> tuple[object, ...]:
    """Equal for isomorphic graphs: each vertex's out- and in-capacities, sorted, as a sorted list."""

    def around(edges: nx.classes.reportviews.OutEdgeView) -> tuple[object, ...]:
        return tuple(sorted(data["capacity"] for *_, data in edges))

    return tuple(sorted((around(graph.out_edges(v, data=True)), around(graph.in_edges(v, data=True))) for v in graph))
