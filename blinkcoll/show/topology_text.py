"""A topology for a terminal: what it is, its matrix, links per device, the PCIe tree."""

from __future__ import annotations

from collections import Counter

from ..topology import Topology, pcie_tree
from .numbers import gb_s
from .topology_matrix import links_per_device, matrix
from .topology_tree import pcie_tree_text

_LEGEND = (
    "# NV#: # bonded NVLinks   XGMI#: # xGMI links   PIX: one PCIe bridge   PXB: several   PHB: through a host bridge\n"
    "# NODE: between host bridges of a NUMA node   SYS: between NUMA nodes   NET: over the network   *: no peer access"
)


def topology_text(topology: Topology) -> str:
    """Several paragraphs, plain text."""
    tree = pcie_tree(topology)
    parts = [_head(topology), matrix(topology, tree) + "\n" + _LEGEND, links_per_device(topology)]
    below = pcie_tree_text(topology, tree)
    return "\n\n".join([*parts, below] if below else parts)


def _head(topology: Topology) -> str:
    models = Counter(d.model or d.arch or "unknown model" for d in topology.devices)
    servers = len({d.server for d in topology.devices})
    lines = [
        f"{topology.name}: {', '.join(f'{n}x {model}' for model, n in models.items())}" + (f" on {servers} servers" if servers > 1 else ""),
        f"fingerprint {topology.fingerprint}, links {', '.join(topology.kinds()) or 'none'}; capacities are planning rates, GB/s one way",
    ]
    for switch in topology.switches:
        if switch.kind in ("nvswitch", "network"):
            ends = [k for k in topology.links if k.dst == switch.name]
            rates = sorted({k.capacity for k in ends})
            what = f"{switch.planes} NVSwitches as one vertex" if switch.kind == "nvswitch" else "network switch"
            sharp = ", copies and adds (NVLink SHARP)" if switch.multicast and switch.reduce else ""
            lines.append(f"{switch.name}: {what}, {len(ends)} ports of {' or '.join(map(gb_s, rates))} GB/s{sharp}")
    return "\n".join(lines)
