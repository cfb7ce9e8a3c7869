"""The server as NCCL sees it: GPUs, PCI switches, CPUs and one NVSwitch node, with NCCL's own bandwidths on the links.

Rebuilt from src/graph/topo.cc (``ncclTopoGetSystemFromXml`` and what it calls) of NCCL 2.30.7 and 2.7.8. Order matters:
the paths and the search prefer what comes first, so nodes are made in the order of NCCL's XML (CPUs, PCI switches and
GPUs by the lowest rank below them; NVLinks by the GPU index of their other end) and each node's links are kept as NCCL
keeps them (fastest first, then in the order of making; the way up last).

Only what a job got is there: GPUs outside it and branches without a GPU are left out, as NCCL does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from math import copysign, inf
from struct import Struct

from ....errors import TopologyError
from ....topology import Device, Link, Topology
from .versions import LOCAL_GB_S, V2_30, Version

#: 100 Mb/s a lane, by PCIe generation (``kvDictPciGen`` in src/graph/topo.cc; 60 where it does not know one).
_PCIE_SPEEDS = {1: 15, 2: 30, 3: 60, 4: 120, 5: 240, 6: 480}
_PCIE_SPEEDS_2_7 = {1: 15, 2: 30, 3: 60, 4: 120}
_PCIE_FALLBACK = 60

#: CPU models in the order in which a tie between capacities is resolved.
CPU_MODELS = tuple(V2_30.cpu_gb_s)
#: Intel's generations as NCCL tells them apart by model number (``ncclTopoAddCpu``): Skylake from 0x55 on, Sapphire
#: Rapids from 0x8F on, Emerald Rapids from 0xCF on, all before as Broadwell.
_INTEL = {
    "intel-bdw": ("haswell", "broadwell"),
    "intel-skl": ("skylake", "cascade lake", "cooper lake", "ice lake"),
    "intel-srp": ("sapphire rapids", "granite rapids"),
    "intel-erp": ("emerald rapids",),
}
#: The newest GPUs that a release knows.
_NEWEST_GPU = {"2.4": 75, "2.7": 80}


_SINGLE = Struct("<f")


def f32(value: float) -> float:
    """``value`` in single precision: NCCL's bandwidths are floats. One operation on such values in double precision, rounded, is that in single.

    What is beyond its range is infinite.
    """
    try:
        return float(_SINGLE.unpack(_SINGLE.pack(value))[0])
    except OverflowError:
        return copysign(inf, value)


@dataclass(eq=False)
class Edge:
    """One direction of a link: its kind as NCCL names it, GB/s, and where it leads."""

    kind: str  # LOC, NVL, C2C, PCI or SYS
    gb_s: float
    to: Node

    def __repr__(self) -> str:
        return f"{self.kind}[{self.gb_s:g}]->{self.to.name}"


@dataclass(eq=False)
class Node:
    """A vertex: ``kind`` is GPU, DEV (what a GPU's links belong to, 2.30 only), PCI, NVS or CPU."""

    kind: str
    name: str
    rank: int = -1
    index: int = -1
    compute_capability: int = 0
    port: str = ""  # which part of its parent it hangs from
    edges: list[Edge] = field(default_factory=list)
    owner: Node | None = None

    def __repr__(self) -> str:
        return f"{self.kind}/{self.name}"

    def edge_to(self, other: Node, kind: str | None = None) -> Edge:
        """The first edge to ``other`` (of that kind)."""
        return next(e for e in self.edges if e.to is other and kind in (None, e.kind))


@dataclass(eq=False)
class System:
    """Every node by kind, in NCCL's order, and what had to be assumed about the machine."""

    version: Version
    cpu: str
    nodes: dict[str, list[Node]]
    multicast: bool
    no_peer_access: frozenset[tuple[str, str]]
    assumptions: tuple[str, ...]

    @property
    def gpus(self) -> list[Node]:
        """The GPUs in NCCL's order; what the search calls GPU i is ``gpus[i]``."""
        return self.nodes["GPU"]

    @property
    def compute_capability(self) -> int:
        """The least of the GPUs'."""
        return min(gpu.compute_capability for gpu in self.gpus)

    def edges(self) -> Iterable[Edge]:
        """All of them, in a fixed order."""
        return (edge for nodes in self.nodes.values() for node in nodes for edge in node.edges)


def build_system(topology: Topology, version: Version, cpu: str | None = None) -> System:
    """NCCL's view of the devices of ``topology``.

    Parameters
    ----------
    topology
        One server. PCIe and CPUs are read from the machine it was cut from, which NCCL sees whatever the job got.
    cpu
        One of ``CPU_MODELS``; by default told by the CPUs' interconnect.

    Raises
    ------
    TopologyError
        Where a device is no NVIDIA GPU, or the devices are of several servers.
    """
    return _Builder(topology, version, cpu).build()


class _Builder:
    """Keeps what the steps of :func:`build_system` share."""

    def __init__(self, topology: Topology, version: Version, cpu: str | None) -> None:
        self.topology, self.version = topology, version
        self.machine = topology
        while self.machine.parent is not None:
            self.machine = self.machine.parent
        self.assumptions: list[str] = []
        self.switch_kind = {switch.name: switch.kind for switch in self.machine.switches}
        _check_devices(topology)
        newest = max(_compute_capability(device) for device in topology.devices)
        if newest > _NEWEST_GPU.get(version.name, newest):
            self.assumptions.append(f"NCCL {version.release} predates sm_{newest}: it never ran on these GPUs")
        if cpu is not None and cpu not in CPU_MODELS:
            raise TopologyError(f"NCCL knows no CPU model {cpu!r}; known: {', '.join(CPU_MODELS)}")
        self.cpu = cpu or self._cpu_model()
        kinds = ("GPU", "PCI", "NVS", "CPU", "DEV") if version.device_nodes else ("GPU", "PCI", "NVS", "CPU")
        self.nodes: dict[str, list[Node]] = {kind: [] for kind in kinds}
        self.owner_of: dict[str, Node] = {}

    def build(self) -> System:
        self._add_cpus()
        self._add_nvlinks()
        self._add_c2c()
        self._connect_cpus()
        for cpu in self.nodes["CPU"]:
            _links_up_last(cpu, None)
        present = {switch.name for switch in self.topology.switches}
        nvswitches = [s for s in self.machine.switches if s.kind == "nvswitch" and s.name in present]
        multicast = bool(nvswitches) and all(s.multicast and s.reduce for s in nvswitches)
        refused = frozenset(self.topology.no_peer_access)
        return System(self.version, self.cpu, self.nodes, multicast, refused, tuple(self.assumptions))

    # -- CPUs and PCIe ------------------------------------------------------------------------------------------

    def _cpu_model(self) -> str:
        """The CPU's make as NCCL distinguishes it: as the machine says, else by the capacity between its CPUs."""
        cpus = [switch for switch in self.machine.switches if switch.kind == "cpu"]
        arch, vendor, model = next(((c.arch, c.vendor, c.model) for c in cpus if c.arch or c.vendor), ("", "", ""))
        if arch.startswith("ppc64"):
            return "power"
        if arch.startswith(("aarch64", "arm")):
            return "arm"
        if vendor == "AuthenticAMD":
            return "amd"
        candidates = [name for name in CPU_MODELS if name.startswith("intel")] if vendor == "GenuineIntel" else list(CPU_MODELS)
        for name in candidates:
            if any(word in model.lower() for word in _INTEL.get(name, ())):
                return name
        return self._cpu_by_capacity(candidates, {cpu.name for cpu in cpus})

    def _cpu_by_capacity(self, candidates: list[str], cpus: set[str]) -> str:
        capacities = [float(k.capacity) for k in self.machine.links if k.kind == "CPU" and k.src in cpus and k.dst in cpus]
        if not capacities:
            self.assumptions.append("the machine names neither its CPUs nor a link between them: taken for Intel Skylake")
            return "intel-skl"
        gb_s = capacities[0]
        model = min(candidates, key=lambda name: abs(V2_30.cpu_gb_s[name] - gb_s))
        if V2_30.cpu_gb_s[model] != gb_s:
            self.assumptions.append(f"no CPU that NCCL knows links at {gb_s:g} GB/s: taken for {model}")
        return model

    def _add_cpus(self) -> None:
        """The PCI trees, from CPUs down; in XML order, that is by the lowest rank below."""
        below: dict[str, dict[str, None]] = {}
        roots: dict[str, None] = {}
        up: dict[str, Link | None] = {}
        for device in self.topology.devices:
            chain = self._way_to_cpu(device)
            for (child, link), (parent, _) in pairwise(chain):
                below.setdefault(parent, {})[child] = None
                up[child] = link
            roots[chain[-1][0]] = None
        rank_of = {device.name: rank for rank, device in enumerate(self.topology.devices)}
        for name in roots:
            cpu = self._node("CPU", name)
            for child in below[name]:
                self._add_pci(child, cpu, below, up, rank_of)

    def _add_pci(
        self, name: str, parent: Node, below: dict[str, dict[str, None]], up: dict[str, Link | None], rank_of: dict[str, int]
    ) -> None:
        link = up[name]
        gb_s, port = self._pcie_gb_s(link), link.port if link is not None else ""
        if name in rank_of:
            self._add_gpu(self.topology.devices[rank_of[name]], rank_of[name], parent, gb_s, port)
            return
        node = self._node("PCI", name)
        node.port = port
        for child in below[name]:
            self._add_pci(child, node, below, up, rank_of)
        _connect(node, parent, "PCI", gb_s)
        _connect(parent, node, "PCI", gb_s)

    def _add_gpu(self, device: Device, rank: int, parent: Node, gb_s: float, port: str) -> None:
        gpu = self._node("GPU", device.name)
        gpu.port = port
        gpu.rank, gpu.index = rank, -1 if device.index is None else int(device.index)
        gpu.compute_capability = _compute_capability(device)
        owner = gpu
        if self.version.device_nodes:
            owner = self._node("DEV", device.name)
            owner.compute_capability = gpu.compute_capability
        self.owner_of[device.name] = owner
        gpu.owner = owner
        _connect(owner, parent, "PCI", gb_s)
        _connect(parent, owner, "PCI", gb_s)
        if owner is not gpu:
            _connect(owner, gpu, "LOC", LOCAL_GB_S)
            _connect(gpu, owner, "LOC", LOCAL_GB_S)

    def _way_to_cpu(self, device: Device) -> list[tuple[str, Link | None]]:
        """The vertices from a device up to its CPU, each with its link up; through PCIe switches only."""
        came: dict[str, tuple[str, Link]] = {}
        frontier, seen = [device.name], {device.name}
        farthest = device.name
        while frontier:
            here = frontier.pop(0)
            farthest = here
            if self.switch_kind.get(here) == "cpu":
                return self._unwind(device.name, here, came, None)
            for link in self.machine.links:
                if link.src == here and link.kind == "PCIE" and link.dst not in seen and self.switch_kind.get(link.dst) in ("pcie", "cpu"):
                    seen.add(link.dst)
                    came[link.dst] = (here, link)
                    frontier.append(link.dst)
        direct = (k.dst for k in self.machine.links if k.src == device.name and self.switch_kind.get(k.dst) == "cpu")
        cpu = next(direct, None) or next((n for n, k in self.switch_kind.items() if k == "cpu"), "cpu")
        self._assume_once("the machine does not say how its GPUs' PCIe reaches a CPU: taken for PCIe 3.0 x16 to the nearest")
        return self._unwind(device.name, farthest, came, cpu)

    def _unwind(self, start: str, end: str, came: dict[str, tuple[str, Link]], assumed_cpu: str | None) -> list[tuple[str, Link | None]]:
        chain: list[tuple[str, Link | None]] = [(assumed_cpu, None)] if assumed_cpu is not None else []
        link: Link | None = None
        while True:
            chain.insert(0, (end, link))
            if end == start:
                return chain
            end, link = came[end]

    def _pcie_gb_s(self, link: Link | None) -> float:
        """A PCIe link as NCCL counts it: width times speed, both as the device reports them."""
        if link is None:
            return f32(16 * _PCIE_FALLBACK / 80)
        if link.generation is None:
            return f32(float(link.capacity))
        speeds = _PCIE_SPEEDS if self.version.device_nodes else _PCIE_SPEEDS_2_7
        return f32(link.lanes * speeds.get(link.generation, _PCIE_FALLBACK) / 80)

    # -- NVLink and between CPUs ----------------------------------------------------------------------------------

    def _add_nvlinks(self) -> None:
        lanes: dict[tuple[str, str], int] = {}
        for link in self.topology.links:
            if link.kind == "NVLINK":
                lanes[link.src, link.dst] = lanes.get((link.src, link.dst), 0) + link.lanes
        for device, cpu, count in self._nvlinks_to_cpus():
            lanes[device, cpu] = count
        order = {gpu.name: (gpu.index, gpu.rank) for gpu in self.nodes["GPU"]}
        for gpu in self.nodes["GPU"]:
            owner = self.owner_of[gpu.name]
            lane_gb_s = f32(self.version.lane_gb_s(gpu.compute_capability))
            ends = sorted((dst for src, dst in lanes if src == gpu.name), key=lambda dst: order.get(dst, (1 << 30, 0)))
            for dst in ends:
                gb_s = f32(lanes[gpu.name, dst] * lane_gb_s)
                if dst in self.owner_of:
                    _connect(owner, self.owner_of[dst], "NVL", gb_s)
                else:
                    self._add_nvlink_to_switch(owner, dst, gb_s)

    def _nvlinks_to_cpus(self) -> list[tuple[str, str, int]]:
        """POWER's NVLinks between GPUs and CPUs: (device, CPU, lanes). The topology has them as links of kind CPU."""
        if self.cpu != "power":
            return []
        return [
            (k.src, k.dst, k.lanes)
            for k in self.machine.links
            if k.kind in ("CPU", "NVLINK") and k.src in self.owner_of and self.switch_kind.get(k.dst) == "cpu"
        ]

    def _add_c2c(self) -> None:
        """Grace's links between GPU and CPU (``ncclTopoAddC2c``), which 2.7 does not know."""
        if self.cpu != "arm" or not self.version.device_nodes:
            return
        cpus = {node.name: node for node in self.nodes["CPU"]}
        for link in self.machine.links:
            if link.kind == "CPU" and link.src in self.owner_of and link.dst in cpus:
                owner, cpu, gb_s = self.owner_of[link.src], cpus[link.dst], f32(float(link.capacity))
                _connect(owner, cpu, "C2C", gb_s)
                _connect(cpu, owner, "C2C", gb_s)

    def _add_nvlink_to_switch(self, owner: Node, dst: str, gb_s: float) -> None:
        """To the one NVS node that stands for all NVSwitches, or to the GPU's CPU (POWER)."""
        kind = self.switch_kind.get(dst)
        if kind == "cpu":
            remote = next(n for n in self.nodes["CPU"] if n.name == dst)
        elif kind == "nvswitch":
            remote = self.nodes["NVS"][0] if self.nodes["NVS"] else self._node("NVS", "nvswitches")
        else:
            return  # a relay: a GPU that is no rank is not in NCCL's graph
        _connect(owner, remote, "NVL", gb_s)
        _connect(remote, owner, "NVL", gb_s)

    def _connect_cpus(self) -> None:
        gb_s = f32(self.version.cpu_gb_s[self.cpu])
        for one in self.nodes["CPU"]:
            for other in self.nodes["CPU"]:
                if one is not other:
                    _connect(one, other, "SYS", gb_s)

    def _node(self, kind: str, name: str) -> Node:
        node = Node(kind, name)
        self.nodes[kind].append(node)
        return node

    def _assume_once(self, text: str) -> None:
        if text not in self.assumptions:
            self.assumptions.append(text)


def _check_devices(topology: Topology) -> None:
    if len({device.server for device in topology.devices}) > 1:
        raise TopologyError(f"topology {topology.name}: NCCL's search is rebuilt for one server; these devices are of several")
    for device in topology.devices:
        _compute_capability(device)


def _compute_capability(device: Device) -> int:
    """70 for ``sm_70``."""
    digits = device.arch.removeprefix("sm_").rstrip("abf")
    if not device.arch.startswith("sm_") or not digits.isdigit():
        raise TopologyError(f"{device.name} has architecture {device.arch!r}: NCCL runs on NVIDIA GPUs (sm_60, sm_70 ...)")
    return int(digits)


def _connect(node: Node, other: Node, kind: str, gb_s: float) -> None:
    """Add a link, or bandwidth to the one there is; fastest first (``ncclTopoConnectNodes``)."""
    edge = next((e for e in node.edges if e.to is other and e.kind == kind), None)
    if edge is None:
        edge = Edge(kind, 0.0, other)
        node.edges.append(edge)
    edge.gb_s = f32(edge.gb_s + gb_s)
    at = node.edges.index(edge)
    while at > 0 and node.edges[at - 1].gb_s < edge.gb_s:
        node.edges[at - 1], node.edges[at] = node.edges[at], node.edges[at - 1]
        at -= 1


def _links_up_last(node: Node, parent: Node | None) -> None:
    """Down a PCI tree, move every node's link to its parent to the end (``ncclTopoSort``)."""
    if parent is not None:
        up = node.edge_to(parent)
        node.edges.remove(up)
        node.edges.append(up)
    for edge in list(node.edges):
        if edge.kind == "PCI" and edge.to is not parent:
            _links_up_last(edge.to, node)
