"""The machine this runs on, through NVML (``nvidia-ml-py``) and Linux's sysfs.

NVML gives GPUs, NVLinks with what is at their other ends, and per pair whether the driver allows peer access; sysfs gives
the PCIe tree, NUMA nodes and NICs, /proc/cpuinfo the CPU. Where there is no sysfs NVML's common ancestors stand in. The
same planning rates as for files (:mod:`.rates`) are put on the links. Errors of single links or GPUs are noted and that
part is left out; what makes the whole answer wrong (no driver, MIG) is an error.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from ..errors import TopologyError
from .draft import Draft
from .model import Device, GpuIndex, PciBusId, Topology, Uuid
from .pcie_matrix import PcieMatrix
from .rates import CPU_LATENCY_US, MOST_NVLINKS, nvlink_rate
from .source import Source
from .sysfs import Sysfs

#: What the command line adds where there is no driver.
WITHOUT = "without one, layouts (blinkcoll topo list), files (blinkcoll probe --from) and simulation work"

_P2P_STATUS = {
    1: "the chipset does not support it", 2: "the GPU does not support it", 3: "the topology of its links does not support it",
    4: "it is disabled in the registry", 5: "it is not supported", 6: "unknown",
}  # fmt: skip
_ANCESTORS = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
_SWITCH, _NPU = 2, 1


@dataclass
class _Gpu:
    """One GPU as NVML shows it."""

    handle: Any
    device: Device
    peers: Counter[str] = field(default_factory=Counter)  # bus id -> NVLinks
    switched: int = 0
    planes: set[str] = field(default_factory=set)
    to_cpu: int = 0
    c2c_gb_s: Fraction = Fraction(0)
    down: list[int] = field(default_factory=list)

    @property
    def links(self) -> int:
        """NVLinks that are up."""
        return sum(self.peers.values()) + self.switched + self.to_cpu


def probe(
    nvml: Any = None, sysfs: Path = Path("/sys"), cpuinfo: Path = Path("/proc/cpuinfo"), environ: Mapping[str, str] | None = None
) -> Topology:
    """The topology of this machine: the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, ranks in its order.

    Parameters
    ----------
    nvml
        A module with the functions of ``pynvml``; that module itself by default.
    sysfs, cpuinfo
        Where the kernel shows devices and CPUs.
    environ
        The environment; this process's own by default.

    Raises
    ------
    TopologyError
        Where there is no driver or no GPU, a visible GPU is split by MIG, or ``CUDA_VISIBLE_DEVICES`` names none there is.
    """
    nvml = nvml or _import_nvml()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise TopologyError(f"no NVIDIA driver answers here ({error}); {WITHOUT}") from None
    try:
        return _Probe(nvml, Sysfs(sysfs, cpuinfo), os.environ if environ is None else environ).read()
    except nvml.NVMLError as error:
        raise TopologyError(f"the NVIDIA driver stopped answering: {error}") from None
    finally:
        _quietly(nvml, nvml.nvmlShutdown)


def _import_nvml() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        raise TopologyError(f"probing needs nvidia-ml-py (pip install nvidia-ml-py) and an NVIDIA driver; {WITHOUT}") from None


def _quietly(nvml: Any, call: Callable[..., Any], *arguments: Any) -> Any:
    """The answer of a call, None where NVML refuses it."""
    try:
        return call(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


class _Probe:
    """One run."""

    def __init__(self, nvml: Any, sysfs: Sysfs, environ: Mapping[str, str]) -> None:
        self.nvml, self.sysfs, self.environ = nvml, sysfs, environ
        self.source = Source("probe", "")
        self.draft = Draft(platform.node() or "this machine")
        self.gpus: dict[str, _Gpu] = {}  # by name

    def read(self) -> Topology:
        self._find_gpus()
        visible = self._visible()
        for name in visible or self.gpus:
            self._refuse_mig(self.gpus[name])
        for gpu in self.gpus.values():
            self._nvlinks(gpu)
            self._c2c(gpu)
        self._down()
        refused = self._peer_access()
        self._pcie()
        self._wire(refused)
        topology = self.draft.build(None, self.source.notes)
        return topology if visible is None else topology.subset(visible)

    # -- GPUs ---------------------------------------------------------------------------------------------------

    def _find_gpus(self) -> None:
        nvml = self.nvml
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                bus_id = PciBusId(_text(nvml.nvmlDeviceGetPciInfo(handle).busId))
                major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
            except nvml.NVMLError as error:
                self.source.note(f"GPU {index} does not answer ({error}): left out")
                continue
            uuid = _quietly(nvml, nvml.nvmlDeviceGetUUID, handle)
            model = _quietly(nvml, nvml.nvmlDeviceGetName, handle)
            device = Device(
                f"gpu{index}", index=GpuIndex(index), arch=f"sm_{major}{minor}", bus_id=bus_id,
                uuid=Uuid(_text(uuid)) if uuid else None, model=_text(model) if model else "",
            )  # fmt: skip
            self.draft.add_device(device)
            self.gpus[device.name] = _Gpu(handle, device)
        if not self.gpus:
            raise TopologyError(f"the NVIDIA driver shows no GPU that answers{self._because()}; {WITHOUT}")

    def _because(self) -> str:
        return f" ({self.source.notes[0]})" if self.source.notes else ""

    def _visible(self) -> list[str] | None:
        """The names that ``CUDA_VISIBLE_DEVICES`` lists, in its order; None where it is not set.

        As CUDA reads it: numbers or the beginnings of UUIDs, up to the first that means no GPU.
        """
        value = self.environ.get("CUDA_VISIBLE_DEVICES")
        if value is None:
            return None
        models = {gpu.device.model for gpu in self.gpus.values()}
        if len(models) > 1 and self.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and re.search(r"(^|,)\s*[0-9]", value):
            self.source.note("GPUs of different models: numbers in CUDA_VISIBLE_DEVICES are the driver's only with CUDA_DEVICE_ORDER=PCI_BUS_ID")
        found: list[str] = []
        for word in (part.strip() for part in value.split(",")):
            if word.startswith("MIG-"):
                raise TopologyError(f"CUDA_VISIBLE_DEVICES names {word}, a part of a GPU split by MIG: such parts have no links to others")
            name = self._named(word)
            if name is None or name in found:
                self.source.note(f"CUDA_VISIBLE_DEVICES={value}: {word!r} means no further GPU, so CUDA sees none from there on")
                break
            found.append(name)
        if not found:
            raise TopologyError(f"CUDA_VISIBLE_DEVICES={value!r} leaves no GPU of the {len(self.gpus)} there are")
        return found

    def _named(self, word: str) -> str | None:
        if re.fullmatch(r"[0-9]{1,6}", word):
            return next((n for n, g in self.gpus.items() if g.device.index == int(word)), None)
        if not word.startswith("GPU-"):
            return None
        fits = [n for n, g in self.gpus.items() if g.device.uuid and g.device.uuid.lower().startswith(word.lower())]
        return fits[0] if len(fits) == 1 else None

    def _refuse_mig(self, gpu: _Gpu) -> None:
        mode = _quietly(self.nvml, self.nvml.nvmlDeviceGetMigMode, gpu.handle)
        if mode and mode[0] == 1:
            raise TopologyError(
                f"{gpu.device.name} ({gpu.device.uuid or gpu.device.bus_id}) is split by MIG: its parts have no links to other GPUs. "
                "Switch MIG off (nvidia-smi -mig 0) or leave this GPU out with CUDA_VISIBLE_DEVICES"
            )

    # -- NVLink -------------------------------------------------------------------------------------------------

    def _nvlinks(self, gpu: _Gpu) -> None:
        nvml = self.nvml
        by_bus = {str(g.device.bus_id): g for g in self.gpus.values()}
        for link in range(MOST_NVLINKS):
            try:
                if not nvml.nvmlDeviceGetNvLinkState(gpu.handle, link):
                    gpu.down.append(link)
                    continue
                remote = _text(nvml.nvmlDeviceGetNvLinkRemotePciInfo(gpu.handle, link).busId).strip("\0")
            except nvml.NVMLError as error:
                if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT):
                    break  # no such link on this GPU
                self.source.note(f"{gpu.device.name}: NVLink {link} does not answer ({error}): left out")
                continue
            kind = _quietly(nvml, nvml.nvmlDeviceGetNvLinkRemoteDeviceType, gpu.handle, link)
            try:
                bus_id = str(PciBusId(remote))
            except TopologyError:
                bus_id = remote
            if kind == _NPU:
                gpu.to_cpu += 1
            elif bus_id in by_bus and by_bus[bus_id] is not gpu:
                gpu.peers[bus_id] += 1
            elif kind == _SWITCH or (kind is None and self.sysfs.pci_class(bus_id) in ("", "0x068000")):
                gpu.switched += 1
                gpu.planes.add(bus_id)
            else:
                self.source.note(f"{gpu.device.name}: NVLink {link} leads to {bus_id}, which is not a visible device; treated as absent")

    def _c2c(self, gpu: _Gpu) -> None:
        """The links of a Grace superchip between GPU and CPU."""
        nvml = self.nvml
        fields = [getattr(nvml, f"NVML_FI_DEV_C2C_LINK_{name}", None) for name in ("COUNT", "GET_STATUS", "GET_MAX_BW")]
        if None in fields or not hasattr(nvml, "nvmlDeviceGetFieldValues"):
            return
        count = self._fields(gpu, [fields[0]])
        for link in range(min(count[0] or 0, 64) if count else 0):
            up, mb_s = self._fields(gpu, [(f, link) for f in fields[1:]]) or (0, 0)
            if up == 1:
                gpu.c2c_gb_s += Fraction(mb_s or 0, 1000)

    def _fields(self, gpu: _Gpu, ids: list[Any]) -> list[int | None] | None:
        values = _quietly(self.nvml, self.nvml.nvmlDeviceGetFieldValues, gpu.handle, ids)
        return None if values is None else [v.value.uiVal if v.nvmlReturn == 0 else None for v in values]

    def _down(self) -> None:
        """A word where a GPU has fewer links up than another of its kind."""
        best: dict[str, int] = {}
        for gpu in self.gpus.values():
            best[gpu.device.arch] = max(best.get(gpu.device.arch, 0), gpu.links)
        for gpu in self.gpus.values():
            if gpu.down and gpu.links < best[gpu.device.arch]:
                names = ", ".join(map(str, gpu.down))
                self.source.note(f"{gpu.device.name}: NVLink {names} down, {gpu.links} of {best[gpu.device.arch]} left (nvidia-smi nvlink -s; reseat or reset)")

    # -- peer access --------------------------------------------------------------------------------------------

    def _peer_access(self) -> dict[frozenset[str], str]:
        """Pairs that the driver refuses to let read or write each other, with its reason."""
        nvml = self.nvml
        refused: dict[frozenset[str], str] = {}
        for a, b in permutations(self.gpus.values(), 2):
            for way in (nvml.NVML_P2P_CAPS_INDEX_READ, nvml.NVML_P2P_CAPS_INDEX_WRITE):
                status = _quietly(nvml, nvml.nvmlDeviceGetP2PStatus, a.handle, b.handle, way)
                if status not in (0, None):
                    refused.setdefault(frozenset((a.device.name, b.device.name)), _P2P_STATUS.get(status, f"status {status}"))
                    if (a.device.name, b.device.name) not in self.draft.no_peer_access:
                        self.draft.no_peer_access.append((a.device.name, b.device.name))
        pairs = len(self.gpus) * (len(self.gpus) - 1) // 2
        if len(refused) == pairs > 3:
            self.source.note(f"no two GPUs have peer access ({next(iter(refused.values()))}): all goes through host memory")
        else:
            for pair, reason in refused.items():
                a_name, b_name = sorted(pair, key=list(self.gpus).index)
                self.source.note(f"{a_name} and {b_name} have no peer access ({reason}): what they exchange goes through host memory")
        return refused

    # -- links --------------------------------------------------------------------------------------------------

    def _pcie(self) -> None:
        leaves = {name: gpu.device.bus_id for name, gpu in self.gpus.items() if gpu.device.bus_id}
        bare = {name for name, gpu in self.gpus.items() if gpu.to_cpu or gpu.c2c_gb_s}
        rates = {name: self._pcie_rate(gpu) for name, gpu in self.gpus.items()}
        if self.sysfs.has(list(leaves.values())):
            self.sysfs.hang(self.draft, {n: b for n, b in leaves.items() if n not in bare}, rates, self.source)
            for name in bare:
                cpu = self.sysfs.cpu_of(self.draft, leaves[name])
                gpu = self.gpus[name]
                if gpu.c2c_gb_s:
                    self.draft.wire(name, cpu, "CPU", gpu.c2c_gb_s, CPU_LATENCY_US)
                if gpu.to_cpu:
                    rate = nvlink_rate(gpu.device.arch)
                    self.draft.wire(name, cpu, "CPU", rate.lane_gb_s * gpu.to_cpu, CPU_LATENCY_US, gpu.to_cpu, rate.generation)
            if not self.draft.join_cpus():
                self.source.note("a CPU of a make that NCCL has no rate for: between CPUs 6 GB/s are planned")
            return
        self.source.note("no PCIe devices in sysfs: distances are NVML's")
        cells = {}
        for a, b in combinations(self.gpus, 2):
            level = _quietly(self.nvml, self.nvml.nvmlDeviceGetTopologyCommonAncestor, self.gpus[a].handle, self.gpus[b].handle)
            if level in _ANCESTORS:
                cells[frozenset((a, b))] = _ANCESTORS[level]
        generation = min((gen for gen, _ in rates.values() if gen), default=None)
        PcieMatrix(cells, dict.fromkeys(self.gpus, ("", "")), self.source).hang(self.draft, {n: n for n in self.gpus}, generation)

    def _pcie_rate(self, gpu: _Gpu) -> tuple[int | None, int]:
        """Generation (the most the slot allows: an idle link slows down) and lanes (those there are)."""
        nvml = self.nvml
        generation = _quietly(nvml, nvml.nvmlDeviceGetMaxPcieLinkGeneration, gpu.handle)
        width = _quietly(nvml, nvml.nvmlDeviceGetCurrPcieLinkWidth, gpu.handle)
        most = _quietly(nvml, nvml.nvmlDeviceGetMaxPcieLinkWidth, gpu.handle)
        if width and most and width < most:
            self.source.note(f"{gpu.device.name} runs on {width} of its {most} PCIe lanes")
        return generation, width or 16

    def _wire(self, refused: dict[frozenset[str], str]) -> None:
        """NVLinks, as many as both ends show, between pairs with peer access."""
        by_bus = {str(g.device.bus_id): g for g in self.gpus.values()}
        order = list(self.gpus)
        for name, gpu in self.gpus.items():
            for bus_id, count in gpu.peers.items():
                peer = by_bus[bus_id]
                back = peer.peers[str(gpu.device.bus_id)]
                if back != count and (order.index(name) < order.index(peer.device.name) or not back):
                    self.source.note(f"{name} shows {count} NVLinks to {peer.device.name}, which shows {back}: {min(count, back)} are kept")
                if order.index(name) < order.index(peer.device.name) and min(count, back) and frozenset((name, peer.device.name)) not in refused:
                    self.draft.wire_nvlinks(name, peer.device.name, min(count, back), gpu.device.arch)
        behind = [g for g in self.gpus.values() if g.switched]
        cut_off = [g for g in behind if len(behind) > 1 and all(frozenset((g.device.name, o.device.name)) in refused for o in behind if o is not g)]
        for gpu in cut_off:
            self.source.note(f"{gpu.device.name}: its NVLinks lead to NVSwitches but not to any GPU (is the fabric manager running?): not used")
        behind = [g for g in behind if g not in cut_off]
        if behind:
            switch = self.draft.add_nvswitch(behind[0].device.arch, max(len(g.planes) for g in behind))
            for gpu in behind:
                self.draft.wire_nvlinks(gpu.device.name, switch, gpu.switched, gpu.device.arch)
