"""Simulated NCCL beside published timings: ``python tests/simulator/validation.py`` prints the tables of docs/simulator.md.

What NCCL ran is what ``blinkcoll.simulator.baselines.nccl`` says: its own plan, protocol and number of channels, by the
nearest of the versions that are rebuilt. Links run at the layouts' measured rates, whose sources the layouts name; rows
that such a rate was taken from are marked as anchors. Nothing is fitted to a row.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from statistics import median

from blinkcoll.simulator import parameters_for, run
from blinkcoll.simulator.baselines import baseline_program
from blinkcoll.topology import Device, GpuIndex, Link, Switch, Topology, load_topology

TIMINGS = Path(__file__).with_name("published_timings.csv")

@dataclass(frozen=True)
class Timing:
    """A row of the table."""

    machine: str
    gpus: tuple[int, ...]
    nccl: str
    launch: str
    collective: str
    size_bytes: int
    time_us: float
    anchors: str  # the parameter that was taken from this row, which therefore judges nothing
    source: str


def read_timings() -> list[Timing]:
    with TIMINGS.open(newline="", encoding="utf-8") as file:
        return [
            Timing(r["machine"], tuple(map(int, r["gpus"].split(","))), r["nccl"], r["launch"], r["collective"],
                   int(r["size_bytes"]), float(r["time_us"]), r["anchors"], r["source"])
            for r in csv.DictReader(file)
        ]  # fmt: skip


@cache
def machine(name: str, gpus: tuple[int, ...]) -> Topology:
    """The GPUs of a machine."""
    known = {"a100-mesh-nv4": _mesh_of_four_a100, "hgx-h800": _h800, "rtx4090x8-own-ports": _rtx4090_own_ports}
    known |= {"rtx4090x8-one-uplink": _rtx4090_one_uplink, "a100-pcie-8": _a100_pcie, "rtx2080ti-pair": _rtx2080ti_pair, "v100-pcie-4": _v100_pcie}
    if name in known:
        return known[name]().subset(gpus)
    return load_topology("dgx1-v100" if name == "v100-cube-mesh" else name).subset(gpus)  # the same wiring under other numbers


def _h800() -> Topology:
    """HGX H100 with eight NVLinks a GPU (H800), before NCCL added in the switches."""
    hgx = load_topology("hgx-h100")

    def eight(link: Link) -> Link:
        assert link.measured_gb_s is not None
        return replace(link, capacity=link.capacity / link.lanes * 8, measured_gb_s=link.measured_gb_s / link.lanes * 8, lanes=8)

    links = tuple(eight(link) if link.kind == "NVLINK" else link for link in hgx.links)
    return replace(hgx, name="hgx-h800", links=links, switches=tuple(replace(s, multicast=False, reduce=False) for s in hgx.switches))


def _pcie_machine(name: str, model: Topology, cpu: Switch, switches: int, ports: dict[int, str], like: str, *, cpus: int) -> Topology:
    """GPUs on PCIe: GPU i below ``ports[i]``, switch j below CPU j modulo ``cpus``; links as the links of kind ``like`` in ``model``."""
    pcie = next(link for link in model.links if link.kind == like)
    sockets = load_topology("mi250x") if cpu.vendor == "AuthenticAMD" else model
    joined = next((link for link in sockets.links if link.kind == "CPU"), pcie)
    wires = [(f"gpu{i}", above, pcie) for i, above in ports.items()] + [(f"plx{j}", f"cpu{j % cpus}", pcie) for j in range(switches)]
    wires += [(f"cpu{i}", f"cpu{j}", joined) for i in range(cpus) for j in range(i)]
    links = tuple(replace(link, src=src, dst=dst, port="") for a, b, link in wires for src, dst in ((a, b), (b, a)))
    devices = tuple(replace(model.devices[i], name=f"gpu{i}", bus_id=None, uuid=None) for i in ports)
    boxes = (*(replace(cpu, name=f"cpu{i}") for i in range(cpus)), *(Switch(f"plx{j}", "pcie") for j in range(switches)))
    refused = tuple((a.name, b.name) for a in devices for b in devices if a != b) if model.no_peer_access else ()
    return Topology(name, devices, boxes, links, no_peer_access=refused)


def _rtx4090_own_ports() -> Topology:
    """Eight RTX 4090s on root ports of their own: bus ids 01, 25, 41 ... e1, as an EPYC server numbers them."""
    epyc = Switch("cpu0", "cpu", arch="x86_64", vendor="AuthenticAMD", model="Rome")
    return _pcie_machine("rtx4090x8-own-ports", load_topology("rtx4090x8"), epyc, 0, {i: f"cpu{i // 4}" for i in range(8)}, "PCIE", cpus=2)


def _rtx4090_one_uplink() -> Topology:
    """Eight RTX 4090s below one root port: bus ids 0e to 27."""
    intel = Switch("cpu0", "cpu", arch="x86_64", vendor="GenuineIntel", model="Skylake")
    return _pcie_machine("rtx4090x8-one-uplink", load_topology("rtx4090x8"), intel, 1, dict.fromkeys(range(8), "plx0"), "PCIE", cpus=1)


def _rtx2080ti_pair() -> Topology:
    """Two RTX 2080 Tis below one PCIe 3 switch, peer access off; their links carry what a broadcast of 1 GiB reaches."""
    model = load_topology("rtx4090x8")
    rates = {"capacity": Fraction(12), "measured_gb_s": Fraction(1109, 100), "generation": 3}
    links = tuple(replace(link, **rates) if link.kind == "PCIE" else link for link in model.links)
    turing = replace(model, devices=tuple(replace(d, arch="sm_75") for d in model.devices), links=links)
    intel = Switch("cpu0", "cpu", arch="x86_64", vendor="GenuineIntel", model="Skylake")
    return _pcie_machine("rtx2080ti-pair", turing, intel, 1, dict.fromkeys(range(2), "plx0"), "PCIE", cpus=1)


def _a100_pcie() -> Topology:
    """Eight A100 PCIe cards, a switch below each of two CPUs: bus ids 4f to 57 and 9c to a4, no bridges."""
    intel = Switch("cpu0", "cpu", arch="x86_64", vendor="GenuineIntel", model="Skylake")
    return _pcie_machine("a100-pcie-8", load_topology("a100-pcie-nvbridge"), intel, 2, {i: f"plx{i // 4}" for i in range(8)}, "PCIE", cpus=2)


def _v100_pcie() -> Topology:
    """Four V100 PCIe cards below one PCIe 3 switch: bus ids 3d to 40, no NVLink."""
    model = load_topology("a100-pcie-nvbridge")
    links = tuple(replace(link, capacity=Fraction(12), measured_gb_s=None, generation=3) if link.kind == "PCIE" else link for link in model.links)
    volta = replace(model, devices=tuple(replace(d, arch="sm_70") for d in model.devices), links=links)
    intel = Switch("cpu0", "cpu", arch="x86_64", vendor="GenuineIntel", model="Skylake")
    return _pcie_machine("v100-pcie-4", volta, intel, 1, dict.fromkeys(range(4), "plx0"), "PCIE", cpus=1)


def _mesh_of_four_a100() -> Topology:
    """Four A100s, four links between any two, under one CPU (Leonardo's booster nodes: NVIDIA/nccl-tests#331)."""
    n, lanes = 4, 4
    of_a100 = next(k for k in load_topology("dgx-a100").links if k.kind == "NVLINK")
    assert of_a100.measured_gb_s is not None
    rates = {"capacity": of_a100.capacity / of_a100.lanes * lanes, "measured_gb_s": of_a100.measured_gb_s / of_a100.lanes * lanes}
    nvlink = replace(of_a100, **rates, latency_us=Fraction(6, 10), lanes=lanes)
    links = [replace(nvlink, src=f"gpu{i}", dst=f"gpu{j}") for i in range(n) for j in range(n) if i != j]
    for i in range(n):
        links += [Link(a, b, "PCIE", Fraction(24), Fraction(1, 2), lanes=16, generation=4) for a, b in ((f"gpu{i}", "cpu0"), ("cpu0", f"gpu{i}"))]
    return Topology("a100-mesh-nv4", tuple(Device(f"gpu{i}", index=GpuIndex(i), arch="sm_80") for i in range(n)), (Switch("cpu0", "cpu"),), tuple(links))


def baseline(nccl: str) -> str:
    """The nearest rebuilt version: 2.4 has rings only, 2.7 is the last that crosses no GPU."""
    minor = nccl.removeprefix("2.").split(".")[0]
    return "nccl-2.4" if minor in ("x", "4") else "nccl-2.7" if minor == "7" else "nccl"


@cache
def simulate(timing: Timing, rates: str = "measured") -> float:
    """The simulated time of a row, us."""
    topology = machine(timing.machine, timing.gpus)
    root = 0 if timing.collective in ("broadcast", "reduce") else None
    program = baseline_program(baseline(timing.nccl), topology, timing.collective, root, timing.size_bytes)
    return run(program, timing.size_bytes, rates=rates, params=parameters_for(topology, timing.launch)).period_us


def errors(timings: Sequence[Timing]) -> list[float]:
    """Simulated over published, less one."""
    return [simulate(t) / t.time_us - 1 for t in timings]


def _gpus(gpus: tuple[int, ...]) -> str:
    whole = gpus == tuple(range(len(gpus))) and len(gpus) > 4
    return f"0-{gpus[-1]}" if whole else ",".join(map(str, gpus))


def several_servers(timing: Timing) -> bool:
    """Whether the row is of a cluster: reported, and judged by nothing."""
    return "*" in timing.machine


def table(timings: Sequence[Timing]) -> list[str]:
    """Rows of the table, in Markdown."""
    return [
        f"| {t.machine} | {len(t.gpus)} ({_gpus(t.gpus)}) | {t.nccl} | {t.launch} | {t.collective} | {t.size_bytes} "
        f"| {t.time_us:.1f} | {simulate(t):.1f} | {100 * (simulate(t) / t.time_us - 1):+.0f} %{' (anchor)' * bool(t.anchors)} | {t.source} |"
        for t in timings
    ]


def main() -> None:
    print("| machine | GPUs | NCCL | launch | collective | size | published us | simulated us | error | source |")
    print("| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- |")
    print("\n".join(table(read_timings())))
    judged = [t for t in read_timings() if not t.anchors and not several_servers(t)]
    for label, least, most in ((">= 64 MB", 64_000_000, 1 << 60), ("64 KB - 64 MB", 65537, 63_999_999), ("<= 64 KB", 0, 65536)):
        some = [t for t in judged if least <= t.size_bytes <= most]
        ratios = [simulate(t) / t.time_us for t in some]
        off = [abs(ratio - 1) for ratio in ratios]
        factor = max(max(ratio, 1 / ratio) for ratio in ratios)
        planned = median(abs(simulate(t, "planning") / t.time_us - 1) for t in some)
        print(
            f"\n{label}: {len(off)} rows, median error {100 * median(off):.1f} %, largest {100 * max(off):.0f} %, largest factor {factor:.2f}; "
            f"at planning rates the median error is {100 * planned:.1f} %"
        )


if __name__ == "__main__":
    main()
