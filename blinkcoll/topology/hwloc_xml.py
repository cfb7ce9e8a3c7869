"""hwloc's XML export (``lstopo out.xml``), versions 1 to 3: the PCI tree by NUMA node, NVLink and xGMI bandwidths.

GPUs are the ``PCIDev`` objects with an OS device of the NVML, CUDA or ROCm SMI backend, numbered as that backend numbers
them. ``distances2hetero`` and ``distances2`` matrices named ``NVLinkBandwidth`` and ``XGMIBandwidth`` (MB/s one way, 2.2
and later) give the fast links; an NVLink of 25000 MB/s and more is told from its generation's line rate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..errors import TopologyError
from .draft import Draft, PciNode, flatten_broadcom, merge_ports
from .gpu_models import arch_of_model
from .model import Device, GpuIndex, PciBusId, Switch, Topology, Uuid
from .rates import CPU_LATENCY_US, XGMI_LATENCY_US, cpu_model, most_nvlinks, nvlink_rate, xgmi_rate
from .safe_xml import Element, parse_xml
from .source import Source

#: GPUs and NVSwitches of one machine.
MOST_GPUS = 1024
#: MB/s one way of one NVLink (20000 P100, 25000 V100 to H100, 50000 B200) and of one xGMI link.
_NVLINK_MB_S = {"sm_60": 20000, "sm_100": 50000, "sm_103": 50000}
_XGMI_MB_S = 50000
#: GB/s of one PCIe lane as hwloc computes it, by generation.
_LANE_GB_S = {1: 0.25, 2: 0.5, 3: 0.984615, 4: 1.969231, 5: 3.938462, 6: 7.5625}


@dataclass
class _Found:
    """What the walk over the objects finds."""

    trees: list[tuple[str, str, PciNode]] = field(default_factory=list)  # CPU, host bridge, tree
    gpus: dict[str, tuple[int, Element, PciNode]] = field(default_factory=dict)  # gp_index of the PCIDev -> ...
    vertex: dict[str, str] = field(default_factory=dict)  # gp_index of PCIDev and OSDev -> PCIDev
    nvswitches: set[str] = field(default_factory=set)


def parse_hwloc_xml(source: Source, arch: str = "") -> Topology:
    """The machine in an hwloc export; ``arch`` for GPUs whose model says nothing.

    Raises
    ------
    TopologyError
        Where the file is malformed or shows no GPU (hwloc must have been built with NVML, CUDA or ROCm SMI).
    """
    root = parse_xml(source)
    if root.tag != "topology":
        raise source.error(f"expected the root element <topology>, got <{root.tag[:40]}>", root.line)
    reader = _Reader(source, arch)
    return reader.read(root)


class _Reader:
    """Walks one export."""

    def __init__(self, source: Source, arch: str) -> None:
        self.source, self.arch = source, arch
        self.draft = Draft(re.split(r"[/\\]", source.name)[-1].removesuffix(".xml") or "machine")
        self.found = _Found()

    def read(self, root: Element) -> Topology:
        machine = next((e for e in root.children if e.tag == "object"), None)
        if machine is None:
            raise self.source.error("has no <object>", root.line)
        product = _infos(machine).get("DMIProductName")
        if product:
            self.draft.name = product
        self._objects(machine, "", {}, [])
        if not self.found.gpus:
            raise self.source.error("shows no GPU; export with an hwloc that has NVML, CUDA or ROCm SMI support", machine.line)
        order = self._devices()
        for cpu, bridge, tree in self.found.trees:
            self.draft.hang(cpu, flatten_broadcom(merge_ports(tree)), port=bridge)
        used = {end for k in self.draft.links for end in (k.src, k.dst)}
        self.draft.switches = {n: s for n, s in self.draft.switches.items() if n in used or s.kind not in ("cpu", "nic")}
        if not self.draft.join_cpus():
            self.source.note("the CPU's make is not in the file: between CPUs 6 GB/s are planned")
        matrices = 0
        for element in root.children:
            if element.tag in ("distances2hetero", "distances2") and element.get("name") in ("NVLinkBandwidth", "XGMIBandwidth"):
                matrices += 1
                self._bandwidths(element)
        if not matrices:
            self.source.note("has no NVLinkBandwidth or XGMIBandwidth matrix (hwloc 2.2 and later write one): fast links unknown")
        return self.draft.build(order, self.source.notes)

    def _objects(self, element: Element, cpu: str, cpu_info: dict[str, str], bridges: list[PciNode]) -> None:
        """One object and all below it; ``bridges`` are the PCI bridges above it, the host bridge first."""
        stack = [(element, cpu, cpu_info, bridges)]
        while stack:
            element, cpu, cpu_info, bridges = stack.pop()
            kind = element.get("type")
            if kind in ("Package", "Socket", "Machine", "NUMANode", "Group", "Die"):
                cpu_info = {**cpu_info, **_infos(element)}
                if kind in ("Package", "Socket", "NUMANode") or not cpu:
                    cpu = self._cpu_name(element, kind, cpu)
                if kind in ("Package", "Socket"):
                    self.found.vertex[f"Package:{element.get('gp_index')}"] = f"\0{cpu}"
            elif kind == "Bridge":
                bridges = [*bridges, self._bridge(element, cpu, cpu_info, bridges)]
            elif kind == "PCIDev":
                self._pci_device(element, bridges)
                continue
            for child in reversed(element.children):
                if child.tag == "object":
                    stack.append((child, cpu, cpu_info, bridges))

    def _cpu_name(self, element: Element, kind: str, above: str) -> str:
        number = element.get("os_index", "0")
        if kind == "NUMANode" and above.startswith("cpu") and not element.all("object"):
            return above  # hwloc 2: memory beside the cores, no parent of anything
        return f"cpu{number}" if kind != "Machine" else "machine"

    def _cpu(self, name: str, info: dict[str, str]) -> None:
        if name not in self.draft.switches:
            vendor = info.get("CPUVendor", "")
            family, model = (int(t) if re.fullmatch(r"[0-9]{1,4}", t) else 0 for t in (info.get("CPUFamilyNumber", ""), info.get("CPUModelNumber", "")))
            power = "POWER" in info.get("CPUModel", "")
            arch = "ppc64le" if power else info.get("Architecture") or ("x86_64" if vendor else "")
            self.draft.add_switch(Switch(name, "cpu", arch=arch, vendor=vendor, model=cpu_model(vendor, family, model)))

    def _bridge(self, element: Element, cpu: str, info: dict[str, str], above: list[PciNode]) -> PciNode:
        bus_id = element.get("pci_busid")
        signature = tuple(re.findall(r"[0-9a-fA-F]{4}", element.get("pci_type"))[1:5])
        generation, width = _speed(element.get("pci_link_speed"))
        node = PciNode(bus_id.removeprefix("0000:") or element.get("bridge_pci", "host"), "bridge", generation, width, [], signature)
        if not above:  # a host bridge: it belongs to the CPU, what is below it are root ports
            self._cpu(cpu, info)
            node.name = f"\0{cpu}\0{element.get('bridge_pci')}"
        elif above[-1].name.startswith("\0"):
            _, home, bridge = above[-1].name.split("\0")
            self.found.trees.append((home, bridge, node))
        else:
            above[-1].children.append(node)
        return node

    def _pci_device(self, element: Element, above: list[PciNode]) -> None:
        own = element.get("gp_index") or element.get("id") or str(element.line)
        names = {e.get("name"): e for e in element.all("object") if e.get("type") == "OSDev"}
        self.found.vertex[f"PCIDev:{own}"] = own
        for e in names.values():
            self.found.vertex[f"OSDev:{e.get('gp_index')}"] = own
        kind = element.get("pci_type")
        generation, width = _speed(element.get("pci_link_speed"))
        node = PciNode(element.get("pci_busid").removeprefix("0000:"), "gpu", generation, width)
        numbers = [int(m.group(2)) for name in names if (m := re.fullmatch(r"(nvml|rsmi|cuda)([0-9]{1,5})", name))]
        if element.get("subtype") == "NVSwitch" or kind.startswith("0680 [10de"):
            self.found.nvswitches.add(own)
            return
        if numbers:
            self.found.gpus[own] = (numbers[0], element, node)
        elif kind.startswith("02") and any(re.match(r"mlx|hfi|bnxt_re|efa|ib|rdma", name) for name in names):
            name = next(name for name in names if re.match(r"mlx|hfi|bnxt_re|efa|ib|rdma", name))
            node.kind, node.name = "nic", self.draft.add_switch(Switch(name, "nic"))
        else:
            return
        if above and not above[-1].name.startswith("\0"):
            above[-1].children.append(node)
        elif above:
            _, home, bridge = above[-1].name.split("\0")
            self.found.trees.append((home, bridge, node))

    def _devices(self) -> list[str]:
        numbers = [number for number, _, _ in self.found.gpus.values()]
        if len(set(numbers)) < len(numbers):
            self.source.note("two GPUs have one number: counted in the order of the file")
        for i, (own, (number, element, node)) in enumerate(list(self.found.gpus.items())):
            index = number if len(set(numbers)) == len(numbers) else i
            infos: dict[str, str] = {}
            for os_device in element.all("object"):
                infos.update(_infos(os_device))
            model = infos.get("GPUModel", "")
            uuid = infos.get("NVIDIAUUID") or infos.get("AMDUUID")
            node.name = f"gpu{index}"
            self.draft.add_device(
                Device(
                    node.name,
                    index=GpuIndex(index),
                    arch=arch_of_model(model) or self.arch,
                    bus_id=self._bus_id(element),
                    uuid=Uuid(uuid) if uuid else None,
                    model=model,
                )
            )
            self.found.gpus[own] = (index, element, node)
        return sorted(self.draft.devices, key=lambda name: self.draft.devices[name].index or 0)

    def _bus_id(self, element: Element) -> PciBusId:
        try:
            return PciBusId(element.get("pci_busid"))
        except TopologyError as error:
            raise self.source.error(str(error), element.line) from None

    # -- fast links ---------------------------------------------------------------------------------------------

    def _bandwidths(self, element: Element) -> None:
        """A matrix of MB/s between GPUs and NVSwitches."""
        kind = element.get("type", "OSDev")
        labels = [word for e in element.all("indexes") for word in e.text[:1_000_000].split()]
        labels = [word if ":" in word else f"{kind}:{word}" for word in labels]
        if len(labels) > MOST_GPUS:
            raise self.source.error(f"a matrix of {len(labels)} objects: no machine has so many GPUs and NVSwitches", element.line)
        words = [word for e in element.all("u64values") for word in e.text.split()]
        if len(words) != len(labels) ** 2 or not all(re.fullmatch(r"[0-9]{1,15}", w) for w in words):
            self.source.note(f"the {element.get('name')} matrix has {len(words)} values for {len(labels)} objects; not used", element.line)
            return
        values = [int(word) for word in words]
        at = [self.found.vertex.get(label) for label in labels]
        rate = {(a, b): values[i * len(at) + j] for i, a in enumerate(at) for j, b in enumerate(at) if a and b and a != b}
        if element.get("name") == "XGMIBandwidth":
            self._xgmi(rate)
        else:
            self._nvlinks(rate, element)

    def _nvlinks(self, rate: dict[tuple[str, str], int], element: Element) -> None:
        to_switch: dict[str, int] = {}
        to_cpu: list[tuple[str, str, int]] = []
        for (a, b), mb_s in sorted(rate.items()):
            if a not in self.found.gpus or not mb_s:
                continue
            name, arch = self._name(a)
            lanes = round(mb_s / _NVLINK_MB_S.get(arch, 25000))
            if b in self.found.nvswitches:
                to_switch[name] = to_switch.get(name, 0) + lanes
            elif b.startswith("\0"):
                to_cpu.append((name, b[1:], lanes))
            elif b in self.found.gpus and a < b:
                back = rate.get((b, a), 0)
                if back != mb_s:
                    self.source.note(f"{name} and {self._name(b)[0]} give {mb_s} and {back} MB/s; the smaller is kept", element.line)
                    lanes = round(min(mb_s, back) / _NVLINK_MB_S.get(arch, 25000))
                if lanes:
                    self.draft.wire_nvlinks(name, self._name(b)[0], lanes, arch)
        for name, cpu, lanes in to_cpu:
            self._at_cpu(name, cpu, lanes)
        if to_switch:
            switch = self.draft.add_nvswitch(self.draft.devices[next(iter(to_switch))].arch, len(self.found.nvswitches))
            for name, lanes in to_switch.items():
                most = most_nvlinks(self.draft.devices[name].arch)
                if lanes > most:
                    self.source.note(f"{name} has {lanes} NVLinks in the matrix, a {self.draft.devices[name].arch} has {most}; {most} are kept", element.line)
                self.draft.wire_nvlinks(name, switch, min(lanes, most), self.draft.devices[name].arch)

    def _at_cpu(self, name: str, cpu: str, lanes: int) -> None:
        """NVLinks between a GPU and its CPU (POWER8, POWER9) take the place of its PCIe link."""
        self.draft.links = [k for k in self.draft.links if k.kind != "PCIE" or name not in (k.src, k.dst)]
        nvlink = nvlink_rate(self.draft.devices[name].arch)
        if cpu in self.draft.switches and lanes:
            self.draft.wire(name, cpu, "CPU", nvlink.lane_gb_s * lanes, CPU_LATENCY_US, lanes, nvlink.generation)

    def _xgmi(self, rate: dict[tuple[str, str], int]) -> None:
        for (a, b), mb_s in sorted(rate.items()):
            if a < b and mb_s and a in self.found.gpus and b in self.found.gpus and rate.get((b, a)):
                name, arch = self._name(a)
                lanes = max(1, round(min(mb_s, rate[b, a]) / _XGMI_MB_S))
                self.draft.wire(name, self._name(b)[0], "XGMI", xgmi_rate(arch) * lanes, XGMI_LATENCY_US, lanes)

    def _name(self, own: str) -> tuple[str, str]:
        name = f"gpu{self.found.gpus[own][0]}"
        return name, self.draft.devices[name].arch


def _infos(element: Element) -> dict[str, str]:
    return {e.get("name"): e.get("value") for e in element.all("info")}


def _speed(text: str) -> tuple[int | None, int]:
    """Generation and lanes of hwloc's GB/s; sixteen lanes where several answers fit, unknown where none does."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,9})?", text) or float(text) == 0:
        return None, 16
    fits = [(gen, width) for width in (16, 8, 4, 2, 1) for gen, lane in _LANE_GB_S.items() if abs(float(text) / (lane * width) - 1) < 0.03]
    return fits[0] if fits else (None, 16)



