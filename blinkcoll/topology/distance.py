"""How far apart two vertices are, in the words of ``nvidia-smi topo -m``.

PCIe is a tree below each CPU. Two vertices meet where their ways up meet: PIX below one switch, PXB across several
bridges, PHB in one host bridge of a CPU, NODE across host bridges of one NUMA node, SYS across CPUs. ``NET`` says that
only a network joins them, ``-`` that nothing does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

from .model import Link, Topology


@dataclass(frozen=True)
class PcieTree:
    """The PCIe hierarchy of a topology.

    ``up[v]`` is the link from a vertex towards its CPU, absent for the CPUs themselves; ``joined[cpu]`` is a number that
    CPUs share when CPU interconnects join them.
    """

    up: dict[str, Link]
    joined: dict[str, int]

    def way_up(self, vertex: str) -> list[Link]:
        """The links from a vertex to its CPU."""
        way = []
        while vertex in self.up:
            way.append(self.up[vertex])
            vertex = way[-1].dst
        return way

    def children(self, vertex: str) -> list[str]:
        """What hangs directly below a vertex."""
        return [v for v, link in self.up.items() if link.dst == vertex]


def pcie_tree(topology: Topology) -> PcieTree:
    """The PCIe hierarchy, found from the CPUs down; what no CPU reaches (a bare switch) hangs below its own top."""
    cpus = [s.name for s in topology.switches if s.kind == "cpu"]
    switches = {s.name for s in topology.switches if s.kind == "pcie"}
    below = {d.name for d in (*topology.devices, *topology.relays)} | {s.name for s in topology.switches if s.kind in ("pcie", "nic")}
    up: dict[str, Link] = {}
    for kinds in (("PCIE",), ("PCIE", "CPU", "NIC", "SHM")):
        down: dict[str, list[Link]] = {}
        for link in topology.links:
            if link.kind in kinds and link.src in below:
                down.setdefault(link.dst, []).append(link)
        queue = deque(cpus + [v for v in up if v not in cpus])
        while queue:
            for link in down.get(queue.popleft(), ()):
                if link.src not in up:
                    up[link.src] = link
                    if link.src in switches:
                        queue.append(link.src)
    _hang_bare_switches(topology, up)
    return PcieTree(up, _joined(topology, cpus))


def _hang_bare_switches(topology: Topology, up: dict[str, Link]) -> None:
    """Devices and NICs below a PCIe switch that no CPU reaches (a skeleton, a cut) hang from that switch."""
    switches = {s.name for s in topology.switches if s.kind == "pcie"}
    leaves = {d.name for d in (*topology.devices, *topology.relays)} | {s.name for s in topology.switches if s.kind == "nic"}
    for link in topology.links:
        if link.kind == "PCIE" and link.dst in switches and link.src in leaves and link.src not in up:
            up[link.src] = link


def _joined(topology: Topology, cpus: list[str]) -> dict[str, int]:
    group = {cpu: i for i, cpu in enumerate(cpus)}
    for link in topology.links:
        if link.kind == "CPU" and link.src in group and link.dst in group and group[link.src] != group[link.dst]:
            old, new = group[link.src], group[link.dst]
            group = {cpu: new if g == old else g for cpu, g in group.items()}
    return group


def pcie_distance(topology: Topology, a: str, b: str, tree: PcieTree | None = None) -> str:
    """``X``, ``PIX``, ``PXB``, ``PHB``, ``NODE``, ``SYS``, ``NET`` or ``-`` between two vertices, whatever NVLinks join them."""
    if a == b:
        return "X"
    tree = tree or pcie_tree(topology)
    ways = tree.way_up(a), tree.way_up(b)
    places = [[a, *(link.dst for link in ways[0])], [b, *(link.dst for link in ways[1])]]
    meeting = next((v for v in places[0] if v in places[1]), None)
    if meeting is None:
        tops = places[0][-1], places[1][-1]
        if tops[0] in tree.joined and tree.joined.get(tops[0]) == tree.joined.get(tops[1]):
            return "SYS"
        return "NET" if any(s.kind == "network" for s in topology.switches) else "-"
    below = [place.index(meeting) for place in places]
    ports = [way[n - 1].port if n else None for way, n in zip(ways, below, strict=True)]
    one_part = None in ports or ports[0] == ports[1]
    if meeting in tree.joined:
        return "PHB" if one_part else "NODE"
    return "PIX" if one_part and max(below) == 1 else "PXB"


def distance(topology: Topology, a: str, b: str, tree: PcieTree | None = None) -> str:
    """The cell of ``nvidia-smi topo -m``: ``NV#`` or ``XGMI#`` where such links join the two, else the PCIe distance."""
    for kind, sign in (("NVLINK", "NV"), ("XGMI", "XGMI")):
        if a == b:
            break
        lanes = fast_lanes(topology, a, b, kind)
        if lanes:
            return f"{sign}{lanes}"
    return pcie_distance(topology, a, b, tree)


def fast_lanes(topology: Topology, a: str, b: str, kind: str) -> int:
    """Bonded lanes of a kind from a to b, directly or through one switch."""
    direct = sum(link.lanes for link in topology.links if (link.src, link.dst, link.kind) == (a, b, kind))
    switches = {s.name for s in topology.switches}
    to = {link.dst: link.lanes for link in topology.links if link.kind == kind and link.src == a and link.dst in switches}
    into = {link.src: link.lanes for link in topology.links if link.kind == kind and link.dst == b and link.src in to}
    return direct + sum(min(lanes, into[s]) for s, lanes in to.items() if s in into)


def lanes_per_device(topology: Topology, kind: str) -> dict[str, tuple[int, Fraction]]:
    """For every device the lanes of a kind that leave it, and their capacity in GB/s together."""
    found = {device.name: (0, Fraction(0)) for device in topology.devices}
    for link in topology.links:
        if link.kind == kind and link.src in found:
            lanes, capacity = found[link.src]
            found[link.src] = lanes + link.lanes, capacity + link.capacity
    return found
