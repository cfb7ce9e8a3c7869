"""What Linux shows of PCIe devices: the bridges above each, link speeds, NUMA nodes, RDMA NICs; and the CPU's make."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from .draft import Draft, PciNode, flatten_broadcom, merge_ports
from .model import PciBusId, Switch
from .rates import cpu_model, pcie_generation
from .source import Source

_BUS_ID = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class Sysfs:
    """Reads below one root (``/sys``) and one ``cpuinfo``."""

    def __init__(self, root: Path, cpuinfo: Path) -> None:
        self.root, self.cpuinfo = root, cpuinfo

    def has(self, bus_ids: list[PciBusId]) -> bool:
        """Whether all of these devices are shown."""
        return bool(bus_ids) and all(self._device(b).exists() for b in bus_ids)

    def pci_class(self, bus_id: str) -> str:
        """The class of a device (``0x068000``), "" where it is not shown."""
        return self._read(self.root / "bus/pci/devices" / bus_id / "class")

    def _device(self, bus_id: str) -> Path:
        return self.root / "bus/pci/devices" / bus_id

    @staticmethod
    def _read(path: Path) -> str:
        try:
            return path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return ""

    def numa_node(self, bus_id: str) -> int:
        """The NUMA node of a device; 0 where the kernel knows none."""
        text = self._read(self._device(bus_id) / "numa_node")
        return max(0, int(text)) if re.fullmatch(r"-?[0-9]{1,5}", text) else 0

    def cpu_of(self, draft: Draft, bus_id: str) -> str:
        """The vertex of the NUMA node of a device, added where it is new."""
        name = f"cpu{self.numa_node(bus_id)}"
        if name not in draft.switches:
            arch, vendor, model = self.cpu()
            draft.add_switch(Switch(name, "cpu", arch=arch, vendor=vendor, model=model))
        return name

    def cpu(self) -> tuple[str, str, str]:
        """The processor's architecture, vendor and model, as the table of interconnects names them."""
        text = self._read(self.cpuinfo)[:100_000]
        found = {key: re.search(rf"^{key}\s*:\s*(.*?)\s*$", text, re.MULTILINE) for key in ("vendor_id", "cpu family", "model", "cpu")}
        value = {key: match.group(1) if match else "" for key, match in found.items()}
        if value["cpu"].startswith("POWER"):
            return "ppc64le", "IBM", value["cpu"].split(",")[0].split(" ")[0]
        if "CPU implementer" in text:
            return "aarch64", "ARM", ""
        vendor = value["vendor_id"]
        family, model = (int(value[key]) if value[key].isdigit() else 0 for key in ("cpu family", "model"))
        return ("x86_64" if vendor else platform.machine()), vendor, cpu_model(vendor, family, model)

    # -- the tree -----------------------------------------------------------------------------------------------

    def hang(self, draft: Draft, gpus: dict[str, PciBusId], rates: dict[str, tuple[int | None, int]], source: Source) -> None:
        """The tree above the GPUs and the RDMA NICs of the machine, under their NUMA nodes."""
        roots: dict[tuple[str, str], PciNode] = {}  # (host bridge, bus id) -> tree
        home: dict[tuple[str, str], str] = {}
        leaves = [(name, str(bus_id), "gpu") for name, bus_id in gpus.items()]
        leaves += [(name, bus_id, "nic") for name, bus_id in sorted(self._nics().items())]
        for name, bus_id, kind in leaves:
            bridge, way = self._way(bus_id)
            if not way:
                source.note(f"{name} ({bus_id}) is not in the PCIe tree of sysfs: left at its NUMA node")
                way = [bus_id]
            generation, width = rates[name] if kind == "gpu" else self._link(bus_id)
            if kind == "nic":
                name = draft.add_switch(Switch(name, "nic"))
            leaf = PciNode(name, kind, generation, width)
            cpu = self.cpu_of(draft, bus_id)
            if len(way) == 1:
                draft.hang(cpu, leaf, port=bridge)
                continue
            node = roots.setdefault((bridge, way[0]), self._bridge(way[0]))
            home.setdefault((bridge, way[0]), cpu)
            for step in way[1:-1]:
                below = next((child for child in node.children if child.name == step and child.kind == "bridge"), None)
                if below is None:
                    below = self._bridge(step)
                    node.children.append(below)
                node = below
            node.children.append(leaf)
        for (bridge, first), root in roots.items():
            draft.hang(home[bridge, first], flatten_broadcom(merge_ports(root)), port=bridge)

    def _way(self, bus_id: str) -> tuple[str, list[str]]:
        """The host bridge and the bus ids from its root port down to the device."""
        parts = self._device(bus_id).resolve().parts
        bridge = next((part for part in parts if re.fullmatch(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}", part)), "")
        return bridge, [part for part in parts[parts.index(bridge) + 1 :] if _BUS_ID.fullmatch(part)] if bridge else []

    def _bridge(self, bus_id: str) -> PciNode:
        device = self._device(bus_id)
        generation, width = self._link(bus_id)
        signature = tuple(self._read(device / part) for part in ("vendor", "device", "subsystem_vendor", "subsystem_device"))
        return PciNode(bus_id, "bridge", generation, width, [], signature)

    def _link(self, bus_id: str) -> tuple[int | None, int]:
        device = self._device(bus_id)
        width = self._read(device / "max_link_width")
        return pcie_generation(self._read(device / "max_link_speed")), int(width) if re.fullmatch(r"[0-9]{1,2}", width) else 16

    def _nics(self) -> dict[str, str]:
        """RDMA NICs by name, physical functions only."""
        found: dict[str, str] = {}
        folder = self.root / "class/infiniband"
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            device = (entry / "device").resolve()
            if _BUS_ID.fullmatch(device.name) and not (device / "physfn").exists():
                found[entry.name] = device.name
        return found
