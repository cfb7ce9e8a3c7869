"""Where two topologies differ: devices, pairs, rates, switches."""

from __future__ import annotations

from collections import Counter

from ..topology import Topology, distance, pcie_distance, pcie_tree
from .numbers import gb_s

#: Lines about pairs before the rest is only counted.
MOST_PAIRS = 40


def topology_diff(a: Topology, b: Topology) -> list[str]:
    """One sentence a difference, by ranks; none where the two plan alike."""
    if a.isomorphic(b, same_ranks=True):
        return []
    lines = []
    if a.isomorphic(b):
        lines.append("the same machine, with its devices numbered otherwise")
    if a.nranks != b.nranks:
        lines.append(f"devices: {a.nranks} / {b.nranks}")
    archs = [Counter(d.arch or "unknown" for d in t.devices) for t in (a, b)]
    if archs[0] != archs[1]:
        lines.append(f"architectures: {_counted(archs[0])} / {_counted(archs[1])}")
    lines += _pairs(a, b)
    for kind in sorted({*a.kinds(), *b.kinds()}):
        rates = [Counter((gb_s(k.capacity) + " GB/s") for k in t.links if k.kind == kind) for t in (a, b)]
        if rates[0] != rates[1]:
            lines.append(f"{kind} links one way: {_counted(rates[0]) or 'none'} / {_counted(rates[1]) or 'none'}")
    switches = [Counter(s.kind + (" (copies, adds)" if s.multicast or s.reduce else "") for s in t.switches) for t in (a, b)]
    if switches[0] != switches[1]:
        lines.append(f"switches: {_counted(switches[0]) or 'none'} / {_counted(switches[1]) or 'none'}")
    refused = [len(t.no_peer_access) for t in (a, b)]
    if refused[0] != refused[1]:
        lines.append(f"ordered pairs without peer access: {refused[0]} / {refused[1]}")
    return lines or ["the links differ in how they are arranged"]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{n}x {what}" for what, n in sorted(counter.items()))


def _pairs(a: Topology, b: Topology) -> list[str]:
    """Pairs of ranks whose links or PCIe distances differ."""
    trees = pcie_tree(a), pcie_tree(b)
    lines = []
    for i in range(min(a.nranks, b.nranks, 128)):
        for j in range(i + 1, min(a.nranks, b.nranks, 128)):
            cells = []
            for topology, tree in zip((a, b), trees, strict=True):
                x, y = topology.devices[i].name, topology.devices[j].name
                fast, pcie = distance(topology, x, y, tree), pcie_distance(topology, x, y, tree)
                cells.append(fast if fast == pcie else f"{fast} (PCIe {pcie})")
            if cells[0] != cells[1]:
                lines.append(f"ranks {i} and {j}: {cells[0]} / {cells[1]}")
    more = len(lines) - MOST_PAIRS
    return lines[:MOST_PAIRS] + ([f"and {more} more pairs of ranks"] if more > 0 else [])
