"""Topology files of NCCL and RCCL (``NCCL_TOPO_DUMP_FILE``, ``NCCL_TOPO_FILE``): ``system``, ``cpu``, ``pci``, ``gpu``.

Read as NCCL 2.30.7 reads them (src/graph/topo.cc): one vertex a CPU (a NUMA node), PCI bridges as a tree, all NVSwitches
as one vertex that takes every ``nvlink`` whose target class is a switch's or whose target is nowhere in the file,
``link_speed`` in GT/s a lane, the rates of NVLinks by ``sm``, of xGMI by ``gcn`` (RCCL). Where it contradicts itself
this reader says so and keeps what both ends agree on.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

from ..errors import TopologyError
from .draft import Draft, PciNode, flatten_broadcom
from .gpu_models import arch_of_nvidia_device
from .model import BETWEEN_SERVERS, Device, GpuIndex, PciBusId, Switch, Topology
from .rates import (
    CPU_LATENCY_US,
    NIC_LATENCY_US,
    XGMI_LATENCY_US,
    cpu_model,
    most_nvlinks,
    nvlink_rate,
    pcie_generation,
    xgmi_rate,
)
from .safe_xml import Element, parse_xml
from .source import Source

_NVSWITCH, _CPU = "0x068000", "0x068001"
_GPU_CLASSES = ("0x03", "0x12")
#: A rack has fewer.
MOST_GPUS = 1024


@dataclass
class _Gpu:
    """One GPU of the file, with its fast links by target."""

    element: Element
    bus_id: str
    dev: int
    rank: int
    arch: str
    cpu: str
    server: int
    node: PciNode
    name: str = ""
    direct: Counter[tuple[str, str]] = field(default_factory=Counter)  # (bus id, kind) -> lanes
    switched: int = 0
    to_cpu: int = 0
    c2c_gb_s: Fraction = Fraction(0)
    planes: set[str] = field(default_factory=set)
    lines: dict[tuple[str, str], int] = field(default_factory=dict)


def parse_nccl_xml(source: Source, arch: str = "") -> Topology:
    """The machine in a topology file; ``arch`` for GPUs whose ``sm`` is not in it.

    Raises
    ------
    TopologyError
        Where it is a graph file, is malformed, or has no GPU.
    """
    root = parse_xml(source)
    if root.tag in ("graphs", "graph"):
        raise source.error(
            "is a graph file (the rings and trees that NCCL chose, NCCL_GRAPH_DUMP_FILE), not a topology; "
            "NCCL_TOPO_DUMP_FILE writes one",
            root.line,
        )
    if root.tag != "system":
        raise source.error(f"expected the root element <system>, got <{root.tag[:40]}>", root.line)
    return _Reader(source, arch).read(root)


class _Reader:
    """Walks one file."""

    def __init__(self, source: Source, arch: str) -> None:
        self.source, self.arch = source, arch
        self.draft = Draft(re.split(r"[/\\]", source.name)[-1].removesuffix(".xml") or "machine")
        self.gpus: list[_Gpu] = []
        self.hosts: dict[str, int] = {}
        self.skeleton = False

    def read(self, root: Element) -> Topology:
        self.skeleton = not any(e.tag == "gpu" for e in root.walk())
        cpus = [e for e in root.children if e.tag == "cpu"]
        if not cpus:
            raise self.source.error("has no <cpu> element", root.line)
        trees = [(cpu, self._cpu(cpu)) for cpu in cpus]
        nodes = [(name, [self._pci(e, name, server) for e in cpu.all("pci")], cpu) for cpu, (name, server) in trees]
        if not self.gpus:
            raise self.source.error(
                "lists no GPU: a skeleton of the PCIe tree for NCCL_TOPO_FILE, from which the links between GPUs cannot be "
                "told; dump the whole topology with NCCL_TOPO_DUMP_FILE",
                root.line,
            )
        order = self._name_gpus()
        for name, pci, cpu in nodes:
            server = self.draft.switches[name].server
            for node in pci:
                if node is not None:
                    self.draft.hang(name, flatten_broadcom(node), server, port="")  # host bridges are not in the file
            for nic in cpu.all("nic"):
                self._virtual_nic(nic, name, server)
        self._fast_links()
        if not self.draft.join_cpus():
            self.source.note("a CPU of a make that NCCL has no rate for: between CPUs 6 GB/s are planned")
        return self.draft.build(order, self.source.notes)

    # -- CPUs and PCIe ------------------------------------------------------------------------------------------

    def _cpu(self, element: Element) -> tuple[str, int]:
        host = element.get("host_hash")
        server = self.hosts.setdefault(host, len(self.hosts))
        numa = self._number(element, "numaid", 0)
        name = f"cpu{numa}" if server == 0 else f"s{server}.cpu{numa}"
        vendor = element.get("vendor")
        model = cpu_model(vendor, self._number(element, "familyid", 0), self._number(element, "modelid", 0))
        if not element.get("arch"):
            self.source.note("the CPU's make is not in the file", element.line)
        if name in self.draft.switches:
            self.source.note(f"NUMA node {numa} is listed twice; taken as one", element.line)
        else:
            self.draft.add_switch(Switch(name, "cpu", server=server, arch=element.get("arch"), vendor=vendor, model=model))
        return name, server

    def _pci(self, element: Element, cpu: str, server: int) -> PciNode | None:
        """The tree below a <pci>; None for what is neither bridge nor GPU nor NIC."""
        bus_id = self._bus_id(element)
        speed = element.get("link_speed")
        generation = pcie_generation(speed)
        signature = tuple(element.get(part) for part in ("vendor", "device", "subsystem_vendor", "subsystem_device"))
        node = PciNode(_short(bus_id), "bridge", generation, self._number(element, "link_width", 16), [], signature)
        kind = element.get("class")
        gpus, nics = element.all("gpu"), element.all("nic")
        if gpus or (self.skeleton and kind.startswith(_GPU_CLASSES) and element.get("vendor") in ("", "0x10de", "0x1002")):
            if generation is None:
                self.source.note("the PCIe speed is not in the file: counted as generation 3, as NCCL does", element.line)
            return self._gpu_node(element, gpus, node, bus_id, cpu, server)
        node.children = [child for e in element.all("pci") if (child := self._pci(e, cpu, server)) is not None]
        node.children += [self._nic(nic, node, server) for nic in nics if node.children]
        if nics and not node.children:
            return self._nic(nics[0], node, server)
        if not node.children and self.skeleton and kind.startswith("0x02"):
            node.kind, node.name = "nic", self.draft.add_switch(Switch(f"nic-{node.name}", "nic", server=server))
        return node if node.leaves() else None

    def _gpu_node(self, element: Element, gpus: list[Element], node: PciNode, bus_id: str, cpu: str, server: int) -> PciNode | None:
        if len(gpus) > 1:
            self.source.note(f"{len(gpus)} GPUs at one bus id (partitions of one GPU): the first is taken", gpus[1].line)
        gpu = gpus[0] if gpus else element
        arch = self._arch(gpu, element)
        dev = self._number(gpu, "dev", -1) if gpus else -1
        if gpus and dev < 0:
            raise self.source.error("a GPU without the number that the driver gives it (dev)", gpu.line)
        at_cpu = any(e.tag == "c2c" or (e.tag == "nvlink" and e.get("tclass").startswith(_CPU)) for e in gpu.children)
        node.kind = "gpu"
        if len(self.gpus) >= MOST_GPUS:
            raise self.source.error(f"lists more than {MOST_GPUS} GPUs", gpu.line)
        self.gpus.append(_Gpu(gpu, bus_id, dev, self._number(gpu, "rank", -1) if gpus else -1, arch, cpu, server, node))
        return None if at_cpu else node  # data goes over NVLink to that CPU, PCIe only configures such a GPU

    def _arch(self, gpu: Element, pci: Element) -> str:
        gcn = gpu.get("gcn").split(":")[0]
        if gcn:
            gcn = {"910": "90a", "940": "942"}.get(gcn, gcn)
            return gcn if gcn.startswith("gfx") else f"gfx{gcn}"
        sm = self._number(gpu, "sm", 0)
        if sm:
            return f"sm_{sm}"
        if pci.get("vendor") == "0x10de":
            return arch_of_nvidia_device(pci.get("device")) or self.arch
        return self.arch

    def _nic(self, nic: Element, node: PciNode, server: int) -> PciNode:
        nets = nic.all("net")
        name = nets[0].get("name") if nets and nets[0].get("name") else f"nic-{node.name}"
        speed = sum(self._number(net, "speed", 0) for net in nets)
        model = f"{speed / 8000:g} GB/s" if speed else ""
        vertex = self.draft.add_switch(Switch(name, "nic", server=server, model=model))
        return PciNode(vertex, "nic", node.generation, node.width)

    def _virtual_nic(self, nic: Element, cpu: str, server: int) -> None:
        """A NIC without a place in the PCIe tree, at the CPU."""
        for net in nic.all("net"):
            speed = self._number(net, "speed", 0)
            if speed > 0:
                vertex = self.draft.add_switch(Switch(net.get("name") or "nic", "nic", server=server))
                self.draft.wire(vertex, cpu, "NIC", Fraction(speed, 8000), NIC_LATENCY_US)

    # -- GPUs ---------------------------------------------------------------------------------------------------

    def _name_gpus(self) -> list[str]:
        """Names by the driver's numbers; the order of ranks where the file has it for all, else of the numbers."""
        if self.skeleton:
            self.source.note("GPUs have no numbers in the file: counted in its order; their NVLinks are not in it either")
            for i, gpu in enumerate(self.gpus):
                gpu.dev = i
        numbers = Counter((gpu.server, gpu.dev) for gpu in self.gpus)
        twice = [gpu for gpu in self.gpus if numbers[gpu.server, gpu.dev] > 1]
        if twice:
            self.source.note(f"GPU number {twice[0].dev} occurs more than once: counted in the file's order", twice[0].element.line)
        span = 1 + max(gpu.dev for gpu in self.gpus)
        for i, gpu in enumerate(self.gpus):
            index = i if twice or span > 100_000 else gpu.dev + gpu.server * span
            name = f"gpu{index}"
            gpu.name = gpu.node.name = name
            self.draft.add_device(
                Device(name, index=GpuIndex(index), arch=gpu.arch, bus_id=PciBusId(gpu.bus_id), server=gpu.server)
            )
        ranks = [gpu.rank for gpu in self.gpus]
        by_rank = len(set(ranks)) == len(ranks) and min(ranks) >= 0
        return [g.name for g in sorted(self.gpus, key=lambda g: (g.rank if by_rank else 0, self.draft.devices[g.name].index or 0))]


    def _fast_links(self) -> None:
        """NVLink, xGMI and C2C of every GPU, once all are known."""
        known = {(gpu.server, gpu.bus_id): gpu for gpu in self.gpus}
        if len(known) < len(self.gpus):
            self.source.note("two GPUs have one bus id: links to it are left out")
        for gpu in self.gpus:
            for link in gpu.element.children:
                if link.tag in ("nvlink", "xgmi"):
                    self._fast_link(gpu, link, known)
                elif link.tag == "c2c":
                    bw, count = self._number(link, "bw", 0), self._number(link, "count", 0)
                    gpu.c2c_gb_s += Fraction(max(0, bw) * max(0, count), 1000)
            self._check_count(gpu)
        self._wire_direct(known)
        self._wire_switched()

    def _fast_link(self, gpu: _Gpu, link: Element, known: dict[tuple[int, str], _Gpu]) -> None:
        count = self._number(link, "count", 0)
        if not 0 < count <= 1000:
            self.source.note(f"{gpu.name}: a link count of {link.get('count')[:20]!r} means nothing; treated as absent", link.line)
            return
        target, tclass = link.get("target"), link.get("tclass")
        try:
            bus_id = str(PciBusId(target))
        except TopologyError:
            bus_id = ""  # NCCL writes fffffff:ffff:ff for an NVSwitch that a virtual machine does not show
        kind = "XGMI" if link.tag == "xgmi" else "NVLINK"
        peer = known.get((gpu.server, bus_id))
        if tclass.startswith(_CPU):
            gpu.to_cpu += count
        elif kind == "NVLINK" and (tclass.startswith(_NVSWITCH) or (peer is None and not tclass.startswith(_GPU_CLASSES))):
            gpu.switched += count
            gpu.planes.add(target)
        elif peer is None:
            self.source.note(f"{gpu.name} lists {count} links to {target[:20]}, which is not a visible device; treated as absent", link.line)
        elif peer is gpu:
            self.source.note(f"{gpu.name} lists {count} links to itself; treated as absent", link.line)
        else:
            gpu.direct[bus_id, kind] += count
            gpu.lines[bus_id, kind] = link.line

    def _check_count(self, gpu: _Gpu) -> None:
        """No GPU has more NVLinks than its generation: what says so is cut to what is certain."""
        most = most_nvlinks(gpu.arch)
        total = gpu.switched + gpu.to_cpu + sum(n for (_, kind), n in gpu.direct.items() if kind == "NVLINK")
        if total <= most:
            return
        line = gpu.element.line
        what = f"{gpu.name} lists {total} NVLinks, a {gpu.arch or 'GPU'} has {most}"
        if gpu.switched == total:
            self.source.note(f"{what}; all go to switches, so {most} to the NVSwitches are kept", line)
            gpu.switched = most
        else:
            self.source.note(f"{what}; which of them exist cannot be told, so none is kept", line)
            gpu.direct = Counter({key: n for key, n in gpu.direct.items() if key[1] != "NVLINK"})
            gpu.switched = gpu.to_cpu = 0

    def _wire_direct(self, known: dict[tuple[int, str], _Gpu]) -> None:
        """Links between two GPUs, as many as both list."""
        for gpu in self.gpus:
            for (bus_id, kind), count in gpu.direct.items():
                peer = known[gpu.server, bus_id]
                back = peer.direct[gpu.bus_id, kind]
                if back != count:
                    self.source.note(
                        f"{gpu.name} lists {count} links to {peer.name}, which lists {back}; {min(count, back)} are kept",
                        gpu.lines[bus_id, kind],
                    )
                lanes = min(count, back)
                if lanes and self.gpus.index(gpu) < self.gpus.index(peer):
                    if kind == "NVLINK":
                        self.draft.wire_nvlinks(gpu.name, peer.name, lanes, gpu.arch)
                    else:
                        self.draft.wire(gpu.name, peer.name, kind, xgmi_rate(gpu.arch) * lanes, XGMI_LATENCY_US, lanes)

    def _wire_switched(self) -> None:
        """Links to the NVSwitches (one vertex) and to CPUs."""
        behind = [gpu for gpu in self.gpus if gpu.switched]
        if behind:
            planes = max(len(gpu.planes) for gpu in behind)
            server = BETWEEN_SERVERS if len({gpu.server for gpu in behind}) > 1 else behind[0].server
            switch = self.draft.add_nvswitch(behind[0].arch, planes, server)
            for gpu in behind:
                self.draft.wire_nvlinks(gpu.name, switch, gpu.switched, gpu.arch)
            for gpu in self.gpus:
                if gpu.arch == behind[0].arch and not (gpu.switched or gpu.direct):
                    self.source.note(f"{gpu.name} has no NVLink, which {len(behind)} others of its kind have", gpu.element.line)
        for gpu in self.gpus:
            if gpu.to_cpu:
                rate = nvlink_rate(gpu.arch)
                self.draft.wire(gpu.name, gpu.cpu, "CPU", rate.lane_gb_s * gpu.to_cpu, CPU_LATENCY_US, gpu.to_cpu, rate.generation)
            if gpu.c2c_gb_s:
                self.draft.wire(gpu.name, gpu.cpu, "CPU", gpu.c2c_gb_s, CPU_LATENCY_US)

    # -- attributes ---------------------------------------------------------------------------------------------

    def _number(self, element: Element, name: str, default: int) -> int:
        """An integer attribute; what is no number is noted and counts as absent."""
        text = element.get(name)
        if not text:
            return default
        if re.fullmatch(r"[+-]?[0-9]{1,12}", text):
            return int(text)
        self.source.note(f"{name}={text[:40]!r} is not a number; treated as absent", element.line)
        return default

    def _bus_id(self, element: Element) -> str:
        try:
            return str(PciBusId(element.get("busid")))
        except TopologyError as error:
            raise self.source.error(f"<pci>: {error}", element.line) from None


def _short(bus_id: str) -> str:
    return bus_id.removeprefix("0000:")
