"""Simulated NCCL rings beside published timings: ``python tests/simulator/validation.py`` prints the tables of docs/simulator.md.

NCCL's plan is written down as the rings that such a machine's links hold, by each protocol in turn; the fastest is taken,
as NCCL's own tuning means to. By the simple protocol an all-gather hop stores straight into the next rank's output, and
a broadcast's chunk is always 512 KiB (its buffer's eighth). Every machine's links run at one rate, which comes from a
two-GPU measurement where there is one; nothing is fitted to a row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from statistics import median

from blinkcoll.cost import default_chunk_bytes
from blinkcoll.schedules import OUTPUT, Channel, Operand, Program, Step, lower_rings
from blinkcoll.simulator import parameters_for, run
from blinkcoll.simulator.baselines.ring import chain_broadcasts
from blinkcoll.topology import Device, GpuIndex, Link, Switch, Topology, load_topology

TIMINGS = Path(__file__).with_name("published_timings.csv")

#: What a lane reaches when channels store into it, GB/s, and where that was seen. Copy engines reach more: they send 256
#: bytes a packet, channels 128 (NVIDIA/nccl-tests#149).
LANE_GB_S = {
    "dgx1-p100": ("17.46", "Tartan nccl-v2/bandwidth.txt: broadcast, 2 GPUs, one link"),
    "dgx1-v100": ("22.90", "blinkplus test_bandwidth: broadcast, 2 GPUs, one link"),
    "v100-cube-mesh": ("22.90", "as dgx1-v100, whose wiring it has under other numbers"),
    "dgx-a100": ("19.2", "NVIDIA/nccl-tests#149: about 230 GB/s over 12 links"),
    "a100-mesh-nv4": ("19.2", "as dgx-a100"),
    "hgx-h100": ("20.55", "NVIDIA/nccl-tests#212: 370 GB/s over 18 links"),
}


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
    """The GPUs of a machine, its NVLinks at the rate that channels reach."""
    lane = Fraction(LANE_GB_S[name][0])
    if name == "dgx-a100":
        whole = switched(8, "sm_80", 12, lane)
    elif name == "hgx-h100":
        whole = switched(8, "sm_90", 18, lane)
    elif name == "a100-mesh-nv4":
        whole = meshed(4, "sm_80", 4, lane)
    else:
        whole = load_topology("dgx1-v100" if name == "v100-cube-mesh" else name)
    links = tuple(replace(k, measured_gb_s=lane * k.lanes) if k.kind == "NVLINK" else k for k in whole.links)
    return replace(whole, links=links).subset(gpus)


def switched(n: int, arch: str, lanes: int, lane: Fraction) -> Topology:
    links = [
        Link(a, b, "NVLINK", lane * lanes, Fraction(3, 10), lanes=lanes)
        for i in range(n)
        for a, b in ((f"gpu{i}", "nvswitch"), ("nvswitch", f"gpu{i}"))
    ]
    return Topology("switched", tuple(Device(f"gpu{i}", index=GpuIndex(i), arch=arch) for i in range(n)), (Switch("nvswitch", "nvswitch"),), tuple(links))


def meshed(n: int, arch: str, lanes: int, lane: Fraction) -> Topology:
    links = [Link(f"gpu{i}", f"gpu{j}", "NVLINK", lane * lanes, Fraction(6, 10), lanes=lanes) for i in range(n) for j in range(n) if i != j]
    return Topology("meshed", tuple(Device(f"gpu{i}", index=GpuIndex(i), arch=arch) for i in range(n)), (), tuple(links))


def rings(topology: Topology) -> list[list[int]]:
    """The rings of NCCL's plan, each of half a lane's rate: every cycle is used in both directions.

    The most cycles through all ranks that whole lanes hold at once, two channels a direction; cycles of half-lanes where
    these use up every lane (four fully connected GPUs). Over PCIe, in rank order, where there is no cycle. Behind a
    switch every order is as good: the same cycle, twice a lane.
    """
    n = topology.nranks
    halves: dict[tuple[int, int], int] = {}
    for link in topology.links:
        if link.kind == "NVLINK":
            a, b = topology.vertex(link.src), topology.vertex(link.dst)
            if isinstance(a, str) or isinstance(b, str):
                return [list(range(n))] * (2 * link.lanes)
            if a < b:
                halves[a, b] = halves.get((a, b), 0) + 2 * link.lanes
    if n == 2:
        return [[0, 1]] * halves.get((0, 1), 0)
    found = [cycle for cycle in most_cycles(n, {edge: c // 2 for edge, c in halves.items()}, ()) for _ in range(2)]
    finer = most_cycles(n, halves, ()) if n <= 4 else []
    if n * len(finer) == sum(halves.values()):
        found = finer
    if not found:
        return [list(range(n))] * 2
    return [order for cycle in found for order in (cycle, [cycle[0], *reversed(cycle[1:])])]


def most_cycles(n: int, halves: dict[tuple[int, int], int], least: Sequence[int]) -> list[list[int]]:
    """Branch over the cycles through rank 0 in lexicographic order."""
    bound = min(sum(c for edge, c in halves.items() if r in edge) // 2 for r in range(n))
    best: list[list[int]] = []
    for cycle in cycles(n, halves):
        if tuple(cycle) < tuple(least):
            continue
        left = dict(halves)
        for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True):
            left[min(a, b), max(a, b)] -= 1
        found = [cycle, *most_cycles(n, left, cycle)]
        if len(found) > len(best):
            best = found
        if len(best) >= bound:
            break
    return best


def cycles(n: int, halves: dict[tuple[int, int], int]) -> Iterator[list[int]]:
    """Cycles through all ranks from rank 0, each in one direction."""

    def there(a: int, b: int) -> bool:
        return halves.get((min(a, b), max(a, b)), 0) > 0

    def extend(path: list[int]) -> Iterator[list[int]]:
        if len(path) == n:
            if path[1] < path[-1] and there(path[-1], 0):
                yield list(path)
            return
        for r in range(1, n):
            if r not in path and there(path[-1], r):
                yield from extend([*path, r])

    yield from extend([0])


def stored_directly(program: Program) -> Program:
    """A ring all-reduce whose all-gather hops store into the next rank's output instead of a slot."""
    n = program.nranks

    def direct(rank: int, hop: int, step: Step) -> Step:
        if hop < n - 1:
            return step
        leaves = [o.connection for o in step.dsts if o.connection is not None]
        onward = tuple(Operand("output", rank=program.connections[c].dst) for c in leaves)
        if hop == n - 1:
            return replace(step, dsts=(OUTPUT, *onward))
        return replace(step, op="copy" if onward else "nop", srcs=(OUTPUT,) if onward else (), dsts=onward)

    return replace(
        program,
        ranks=tuple(
            tuple(Channel(tuple(direct(rank, hop, step) for hop, step in enumerate(channel.steps))) for channel in channels)
            for rank, channels in enumerate(program.ranks)
        ),
    )


@cache
def programs(name: str, gpus: tuple[int, ...], collective: str) -> dict[str, Program]:
    """NCCL's rings by each protocol that it may choose on that generation."""
    topology = machine(name, gpus)
    orders = rings(topology)
    plain = lower_rings(topology, orders) if collective == "allreduce" else chain_broadcasts(topology, orders, "nccl-ring")
    protocols = ["LL"] if topology.devices[0].arch in ("sm_60", "sm_70") else ["LL", "LL128"]
    made = {p: replace(plain, connections=tuple(replace(c, protocol=p) for c in plain.connections)) for p in protocols}
    return made | {"simple": stored_directly(plain) if collective == "allreduce" else plain}


def simulate(timing: Timing) -> float:
    """The simulated time of a row, us."""
    topology = machine(timing.machine, timing.gpus)
    params = parameters_for(topology, timing.launch)

    def chunk_bytes(protocol: str, program: Program) -> int:
        if protocol == "simple" and timing.collective == "broadcast":
            return 1 << 19
        return default_chunk_bytes(program, timing.size_bytes)

    return min(
        run(p, timing.size_bytes, chunk_bytes=chunk_bytes(name, p), rates="measured", params=params).time_us
        for name, p in programs(timing.machine, timing.gpus, timing.collective).items()
    )


def errors(timings: Sequence[Timing]) -> list[float]:
    """Simulated over published, less one."""
    return [simulate(t) / t.time_us - 1 for t in timings]


def main() -> None:
    print("| machine | GPUs | NCCL | launch | collective | size | published us | simulated us | error | source |")
    print("| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- |")
    rows = [(t, simulate(t)) for t in read_timings()]
    for t, time_us in rows:
        print(
            f"| {t.machine} | {len(t.gpus)} ({','.join(map(str, t.gpus))}) | {t.nccl} | {t.launch} | {t.collective} | {t.size_bytes} "
            f"| {t.time_us:.1f} | {time_us:.1f} | {100 * (time_us / t.time_us - 1):+.0f} %{' (anchor)' * bool(t.anchors)} | {t.source} |"
        )
    judged = [(t, time_us) for t, time_us in rows if not t.anchors]
    for label, least, most in ((">= 64 MB", 64_000_000, 1 << 60), ("64 KB - 64 MB", 65537, 63_999_999), ("<= 64 KB", 0, 65536)):
        ratios = [time_us / t.time_us for t, time_us in judged if least <= t.size_bytes <= most]
        off = [abs(ratio - 1) for ratio in ratios]
        factor = max(max(ratio, 1 / ratio) for ratio in ratios)
        print(f"\n{label}: {len(off)} rows, median error {100 * median(off):.1f} %, largest {100 * max(off):.0f} %, largest factor {factor:.2f}")


if __name__ == "__main__":
    main()
