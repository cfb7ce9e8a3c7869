"""A machine to probe that is not there: NVML's functions and a sysfs, both made from a layout."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from blinkcoll.topology import Topology, pcie_tree

NVML_ERROR_INVALID_ARGUMENT, NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_GPU_IS_LOST, NVML_ERROR_UNKNOWN = 2, 3, 15, 999
NVML_ERROR_LIBRARY_NOT_FOUND = 12
_MODELS = {"Broadwell": 79, "Skylake": 85, "Sapphire Rapids": 143, "Emerald Rapids": 207}


class NVMLError(Exception):
    def __init__(self, value):
        super().__init__({15: "GPU is lost", 999: "Unknown Error", 3: "Not Supported", 12: "NVML Shared Library Not Found"}.get(value, f"error {value}"))
        self.value = value


@dataclass
class FakeNvml:
    """NVML as ``pynvml`` shows it. Change ``lost``, ``down``, ``broken`` and ``refused`` to damage it."""

    topology: Topology
    seed: int = 0
    lost: set[int] = field(default_factory=set)
    down: set[tuple[int, int]] = field(default_factory=set)
    broken: set[tuple[int, int]] = field(default_factory=set)
    refused: set[tuple[int, int]] = field(default_factory=set)
    mig: set[int] = field(default_factory=set)
    missing_driver: bool = False

    NVML_ERROR_INVALID_ARGUMENT = NVML_ERROR_INVALID_ARGUMENT
    NVML_ERROR_NOT_SUPPORTED = NVML_ERROR_NOT_SUPPORTED
    NVML_P2P_CAPS_INDEX_READ, NVML_P2P_CAPS_INDEX_WRITE = 0, 1
    NVML_FI_DEV_C2C_LINK_COUNT, NVML_FI_DEV_C2C_LINK_GET_STATUS, NVML_FI_DEV_C2C_LINK_GET_MAX_BW = 170, 171, 172
    NVMLError = NVMLError

    def __post_init__(self):
        t = self.topology
        order = list(t.devices)
        self.gpus = order
        self.buses = {d.name: f"00000000:{16 + i:02X}:00.0" for i, d in enumerate(order)}
        self.uuids = {d.name: f"GPU-{i:08x}-1111-2222-3333-444455556666" for i, d in enumerate(order)}
        self.links = {d.name: self._links(d.name) for d in order}
        rng = random.Random(self.seed)
        for links in self.links.values():
            rng.shuffle(links)
        for i, j in t.no_peer_access:
            self.refused.add((order.index(t.device(i)), order.index(t.device(j))))

    def _links(self, name):
        """(bus id of the other end, kind of device) for every NVLink of a GPU."""
        found = []
        kinds = {s.name: s for s in self.topology.switches}
        for k in self.topology.links:
            if k.src != name:
                continue
            if k.kind == "NVLINK" and k.dst in kinds:
                planes = kinds[k.dst].planes
                found += [(f"00000000:C{i % planes:X}:00.0", 2) for i in range(k.lanes)]
            elif k.kind == "NVLINK":
                found += [(self.buses[k.dst], 0)] * k.lanes
            elif k.kind == "CPU" and k.lanes > 1:
                found += [("00000004:00:00.0", 1)] * k.lanes
        return found

    # -- the functions of pynvml ----------------------------------------------------------------------------------

    def nvmlInit(self):
        if self.missing_driver:
            raise NVMLError(NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlShutdown(self):
        pass

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        if index in self.lost:
            raise NVMLError(NVML_ERROR_GPU_IS_LOST)
        return index

    def nvmlDeviceGetPciInfo(self, handle):
        return SimpleNamespace(busId=self.buses[self.gpus[handle].name].encode())

    def nvmlDeviceGetUUID(self, handle):
        return self.uuids[self.gpus[handle].name]

    def nvmlDeviceGetName(self, handle):
        return self.gpus[handle].model

    def nvmlDeviceGetCudaComputeCapability(self, handle):
        number = int(self.gpus[handle].arch.removeprefix("sm_"))
        return number // 10, number % 10

    def nvmlDeviceGetMigMode(self, handle):
        return (1, 1) if handle in self.mig else (0, 0)

    def nvmlDeviceGetNvLinkState(self, handle, link):
        links = self.links[self.gpus[handle].name]
        if not links:
            raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
        if link >= len(links):
            raise NVMLError(NVML_ERROR_INVALID_ARGUMENT)
        if (handle, link) in self.broken:
            raise NVMLError(NVML_ERROR_UNKNOWN)
        return 0 if (handle, link) in self.down else 1

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle, link):
        return SimpleNamespace(busId=self.links[self.gpus[handle].name][link][0].encode())

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle, link):
        return self.links[self.gpus[handle].name][link][1]

    def nvmlDeviceGetP2PStatus(self, a, b, index):
        return 2 if (a, b) in self.refused else 0

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle):
        return self._pcie(handle).generation

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle):
        return self._pcie(handle).lanes

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle):
        return self._pcie(handle).lanes

    def _pcie(self, handle):
        found = next((k for k in self.topology.links if k.src == self.gpus[handle].name and k.kind == "PCIE"), None)
        return found or SimpleNamespace(generation=3, lanes=16)

    def nvmlDeviceGetTopologyCommonAncestor(self, a, b):
        from blinkcoll.topology import pcie_distance

        level = pcie_distance(self.topology, self.gpus[a].name, self.gpus[b].name)
        return {"PIX": 10, "PXB": 20, "PHB": 30, "NODE": 40, "SYS": 50}[level]

    def nvmlDeviceGetFieldValues(self, handle, ids):
        c2c = next((k.capacity for k in self.topology.links if k.src == self.gpus[handle].name and k.kind == "CPU" and k.lanes == 1), None)
        if c2c is None:
            raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
        answers = {170: 5, 171: 1, 172: int(c2c * 1000) // 5}
        numbers = [i[0] if isinstance(i, tuple) else i for i in ids]
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=answers[n])) for n in numbers]


def write_sysfs(fake: FakeNvml, root: Path) -> tuple[Path, Path]:
    """A ``/sys`` and a ``cpuinfo`` that show the layout's PCIe tree; each switch has an upstream and downstream ports."""
    topology = fake.topology
    tree = pcie_tree(topology)
    cpus = [s for s in topology.switches if s.kind == "cpu"]
    numbers = iter(range(1, 100_000))
    speed = {3: "8.0 GT/s PCIe", 4: "16.0 GT/s PCIe", 5: "32.0 GT/s PCIe"}
    (root / "bus/pci/devices").mkdir(parents=True)
    (root / "class/infiniband").mkdir(parents=True)

    def device(folder, bus_id, link, node, kind):
        place = folder / bus_id
        place.mkdir(parents=True)
        (place / "class").write_text(kind + "\n")
        (place / "numa_node").write_text(f"{node}\n")
        (place / "max_link_speed").write_text(speed.get(link.generation, "Unknown") + "\n")
        (place / "max_link_width").write_text(f"{link.lanes}\n")
        (root / "bus/pci/devices" / bus_id).symlink_to(place)
        return place

    def port(folder, link, node):
        number = next(numbers)
        return device(folder, f"0000:{0x60 + number // 32:02x}:{number % 32:02x}.0", link, node, "0x060400")

    def below(vertex, folder, node):
        for child in tree.children(vertex):
            link = tree.up[child]
            if link.kind != "PCIE" and child not in fake.buses:
                continue
            bridge = folder
            if vertex in {c.name for c in cpus}:  # each port of a CPU is a host bridge of its own
                bridge = bridges.setdefault((vertex, link.port), root / f"devices/pci0000:{len(bridges):02x}")
            hung = port(bridge, link, node)
            if link.port and vertex not in {c.name for c in cpus} and not tree.children(child):
                hung = port(port(hung, link, node), link, node)  # another switch with this one device: PXB
            if any(s.name == child and s.kind == "pcie" for s in topology.switches):
                below(child, port(hung, link, node), node)
            elif child in fake.buses:
                device(hung, fake.buses[child].lower().removeprefix("0000"), link, node, "0x030200")
            else:
                number = next(numbers)
                nic = device(hung, f"0001:{number // 32:02x}:{number % 32:02x}.0", link, node, "0x020700")
                (root / "class/infiniband" / child).mkdir()
                (root / "class/infiniband" / child / "device").symlink_to(nic)

    bridges = {}
    for i, cpu in enumerate(cpus):
        below(cpu.name, root, i)
    cpuinfo = root / "cpuinfo"
    first = cpus[0]
    if first.arch == "ppc64le":
        cpuinfo.write_text("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n")
    elif first.arch == "aarch64":
        cpuinfo.write_text("processor\t: 0\nCPU implementer\t: 0x41\n")
    else:
        model = _MODELS.get(first.model, 49)
        cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: {first.vendor}\ncpu family\t: 6\nmodel\t\t: {model}\nmodel name\t: x\n")
    return root, cpuinfo
