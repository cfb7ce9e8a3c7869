"""Small servers around one network switch, built by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from blinkcoll.topology import Device, Link, Switch, Topology


def both(a, b, kind, capacity):
    return [Link(a, b, kind, Fraction(capacity)), Link(b, a, kind, Fraction(capacity))]


def boxes(sizes, nvlink=20, pcie=12, nics=1, rate=12, name="boxes"):
    """Servers of so many GPUs each, all pairs joined by NVLink (none where it is 0), around a PCIe switch with NICs.

    ``nvlink``, ``pcie``, ``nics`` and ``rate`` are numbers, or a list of one a server.
    """
    devices, switches, links = [], [Switch("network", "network", server=-1)], []
    of = [list(v) if isinstance(v, (list, tuple)) else [v] * len(sizes) for v in (nvlink, pcie, nics, rate)]
    for s, (size, wide, slow, count, speed) in enumerate(zip(sizes, *of, strict=True)):
        gpus = [f"s{s}.gpu{i}" for i in range(size)]
        devices += [Device(g, server=s, index=len(devices) + i) for i, g in enumerate(gpus)]
        switches += [Switch(f"s{s}.plx", "pcie", server=s), *(Switch(f"s{s}.nic{i}", "nic", server=s) for i in range(count))]
        links += [k for i, a in enumerate(gpus) for b in gpus[i + 1 :] if wide for k in both(a, b, "NVLINK", wide)]
        links += [k for g in gpus for k in both(g, f"s{s}.plx", "PCIE", slow)]
        for i in range(count):
            links += [*both(f"s{s}.plx", f"s{s}.nic{i}", "PCIE", slow), *both(f"s{s}.nic{i}", "network", "NIC", speed)]
    return Topology(name, tuple(devices), tuple(switches), tuple(links))


def joined(*clusters, name="mixed"):
    """Clusters of different servers on one network switch."""
    devices, switches, links = [], [Switch("network", "network", server=-1)], []
    for c, cluster in enumerate(clusters):
        first = 1 + max((d.server for d in devices), default=-1)
        named = {"network": "network"} | {x.name: f"c{c}.{x.name}" for x in (*cluster.devices, *cluster.switches) if x.name != "network"}
        devices += [replace(d, name=named[d.name], server=first + d.server, index=len(devices) + i) for i, d in enumerate(cluster.devices)]
        switches += [replace(s, name=named[s.name], server=first + s.server) for s in cluster.switches if s.name != "network"]
        links += [replace(k, src=named[k.src], dst=named[k.dst]) for k in cluster.links]
    return Topology(name, tuple(devices), tuple(switches), tuple(links))
