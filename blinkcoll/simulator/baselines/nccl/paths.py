"""How GPUs reach each other: kind, bandwidth and links of the path that NCCL takes between each pair.

Rebuilt from src/graph/paths.cc of NCCL 2.30.7 (``ncclTopoSetPaths``, ``ncclTopoCheckP2p``, ``ncclTopoComputePaths``)
and 2.7.8. 2.30 prefers the nearest kind, then bandwidth, then fewer links, and may cross one GPU over NVLink (NVB); 2.7
prefers bandwidth alone and never crosses a GPU. Pairs too far apart for direct access go through the memory of the
receiver's CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from .system import Edge, Node, System
from .versions import LOCAL_GB_S, Version

_LINK_PATH = {"LOC": "LOC", "NVL": "NVL", "C2C": "C2C", "PCI": "PIX", "SYS": "SYS"}


@dataclass(frozen=True)
class Way:
    """A path between two nodes: the position of its kind in ``Version.path_types``, GB/s, and its links in order."""

    type: int
    gb_s: float
    edges: tuple[Edge, ...]


class Paths:
    """The paths between all nodes that the search asks for."""

    def __init__(self, system: System) -> None:
        self.system, self.version = system, system.version
        self._ways: dict[tuple[Node, Node], Way] = {}
        self.through_memory: set[tuple[Node, Node]] = set()
        spread = _spread_2_30 if self.version.device_nodes else _spread_2_7
        for kind in ("CPU", "DEV", "GPU", "NVS"):
            for base in system.nodes.get(kind, ()):
                for node, way in spread(system, base).items():
                    self._ways[node, base] = way
        self._divert()

    def __getitem__(self, pair: tuple[Node, Node]) -> Way:
        """The path from one node to another; one without links, of the last kind, where there is none."""
        return self._ways.get(pair) or Way(len(self.version.path_types) - 1, 0.0, ())

    def type_name(self, a: Node, b: Node) -> str:
        """The kind of the path from a to b."""
        return self.version.path_types[self[a, b].type]

    def extreme_types(self) -> tuple[int, int]:
        """The nearest and the farthest kind between two different GPUs (``ncclTopoGetGpuMinPath``, ``...MaxPath``)."""
        kinds = [self[a, b].type for a in self.system.gpus for b in self.system.gpus if a is not b]
        return (min(kinds), max(kinds)) if kinds else (self.version.rank_of("LOC"), self.version.rank_of("SYS"))

    def _divert(self) -> None:
        """Send pairs that must not reach each other directly through the receiver's CPU (``addInterStep``)."""
        level = p2p_level(self.system)
        for there in self.system.gpus:
            cpu = self._local_cpu(there)
            for here in self.system.gpus:
                if self[here, there].type <= level and not self._refused(here, there):
                    continue
                up, down = self[here, cpu], self[cpu, there]
                self._ways[here, there] = Way(max(up.type, down.type), min(up.gb_s, down.gb_s), up.edges + down.edges)
                self.through_memory.add((here, there))

    def _refused(self, here: Node, there: Node) -> bool:
        """Whether the driver refuses peer access between the two; 2.7's graph does not ask it."""
        refused = self.system.no_peer_access
        return self.version.name != "2.7" and ((here.name, there.name) in refused or (there.name, here.name) in refused)

    def _local_cpu(self, gpu: Node) -> Node:
        """The CPU next to a GPU: in 2.30 by bandwidth, kind and links, in 2.7 by links alone."""
        cpus = self.system.nodes["CPU"]
        if not self.version.device_nodes:
            return min(cpus, key=lambda cpu: len(self[gpu, cpu].edges))
        return min(cpus, key=lambda cpu: (-self[gpu, cpu].gb_s, self[gpu, cpu].type, len(self[gpu, cpu].edges)))


def p2p_level(system: System) -> int:
    """The farthest kind of path over which GPUs of this system reach each other directly."""
    version = system.version
    if version.device_nodes and system.cpu == "amd" and len(system.nodes["DEV"]) <= 2:
        return version.rank_of("SYS")
    level = version.p2p_level[system.cpu]
    return version.rank_of("SYS" if level is None else level)


def _spread_2_30(system: System, base: Node) -> dict[Node, Way]:
    """Every node's path to ``base``, breadth first (``ncclTopoSetPaths`` of 2.30)."""
    version = system.version
    nvl, nvb = version.rank_of("NVL"), version.rank_of("NVB")
    ways = {base: Way(version.rank_of("LOC"), LOCAL_GB_S, ())}
    longest = 2 if base.kind == "GPU" else 1
    base_device = base.owner if base.kind == "GPU" else base
    level = [base]
    while level:
        following: list[Node] = []
        for node in level:
            way = ways[node]
            for edge in node.edges:
                remote = edge.to
                crosses_device = node is not base_device and node.kind == "DEV" and not (edge.kind == "LOC" and remote.kind == "GPU")
                if crosses_device and not (edge.kind == "NVL" and remote.kind == "DEV" and len(way.edges) <= longest):
                    continue
                kind = version.rank_of(_LINK_PATH[edge.kind])
                if node.kind == "PCI" and remote.kind == "PCI":
                    kind = version.rank_of("PXB")
                if edge.kind == "PCI" and "CPU" in (node.kind, remote.kind):
                    kind = version.rank_of("PHB")
                if node.kind == "DEV" and way.type == nvl and kind == nvl and len(way.edges) == longest:
                    kind = nvb
                kind, gb_s = max(way.type, kind), min(way.gb_s, edge.gb_s)
                known = ways.get(remote)
                if known is not None and (known.type, -known.gb_s, len(known.edges)) <= (kind, -gb_s, len(way.edges) + 1):
                    continue
                ways[remote] = Way(kind, gb_s, (remote.edge_to(node, edge.kind), *way.edges))
                if remote not in following:
                    following.append(remote)
        level = following
    return ways


def _spread_2_7(system: System, base: Node) -> dict[Node, Way]:
    """Every node's path to ``base``, breadth first, widest only (``ncclTopoSetPaths`` of 2.7)."""
    version = system.version
    pix, nvl, sys = version.rank_of("PIX"), version.rank_of("NVL"), version.rank_of("SYS")
    ways = {base: Way(version.rank_of("LOC"), LOCAL_GB_S, ())}
    level = [base]
    while level:
        following: list[Node] = []
        for node in level:
            way = ways[node]
            for edge in node.edges:
                remote = edge.to
                gb_s = min(way.gb_s, edge.gb_s)
                if remote in ways and ways[remote].gb_s >= gb_s:
                    continue
                kind = version.rank_of(_LINK_PATH[edge.kind])
                if kind == pix and "PCI" in (node.kind, remote.kind) and len(way.edges) + 1 > 3:
                    kind = version.rank_of("PXB")
                if edge.kind == "PCI" and "CPU" in (node.kind, remote.kind):
                    kind = version.rank_of("PHB")
                if way.type == nvl and kind == sys and remote.kind == "CPU" and system.cpu == "power" and version.name == "2.7":
                    kind = version.rank_of("LOC")
                ways[remote] = Way(max(way.type, kind), gb_s, (remote.edge_to(node), *way.edges))
                if remote.kind != "GPU" and remote not in following:
                    following.append(remote)
        level = following
    return ways


def overhead_applies(version: Version, system: System, way: Way) -> bool:
    """Whether PCIe links on a GPU's path carry the overhead of GPU traffic through an Intel CPU (``followPath``)."""
    phb = version.rank_of("PHB")
    return way.type == phb and system.cpu.startswith("intel") and any(e.to.kind == "CPU" for e in way.edges)
