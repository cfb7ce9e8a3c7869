"""The matrix of links and distances, as ``nvidia-smi topo -m`` lays it out, with NICs and what each GPU has."""

from __future__ import annotations

from ..topology import PcieTree, Topology, distance, lanes_per_device, pcie_distance, pcie_tree
from .numbers import gb_s

#: More columns than this are left out of the matrix: no terminal shows them.
MOST_COLUMNS = 24


def matrix(topology: Topology, tree: PcieTree | None = None) -> str:
    """One row a device, then NICs: NV#, XGMI#, PIX, PXB, PHB, NODE, SYS; the CPU last. ``*`` marks pairs without peer access."""
    tree = tree or pcie_tree(topology)
    devices = [d.name for d in topology.devices]
    nics = [s.name for s in topology.switches if s.kind == "nic"]
    shown = devices[:MOST_COLUMNS]
    columns = shown + nics[: max(0, MOST_COLUMNS - len(shown))]
    refused = set(topology.no_peer_access)
    rows = [["", *columns, "CPU"]]
    for a in columns:
        cells = [
            distance(topology, a, b, tree) + ("*" if (a, b) in refused else "")
            if a in devices and b in devices
            else pcie_distance(topology, a, b, tree)
            for b in columns
        ]
        way = tree.way_up(a)
        rows.append([a, *cells, way[-1].dst if way else "-"])
    lines = _align(rows)
    left_out = len(devices) + len(nics) - len(columns)
    if left_out:
        lines.append(f"# {left_out} more devices and NICs are not shown")
    return "\n".join(lines)


def links_per_device(topology: Topology) -> str:
    """For every device its links by kind: how many lanes, GB/s one way together."""
    kinds = [kind for kind in topology.kinds() if any(n for n, _ in lanes_per_device(topology, kind).values())]
    rows = [["device", "index", "arch", *(f"{kind} GB/s (lanes)" for kind in kinds), "server"]]
    per = {kind: lanes_per_device(topology, kind) for kind in kinds}
    for device in topology.devices[:128]:
        cells = []
        for kind in kinds:
            lanes, capacity = per[kind][device.name]
            cells.append(f"{gb_s(capacity)} ({lanes})" if lanes else "-")
        index = "-" if device.index is None else str(device.index)
        rows.append([device.name, index, device.arch or "-", *cells, str(device.server)])
    lines = _align(rows)
    if topology.nranks > 128:
        lines.append(f"# {topology.nranks - 128} more devices are not shown")
    return "\n".join(lines)


def _align(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
