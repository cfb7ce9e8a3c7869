"""Allocations that differ: classes of subsets with isomorphic fast links.

A scheduler can hand out any k of the n devices; most of those sets look alike. Two sets are in one class when the links
of the fastest kind among them (and the switches that such links reach) are isomorphic with their capacities; classes
whose fast links do not connect them are left out. On a DGX-1 that leaves 14 (P100) and 46 (V100) classes of three to
eight GPUs, as Blink (Wang et al., MLSys 2020, section 2) counts them; behind an NVSwitch there is one of each size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

from ..errors import TopologyError
from .model import Topology

if TYPE_CHECKING:  # it takes longer to import than most commands to run
    import networkx as nx

#: Sets to look at before giving up.
MOST_SETS = 2_000_000


def unique_subsets(topology: Topology, k: int) -> list[Topology]:
    """One subset of each connected class of ``k`` devices, in the order of ranks.

    Raises
    ------
    TopologyError
        Where more than two million sets would have to be looked at.

    Notes
    -----
    Devices with the same links (twins: all GPUs behind one NVSwitch) are exchangeable, so of every number of twins one
    set is looked at; the sets left are compared (VF2) with the representatives whose capacities and degrees agree with
    their own. Meant for servers, not for clusters.
    """
    fast = _fast_graph(topology)
    representatives: dict[tuple[object, ...], list[nx.DiGraph]] = {}
    chosen: list[tuple[int, ...]] = []
    for ranks in _sets(fast, topology.nranks, k, topology.name):
        graph = _cut(fast, ranks)
        if k > 1 and not _joined(graph, ranks):
            continue
        known = representatives.setdefault(_signature(graph), [])
        if not any(_same(graph, other) for other in known):
            known.append(graph)
            chosen.append(ranks)
    return [topology.subset([topology.devices[r].name for r in ranks]) for ranks in chosen]


def _sets(fast: nx.DiGraph, nranks: int, k: int, name: str) -> Iterator[tuple[int, ...]]:
    """The k-subsets of the ranks that take twins from the first on."""
    twins = _twins(fast, nranks)
    if comb(nranks, k) > MOST_SETS and max(twins.count(t) for t in twins) < nranks:
        raise TopologyError(f"topology {name}: {comb(nranks, k)} sets of {k} of {nranks} devices, expected at most {MOST_SETS}")
    if len(set(twins)) == 1:
        if k <= nranks:
            yield tuple(range(k))
        return
    order = [[r for r in range(nranks) if twins[r] == t] for t in twins]
    for ranks in combinations(range(nranks), k):
        used = Counter(twins[r] for r in ranks)
        if all(r in order[r][: used[twins[r]]] for r in ranks):
            yield ranks


def _twins(fast: nx.DiGraph, nranks: int) -> list[int]:
    """For every rank the first rank that could take its place: same links to everything else, equal ones between them."""
    found: list[int] = []
    for b in range(nranks):
        found.append(next((a for a in range(b) if found[a] == a and _exchangeable(fast, a, b)), b))
    return found


def _exchangeable(fast: nx.DiGraph, a: int, b: int) -> bool:
    def rest(edges: nx.DiGraph) -> dict[object, object]:
        return {v: data["capacity"] for v, data in edges.items() if v not in (a, b)}

    across = fast.get_edge_data(a, b, {}).get("capacity"), fast.get_edge_data(b, a, {}).get("capacity")
    return across[0] == across[1] and rest(fast.succ[a]) == rest(fast.succ[b]) and rest(fast.pred[a]) == rest(fast.pred[b])


def _fast_graph(topology: Topology) -> nx.DiGraph:
    """Devices and the links of the fastest kind that any device has, with the switches those links reach.

    PCIe counts together with the CPU interconnects between its trees.
    """
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(range(topology.nranks))
    names = {device.name for device in topology.devices}
    kinds = [kind for kind in topology.kinds() if any(link.kind == kind for link in topology.links if link.src in names)]
    wanted = {"PCIE", "CPU"} if kinds[:1] == ["PCIE"] else set(kinds[:1])
    for link in topology.links:
        if link.kind in wanted:
            a, b = topology.vertex(link.src), topology.vertex(link.dst)
            before = graph.get_edge_data(a, b, {"capacity": 0})["capacity"]
            graph.add_edge(a, b, capacity=before + link.capacity)
    return graph


def _cut(fast: nx.DiGraph, ranks: tuple[int, ...]) -> nx.DiGraph:
    """The chosen ranks and the switches that still lie between two others."""
    graph = fast.subgraph([*ranks, *(v for v in fast if isinstance(v, str))]).copy()
    while True:
        dead = [v for v in graph if isinstance(v, str) and len({*graph.succ[v], *graph.pred[v]}) < 2]
        if not dead:
            return graph
        graph.remove_nodes_from(dead)


def _joined(graph: nx.DiGraph, ranks: tuple[int, ...]) -> bool:
    """Whether every rank reaches every other."""
    import networkx as nx

    part = next(p for p in nx.strongly_connected_components(graph) if ranks[0] in p)
    return bool(part.issuperset(ranks))


def _same(a: nx.DiGraph, b: nx.DiGraph) -> bool:
    import networkx as nx

    for graph in (a, b):
        nx.set_node_attributes(graph, {v: isinstance(v, str) for v in graph}, "switch")
    return bool(
        nx.is_isomorphic(
            a, b, node_match=lambda x, y: x["switch"] == y["switch"], edge_match=lambda x, y: x["capacity"] == y["capacity"]
        )
    )


def _signature(graph: nx.DiGraph) -> tuple[object, ...]:
    """Equal for isomorphic graphs: each vertex's out- and in-capacities, sorted, as a sorted list."""

    def around(edges: nx.classes.reportviews.OutEdgeView) -> tuple[object, ...]:
        return tuple(sorted(data["capacity"] for *_, data in edges))

    return tuple(
        sorted(
            (isinstance(v, str), around(graph.out_edges(v, data=True)), around(graph.in_edges(v, data=True))) for v in graph
        )
    )
