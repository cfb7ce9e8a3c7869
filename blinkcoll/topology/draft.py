"""A topology in the making: what parsers and probes add vertices and wires to, and the PCIe tree they hang them in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations

from ..errors import TopologyError
from .model import Device, Link, Switch, Topology
from .rates import (
    CPU_LATENCY_US,
    NVLINK_LATENCY_US,
    NVSWITCH_LATENCY_US,
    PCIE_LATENCY_US,
    cpu_rate,
    nvlink_rate,
    nvls,
    pcie_rate,
)

#: A server or a rack has fewer devices and switches, and fewer CPUs.
MOST_VERTICES, MOST_CPUS = 8192, 512
#: Where the CPU is unknown: the slowest that NCCL knows.
UNKNOWN_CPU_GB_S = Fraction(6)


@dataclass
class PciNode:
    """A bridge, GPU or NIC of a PCIe tree with the link above it. ``signature`` is vendor, device and their subsystem."""

    name: str
    kind: str  # "bridge", "gpu", "nic"
    generation: int | None = None
    width: int = 16
    children: list[PciNode] = field(default_factory=list)
    signature: tuple[str, ...] = ()

    @property
    def capacity(self) -> Fraction:
        """GB/s one way of the link above it."""
        return pcie_rate(self.generation, self.width)

    def leaves(self) -> int:
        """How many GPUs and NICs hang below (it counts itself)."""
        return 1 if self.kind != "bridge" else sum(child.leaves() for child in self.children)


class Draft:
    """Collects devices, switches and links under names that stay unique."""

    def __init__(self, name: str) -> None:
        self.name = _printable(name)
        self.devices: dict[str, Device] = {}
        self.switches: dict[str, Switch] = {}
        self.links: list[Link] = []
        self.no_peer_access: list[tuple[str, str]] = []
        self._repeats: dict[str, int] = {}

    def free_name(self, wanted: str) -> str:
        """The name, or with a number behind it where it is taken."""
        name = wanted
        while name in self.devices or name in self.switches:
            self._repeats[wanted] = self._repeats.get(wanted, 1) + 1
            name = f"{wanted}#{self._repeats[wanted]}"
        return name

    def add_device(self, device: Device) -> str:
        """Add a device; two of one name are a contradiction."""
        if device.name in self.devices:
            raise TopologyError(f"two devices are called {device.name}")
        self.devices[device.name] = replace(device, model=_printable(device.model))
        return device.name

    def add_switch(self, switch: Switch) -> str:
        """Add a switch under its name or a free one like it; returns the name it got."""
        if len(self.switches) + len(self.devices) >= MOST_VERTICES:
            raise TopologyError(f"{self.name}: more than {MOST_VERTICES} devices and switches; no machine has so many")
        name = self.free_name(_printable(switch.name) or switch.kind)
        self.switches[name] = replace(
            switch, name=name, arch=_printable(switch.arch), vendor=_printable(switch.vendor), model=_printable(switch.model)
        )
        return name

    def wire(
        self,
        a: str,
        b: str,
        kind: str,
        capacity: Fraction,
        latency_us: Fraction,
        lanes: int = 1,
        generation: int | None = None,
        port: str = "",
    ) -> None:
        """Both directions of one wire."""
        for src, dst in ((a, b), (b, a)):
            self.links.append(Link(src, dst, kind, capacity, latency_us, None, lanes, generation, port))

    def wire_nvlinks(self, a: str, b: str, lanes: int, arch: str) -> None:
        """``lanes`` bonded NVLinks between two GPUs, or a GPU and the NVSwitches."""
        rate = nvlink_rate(arch)
        latency = NVSWITCH_LATENCY_US if b in self.switches else NVLINK_LATENCY_US
        self.wire(a, b, "NVLINK", rate.lane_gb_s * lanes, latency, lanes, rate.generation)

    def add_nvswitch(self, arch: str, planes: int, server: int = 0) -> str:
        """The one vertex that stands for all NVSwitches; from sm_90 on they copy and add."""
        sharp = nvls(arch)
        return self.add_switch(Switch("nvswitch", "nvswitch", multicast=sharp, reduce=sharp, server=server, planes=max(1, planes)))

    def join_cpus(self) -> bool:
        """Wire every two CPUs of a server; returns whether the rate is known for all of them."""
        known = True
        cpus = [s for s in self.switches.values() if s.kind == "cpu"]
        if len(cpus) > MOST_CPUS:
            raise TopologyError(f"{self.name}: {len(cpus)} CPUs or NUMA nodes; no machine has more than {MOST_CPUS}")
        for a, b in combinations(cpus, 2):
            if a.server == b.server:
                rate = cpu_rate(a.arch, a.vendor, a.model)
                known = known and rate is not None
                self.wire(a.name, b.name, "CPU", rate or UNKNOWN_CPU_GB_S, CPU_LATENCY_US)
        return known

    def hang(self, parent: str, node: PciNode, server: int = 0, port: str | None = None) -> None:
        """A PCIe node and all below it under a vertex.

        ``port`` is the part of the parent it hangs from; None leaves it to the tree: a bridge that is left out is one.

        A bridge with nothing below it is left out; one with a single child is no place where ways meet: its link and
        the child's become one with the smaller capacity.
        """
        top = node.name
        direct = True
        while node.kind == "bridge":
            children = [child for child in node.children if child.leaves()]
            if len(children) != 1:
                node = replace(node, children=children)
                break
            (child,) = children
            slower = min(node, child, key=lambda n: n.capacity)
            node = replace(child, generation=slower.generation, width=slower.width)
            direct = False
        if not node.leaves():
            return
        if port is None:
            port = "" if direct else top
        name = self.add_switch(Switch(node.name.removeprefix("0000:"), "pcie", server=server)) if node.kind == "bridge" else node.name
        self.wire(name, parent, "PCIE", node.capacity, PCIE_LATENCY_US, node.width or 16, node.generation, port)
        for child in node.children:
            self.hang(name, child, server)

    def build(self, order: list[str] | None = None, notes: list[str] | None = None) -> Topology:
        """The topology; ``order`` lists the devices by rank."""
        if not self.devices:
            raise TopologyError(f"{self.name}: no GPU in it")
        devices = tuple(self.devices[name] for name in (order or list(self.devices)))
        return Topology(
            self.name, devices, tuple(self.switches.values()), tuple(self.links), notes=tuple(notes or ()),
            no_peer_access=tuple(self.no_peer_access),
        )  # fmt: skip


def _printable(text: str) -> str:
    """Text from a file without what a terminal would act on; runs of blanks as one."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:200]


def merge_ports(root_port: PciNode) -> PciNode:
    """A tree as the operating system lists it, with the two levels of each switch (upstream, downstream ports) as one.

    Below a root port comes the upstream port of a switch, below it its downstream ports with a device or the next switch
    each: devices below different downstream ports of one switch are one switch apart.
    """
    return replace(root_port, children=[_merged(child) for child in root_port.children])


def _merged(upstream: PciNode) -> PciNode:
    children: list[PciNode] = []
    for port in upstream.children:
        children += [_merged(below) for below in port.children] if port.kind == "bridge" else [port]
    return replace(upstream, children=children)


def flatten_broadcom(node: PciNode) -> PciNode:
    """Broadcom's PEX880xx and PEX890xx show two levels of switches but pass full rate between all ports: one switch.

    As NCCL 2.30.7 does it (src/graph/topo.cc, getBcmGen and ncclTopoFlattenBcmSwitches). Devices of one inner switch
    keep it as their port, so that distances stay what they were.
    """
    children = [flatten_broadcom(child) for child in node.children]
    generation = _broadcom(node.signature, 0)
    if node.kind == "bridge" and generation:
        flat: list[PciNode] = []
        for child in children:
            if child.kind == "bridge" and _broadcom(child.signature, 1) == generation:
                flat += _below(child)
            else:
                flat.append(child)
        children = flat
    return replace(node, children=children)


def _below(inner: PciNode) -> list[PciNode]:
    """The children of an inner switch, each behind a bridge of that switch's name, which the tree remembers as its port."""
    return [
        child if child.kind == "bridge" else PciNode(inner.name, "bridge", child.generation, child.width, [child])
        for child in inner.children
    ]


def _broadcom(signature: tuple[str, ...], level: int) -> int:
    """4 or 5 for such a switch of that generation and level, else 0."""
    try:
        vendor, device, subvendor, subdevice = (int(part, 16) for part in signature)
    except ValueError:
        return 0
    if (vendor, device, subvendor, subdevice & 0xF000) == (0x1000, 0xC010, 0x1000, 0xA000):
        return 4
    return 5 if (vendor, device, subvendor, subdevice & 0xF000) == (0x1000, 0xC030, 0x1000, 0x1000 * level) else 0
