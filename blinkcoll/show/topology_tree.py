"""The PCIe tree of each CPU as text, one line a device, switch or NIC, with the link above it."""

from __future__ import annotations

import re

from ..topology import Link, PcieTree, Topology, pcie_tree
from .numbers import count, gb_s


def pcie_tree_text(topology: Topology, tree: PcieTree | None = None) -> str:
    """The trees of all CPUs; servers that look like the first are counted, not drawn."""
    tree = tree or pcie_tree(topology)
    servers = sorted({s.server for s in topology.switches if s.kind == "cpu"})
    drawn: dict[str, tuple[str, list[int]]] = {}
    for server in servers:
        text = _server(topology, tree, server)
        alike = re.sub(r"(?m)^((?:│  |   )*(?:[├└]─ )?)\S+", r"\1", text)  # the same but for names
        drawn.setdefault(alike, (text, []))[1].append(server)
    parts = []
    for text, found in drawn.values():
        also = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
        parts.append(text if len(servers) == 1 else f"server {found[0]}{also}\n{text}")
    return "\n".join([*parts, *_cpu_links(topology)])


def _server(topology: Topology, tree: PcieTree, server: int) -> str:
    lines: list[str] = []
    for cpu in (s for s in topology.switches if s.kind == "cpu" and s.server == server):
        make = ", ".join(part for part in (cpu.arch, cpu.vendor, cpu.model) if part)
        lines.append(cpu.name + (f"  ({make})" if make else ""))
        _below(tree, cpu.name, "", lines)
    return "\n".join(lines)


def _below(tree: PcieTree, vertex: str, indent: str, lines: list[str]) -> None:
    children = tree.children(vertex)
    for i, child in enumerate(children):
        last = i == len(children) - 1
        lines.append(f"{indent}{'└─' if last else '├─'} {child}  {_link(tree.up[child])}")
        _below(tree, child, indent + ("   " if last else "│  "), lines)


def _link(link: Link) -> str:
    if link.kind == "PCIE":
        generation = f"gen{link.generation}" if link.generation else "gen?"
        return f"{generation} x{link.lanes}, {gb_s(link.capacity)} GB/s"
    lanes = f" x{link.lanes}" if link.lanes > 1 else ""
    return f"{link.kind}{lanes}, {gb_s(link.capacity)} GB/s"


def _cpu_links(topology: Topology) -> list[str]:
    cpus = {s.name for s in topology.switches if s.kind == "cpu"}
    found = [k for k in topology.links if k.kind == "CPU" and k.src in cpus and k.dst in cpus and k.src < k.dst]
    rates = sorted({k.capacity for k in found})
    return [f"between CPUs: {' or '.join(map(gb_s, rates))} GB/s one way ({count(len(found), 'pair')})"] if found else []
