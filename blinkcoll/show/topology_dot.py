"""A topology as a Graphviz graph: one edge a wire, wider for more lanes, a box around each CPU's part."""

from __future__ import annotations

from ..topology import Link, PcieTree, Topology, pcie_tree
from .numbers import gb_s

COLOURS = {"NVLINK": "#5b8c00", "XGMI": "#c0392b", "PCIE": "#4a6fa5", "CPU": "#7d5ba6", "NIC": "#c77c11", "SHM": "#4a6fa5"}
_SHAPES = {"nvswitch": "hexagon", "pcie": "box", "cpu": "box3d", "nic": "cds", "network": "ellipse"}


def wires(topology: Topology) -> list[tuple[Link, bool]]:
    """Every wire once with whether both of its directions are alike."""
    back = {(k.dst, k.src, k.kind): k for k in topology.links}
    found = []
    for link in topology.links:
        other = back.get((link.src, link.dst, link.kind))
        alike = other is not None and other.capacity == link.capacity
        if not alike or link.src < link.dst:
            found.append((link, alike))
    return found


def topology_dot(topology: Topology) -> str:
    """The text of a ``graph.dot``."""
    tree = pcie_tree(topology)
    lines = [f"digraph {_quote(topology.name)} {{", '  graph [rankdir=TB, fontname="Helvetica", nodesep=0.35, ranksep=0.6];']
    lines += ['  node [fontname="Helvetica", fontsize=11];', '  edge [fontname="Helvetica", fontsize=9];']
    top = {v: _top(tree, v) for v in [*(d.name for d in topology.devices), *(s.name for s in topology.switches)]}
    for cpu in [s.name for s in topology.switches if s.kind == "cpu"]:
        inside = [v for v, home in top.items() if home == cpu]
        lines.append(f"  subgraph {_quote('cluster_' + cpu)} {{ style=rounded; color=\"#b8c0cc\"; label=\"\";")
        lines += [f"    {_node(topology, v)}" for v in inside]
        lines.append("  }")
    cpus = {s.name for s in topology.switches if s.kind == "cpu"}
    lines += [f"  {_node(topology, v)}" for v, home in top.items() if home not in cpus]
    for link, alike in wires(topology):
        lanes = f" x{link.lanes}" if link.lanes > 1 else ""
        width = 1 + min(link.lanes, 18) / 3 if link.kind in ("NVLINK", "XGMI") else 1.5
        constraint = "" if link.kind in ("PCIE", "NIC") else ", constraint=false"
        lines.append(
            f"  {_quote(link.src)} -> {_quote(link.dst)} [dir={'none' if alike else 'forward'}, color={_quote(COLOURS[link.kind])}, "
            f"penwidth={width:.1f}, label={_quote(link.kind + lanes + ' ' + gb_s(link.capacity))}{constraint}];"
        )
    return "\n".join([*lines, "}"]) + "\n"


def _top(tree: PcieTree, vertex: str) -> str:
    way = tree.way_up(vertex)
    return way[-1].dst if way else vertex


def _node(topology: Topology, vertex: str) -> str:
    for switch in topology.switches:
        if switch.name == vertex:
            return f"{_quote(vertex)} [shape={_SHAPES[switch.kind]}, style=filled, fillcolor=\"#f2f4f7\"];"
    return f"{_quote(vertex)} [shape=box, style=\"filled,rounded\", fillcolor=\"#e6f2d0\"];"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
