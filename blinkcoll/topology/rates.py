"""Planning rates of links whose source names a generation but no rate, as NCCL and RCCL plan with them.

Read at: NCCL 2.30.7 ``src/graph/topo.h`` and ``topo.cc`` (``ncclTopoNVLinkBw``, ``kvDictPciGen``,
``ncclTopoGetInterCpuBw``), RCCL 0cbce2a7 ``src/graph/topo.h`` (``ncclTopoXGMISpeed``). GB/s one way throughout.
Latencies are one way and without any protocol: NCCL 2.30.7 ``src/graph/tuning.cc``, ``hwLatencies`` of LL, whose flag
travels with the data (NVLINK 0.6 us and PCI 1.0 us a path, NET 2.7 us a path).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class NvlinkRate:
    """What one NVLink of a GPU generation plans with, and how many a GPU of it can have."""

    lane_gb_s: Fraction
    generation: int
    most_lanes: int


#: By compute capability, from the newest down; the first that is not above the GPU's own holds (sm_86 only for itself).
_NVLINK = (
    (100, NvlinkRate(Fraction(401, 10), 5, 18)),
    (90, NvlinkRate(Fraction(103, 5), 4, 18)),
    (80, NvlinkRate(Fraction(20), 3, 12)),
    (70, NvlinkRate(Fraction(20), 2, 6)),
    (60, NvlinkRate(Fraction(18), 1, 4)),
)
_SM86 = NvlinkRate(Fraction(12), 3, 4)
#: NVLinks a GPU of an unknown generation can have at most.
MOST_NVLINKS = 18

#: 1/80 GB/s a lane: NCCL's table is in units of 100 Mb/s.
_PCIE_LANE = {gen: Fraction(units, 80) for gen, units in {1: 15, 2: 30, 3: 60, 4: 120, 5: 240, 6: 480}.items()}
_PCIE_GT_S = {"2.5": 1, "5": 2, "8": 3, "16": 4, "32": 5, "64": 6}

NVLINK_LATENCY_US = Fraction(3, 5)
#: Half of a path: GPUs behind an NVSwitch are two links apart.
NVSWITCH_LATENCY_US = Fraction(3, 10)
XGMI_LATENCY_US = NVLINK_LATENCY_US
PCIE_LATENCY_US = Fraction(1, 2)
CPU_LATENCY_US = Fraction(1, 2)
NIC_LATENCY_US = Fraction(27, 20)


def nvlink_rate(arch: str) -> NvlinkRate:
    """The rate of one NVLink of GPUs of that architecture (``"sm_70"``); an unknown one counts as sm_80, as in NCCL."""
    match = re.fullmatch(r"sm_([0-9]{2,3})", arch)
    capability = int(match.group(1)) if match else 80
    if capability == 86:
        return _SM86
    return next((rate for least, rate in _NVLINK if capability >= least), _NVLINK[2][1])


def most_nvlinks(arch: str) -> int:
    """The most NVLinks a GPU of that architecture has; of an unknown one, the most that any has."""
    return nvlink_rate(arch).most_lanes if arch.startswith("sm_") else MOST_NVLINKS


def nvls(arch: str) -> bool:
    """Whether the NVSwitches of such GPUs copy and add (NVLink SHARP): from sm_90 on."""
    match = re.fullmatch(r"sm_([0-9]{2,3})", arch)
    return bool(match) and int(match.group(1)) in range(90, 120)  # type: ignore[union-attr]


def xgmi_rate(arch: str) -> Fraction:
    """One xGMI link of an AMD GPU (``"gfx90a"``)."""
    if arch.startswith("gfx90a"):
        return Fraction(36)
    return Fraction(48) if arch.startswith(("gfx94", "gfx95")) else Fraction(24)  # gfx95: not in that source, its predecessor's


def pcie_generation(gt_s: str) -> int | None:
    """The generation of a speed like ``"8 GT/s"``, ``"16.0 GT/s PCIe"`` or ``"32 GT/s PCIe/s"``; None if unknown."""
    match = re.match(r"\s*([0-9]{1,3})(\.[0-9])?[0-9]*\s*GT/s", gt_s)
    if not match:
        return None
    whole, tenth = match.group(1), match.group(2) or ".0"
    return _PCIE_GT_S.get(whole if tenth == ".0" else whole + tenth)


def pcie_generation_of(arch: str) -> int | None:
    """The PCIe generation that GPUs of an architecture are made for (their data sheets); None for an unknown one."""
    if arch.startswith("gfx9"):
        return 5 if arch.startswith(("gfx94", "gfx95")) else 4
    match = re.fullmatch(r"sm_([0-9]{2,3})", arch)
    if not match:
        return None
    capability = int(match.group(1))
    return 5 if capability >= 90 else 4 if capability >= 80 else 3


def pcie_rate(generation: int | None, width: int) -> Fraction:
    """A PCIe link. What is unknown counts as NCCL counts it: generation 3, sixteen lanes."""
    return _PCIE_LANE.get(generation or 3, _PCIE_LANE[3]) * (width or 16)


#: Intel models: the first whose number the CPU's own reaches.
_INTEL = ((0xCF, "Emerald Rapids", 40), (0x8F, "Sapphire Rapids", 22), (0x55, "Skylake", 10), (0, "Broadwell", 6))


def cpu_model(vendor: str, family: int, model: int) -> str:
    """What a CPU is called by the table of interconnects ("Skylake" stands for Cascade and Ice Lake too)."""
    if vendor == "GenuineIntel":
        return next(name for least, name, _ in _INTEL if (family == 6 and model >= least) or least == 0)
    return ""


def cpu_rate(arch: str, vendor: str, model: str) -> Fraction | None:
    """Between two CPUs or NUMA nodes of that kind; None where NCCL knows nothing about them."""
    if arch.startswith("ppc64"):
        return Fraction(32)
    if arch.startswith(("arm64", "aarch64")):
        return Fraction(6)
    vendor = vendor.strip()
    if vendor == "GenuineIntel":
        return next((Fraction(rate) for _, name, rate in _INTEL if name == model), Fraction(6))
    if vendor == "AuthenticAMD":
        return Fraction(16)
    return Fraction(6) if vendor in ("CentaurHauls", "Shanghai") else None
