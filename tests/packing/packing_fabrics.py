"""Machines to plan on, built from published definitions. Capacities in GB/s, one way."""

from __future__ import annotations

from fractions import Fraction

from blinkcoll.topology import Device, Link, Switch, Topology

# xGMI links of 50 GB/s between the 16 GCDs of an 8 x MI250 server, as in ForestColl's topologies.py (the matrix there).
MI250_XGMI = {
    (0, 1): 4, (0, 4): 2, (0, 8): 1, (1, 5): 1, (1, 9): 1, (1, 10): 1, (2, 3): 4, (2, 6): 1, (2, 9): 1, (2, 10): 1,
    (3, 7): 2, (3, 11): 1, (4, 5): 4, (4, 6): 1, (5, 6): 1, (5, 7): 1, (6, 7): 4, (8, 9): 4, (8, 12): 2, (9, 13): 1,
    (10, 11): 4, (10, 14): 1, (11, 15): 2, (12, 13): 4, (12, 14): 1, (13, 14): 1, (13, 15): 1, (14, 15): 4,
}  # fmt: skip


def topology(nranks, arcs, switches=(), kind="NVLINK", name="test"):
    """A topology from {(u, v): GB/s}; ranks are ints, switches names."""
    label = [f"gpu{r}" for r in range(nranks)]
    links = [
        Link(src=label[u] if isinstance(u, int) else u, dst=label[v] if isinstance(v, int) else v, kind=kind, capacity=Fraction(c))
        for (u, v), c in arcs.items()
    ]
    return Topology(
        name=name,
        devices=tuple(Device(name=n) for n in label),
        switches=tuple(Switch(name=s, kind="nvswitch") for s in switches),
        links=tuple(links),
    )


def both(edges):
    """Every edge in both directions."""
    return {arc: c for (u, v), c in edges.items() for arc in ((u, v), (v, u))}


def star(nranks, capacity=100, planes=1):
    """Ranks around ``planes`` equal switches that share the capacity of a port."""
    names = [f"sw{i}" for i in range(planes)]
    return topology(nranks, both({(r, s): Fraction(capacity) / planes for r in range(nranks) for s in names}), names)


def a100_boxes(boxes):
    """DGX-A100s as ForestColl models them: an NVSwitch of 300 GB/s ports a box, one 25 GB/s NIC a GPU, two IB planes."""
    edges, switches = {}, []
    for box in range(boxes):
        switches.append(f"nvs{box}")
        for gpu in range(8):
            edges[8 * box + gpu, f"nvs{box}"] = 300
            if boxes > 1:
                switches.append(f"nic{box}.{gpu}")
                edges[8 * box + gpu, f"nic{box}.{gpu}"] = 25
                edges[f"nic{box}.{gpu}", f"ib{gpu % 2}"] = 25
    return topology(8 * boxes, both(edges), [*switches, *(["ib0", "ib1"] if boxes > 1 else [])])


def mi250_boxes(boxes):
    """Servers of 16 MI250 GCDs as ForestColl models them: xGMI, and 16 GB/s a GCD to one IB switch."""
    edges = {(16 * box + a, 16 * box + b): 50 * lanes for box in range(boxes) for (a, b), lanes in MI250_XGMI.items()}
    if boxes > 1:
        edges.update({(gcd, "ib"): 16 for gcd in range(16 * boxes)})
    return topology(16 * boxes, both(edges), ["ib"] if boxes > 1 else [])
