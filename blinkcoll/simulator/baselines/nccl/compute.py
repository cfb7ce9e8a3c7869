"""From the server to graphs: which speed, how many channels, through which GPUs.

The outer search (``ncclTopoCompute`` in src/graph/search.cc) asks the inner one (``csrc/simulator/nccl_search.cpp``) for
channels of a given speed over hops of a given kind and relaxes the demands in a fixed order until some are found; then it
asks again for faster ones. Every bound on the work is a number of steps, so the outcome is the same on every machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

from blinkcoll import _core

from .paths import Paths, overhead_applies
from .system import Node, System, f32
from .versions import BALANCED_TREE, LOCAL_GB_S, NVLS, RING, SPLIT_TREE, TREE

# src/graph/search.cc of 2.30.7: speedArrayIntra and its successors for sm_90 and sm_100; of 2.7.8: speedArray.
_SPEEDS = (40.0, 30.0, 20.0, 18.0, 15.0, 12.0, 10.0, 9.0, 7.0, 6.0, 5.0, 4.0, 3.0)
_SPEEDS_SM90 = (60.0, 50.0, 40.0, 30.0, 24.0, 20.0, 15.0, 12.0, 11.0, 6.0, 3.0)
_SPEEDS_SM100 = (90.0, 80.0, 70.0, 60.0, 50.0, 45.0, 40.0, 30.0, 24.0, 20.0, 19.0, 18.0)
_SPEEDS_2_7 = (42.0, 24.0, 21.0, 18.0, 15.0, 12.0, 10.0, 9.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.4, 1.2, 0.24, 0.12)

#: ``NCCL_MAX_NVLS_ARITY`` (src/include/device.h).
_MAX_NVLS_HEADS = 32


@dataclass(frozen=True)
class Graph:
    """What NCCL found for one pattern.

    Parameters
    ----------
    pattern
        ``RING``, ``BALANCED_TREE``, ``SPLIT_TREE``, ``TREE`` or ``NVLS`` (``versions.py``).
    channels
        Per channel the ranks in order (a ring, a chain from its root, or for NVLS the head alone).
    gb_s
        A channel's speed; ``inter_gb_s`` is the second speed that NCCL keeps (for NVLS: what the head pulls).
    path_type
        The farthest kind of path allowed.
    same_channels
        Whether all channels were made to run through the same GPUs in the same order.
    fallback
        Whether nothing was found and NCCL fell back to the order of the GPUs.
    """

    pattern: int
    channels: tuple[tuple[int, ...], ...]
    gb_s: Fraction
    inter_gb_s: Fraction
    path_type: str
    same_channels: bool
    fallback: bool = False

    @property
    def nchannels(self) -> int:
        """How many channels."""
        return len(self.channels)


class Searcher:
    """One system's links and the searches made on them, ring first, as NCCL makes them."""

    def __init__(self, system: System, paths: Paths) -> None:
        self.system, self.paths, self.version = system, paths, system.version
        self.ngpus = len(system.gpus)
        self.min_type, self.max_type = paths.extreme_types()
        self.max_gb_s, self.total_gb_s = _limits(system, paths)
        self._inner = _inner_search(system, paths)

    def graph(self, pattern: int, min_channels: int, max_channels: int) -> Graph:
        """The graph that ``ncclTopoCompute`` finds for a pattern and these numbers of channels."""
        asked = _core.NcclGraph()
        asked.pattern, asked.min_channels, asked.max_channels = pattern, min_channels, max_channels
        outer: _Outer = _Outer2_30(self, asked) if self.version.device_nodes else _Outer2_7(self, asked)
        return self._result(outer.compute())

    def run(self, trial: _core.NcclGraph, best: _core.NcclGraph, steps: int) -> int:
        """One inner search; returns the steps left, 0 if it gave up, -1 if nothing better can exist."""
        return int(self._inner.run(trial, best, steps))

    def _result(self, best: _core.NcclGraph) -> Graph:
        fallback = best.nchannels == 0 and best.pattern != NVLS
        gpus = self.system.gpus
        length = 1 if best.pattern == NVLS else self.ngpus
        order = list(range(self.ngpus)) if fallback else best.order
        nchannels = 1 if fallback else best.nchannels
        channels = tuple(
            tuple(gpus[g].rank for g in order[c * self.ngpus : c * self.ngpus + length]) for c in range(nchannels)
        )
        gb_s, inter = (0.1, 0.0) if fallback else (best.bw_intra, best.bw_inter)
        path_type = "SYS" if fallback else self.version.path_types[best.type_intra]
        return Graph(best.pattern, channels, _decimal(gb_s), _decimal(inter), path_type, best.same_channels, fallback)


def _decimal(gb_s: float) -> Fraction:
    """A single-precision speed as the decimal that it stands for."""
    return Fraction(f"{gb_s:.6g}")


def _limits(system: System, paths: Paths) -> tuple[float, float]:
    """The fastest path between two devices, and the most that one device's links carry (``ncclTopoSearchInit``)."""
    if len(system.gpus) == 1:
        return LOCAL_GB_S, LOCAL_GB_S
    owners = system.nodes.get("DEV", system.gpus)
    fastest = max(paths[a, b].gb_s for a in owners for b in owners if a is not b)
    return fastest, max(_total_gb_s(owner) for owner in owners)


def _total_gb_s(owner: Node) -> float:
    nvlink = 0.0
    pcie = 0.0
    for edge in owner.edges:
        if edge.kind == "NVL":
            nvlink = f32(nvlink + edge.gb_s)
        elif edge.kind == "PCI":
            pcie = edge.gb_s
    return max(nvlink, pcie)


def _inner_search(system: System, paths: Paths) -> _core.NcclSearch:
    """The inner search on this system: its links, numbered, and every path as a list of them."""
    version = system.version
    number = {edge: i for i, edge in enumerate(system.edges())}
    nvs = system.nodes["NVS"]
    vertices = [*system.gpus, *nvs]
    table = []
    for here in vertices:
        for there in vertices:
            way = paths[here, there]
            start, steps = here, []
            for edge in way.edges:
                reverse = -1
                if edge.kind == "NVL" and edge.to.kind == "CPU":
                    reverse = number[edge.to.edge_to(start, "NVL")]
                steps.append((number[edge], reverse, edge.kind == "PCI"))
                start = edge.to
            table.append((way.type, way.gb_s, here.kind == "GPU" and overhead_applies(version, system, way), steps))
    rules = _core.NcclRules()
    rules.both_ways = rules.nvswitch_neighbours = rules.same_pattern_hops = version.device_nodes
    rules.overhead_mul, rules.overhead_div = version.overhead
    return _core.NcclSearch(len(system.gpus), bool(nvs), [edge.gb_s for edge in number], table, rules)


class _Outer(ABC):
    """What both versions' outer searches share: the best graph so far, the one being tried, and the speeds."""

    speeds: tuple[float, ...]
    trial: _core.NcclGraph

    def __init__(self, searcher: Searcher, asked: _core.NcclGraph) -> None:
        self.searcher, self.version, self.system = searcher, searcher.version, searcher.system
        self.limits = searcher.version.limits
        self.best = asked
        self.budget = self.limits.total
        self.speed = 0

    @abstractmethod
    def compute(self) -> _core.NcclGraph:
        """The best graph."""

    def attempt(self) -> int:
        """One inner search with as many steps as its demands deserve; what it spends is taken off the total."""
        trial, limits = self.trial, self.limits
        steps = limits.same_channels if trial.same_channels else limits.tree if trial.pattern == TREE else limits.one
        self.budget -= steps
        return self.searcher.run(trial, self.best, steps)

    def settle(self, left: int) -> bool:
        """Give back the steps left (all, if nothing better can exist); False if the total is spent."""
        self.budget = self.budget + left if left != -1 else self.limits.total
        return self.budget >= 0

    def start_at(self, speed: int) -> None:
        """Ask for the speed-th speed."""
        self.speed = speed
        self.trial.bw_intra = self.trial.bw_inter = self.speeds[speed]

    def slower_is_worth_it(self) -> bool:
        """Whether the next speed could still beat what was found."""
        if self.speed >= len(self.speeds) - 1:
            return False
        best = self.best
        return best.nchannels == 0 or f32(f32(self.speeds[self.speed + 1]) / best.bw_inter) > 0.49

    def speed_of_best(self) -> int:
        """The position of the first speed not above the best graph's."""
        speed = 0
        while self.speeds[speed] > self.best.bw_inter and speed < len(self.speeds) - 1:
            speed += 1
        return speed

    def double_channels(self) -> None:
        """Each channel twice, at half the speed (``ncclTopoDupChannels``)."""
        best, n = self.best, self.searcher.ngpus
        wanted = min(best.nchannels * 2, best.max_channels)
        order = list(best.order)
        order[best.nchannels * n : wanted * n] = order[: (wanted - best.nchannels) * n]
        times = -(-wanted // best.nchannels)
        best.order = order
        best.bw_intra, best.bw_inter = f32(best.bw_intra / times), f32(best.bw_inter / times)
        best.nchannels = wanted


class _Outer2_30(_Outer):
    """``ncclTopoCompute`` of 2.30.7 on one server without NICs."""

    def compute(self) -> _core.NcclGraph:
        system, searcher, best = self.system, self.searcher, self.best
        sm = system.compute_capability
        self.speeds = _SPEEDS_SM100 if sm >= 100 else _SPEEDS_SM90 if sm >= 90 else _SPEEDS
        best.type_intra = searcher.min_type
        best.same_channels = best.pattern != NVLS
        self.try_same = best.same_channels
        if best.pattern == NVLS:
            if not system.nodes["NVS"] or sm < 90:
                return best
            best.max_channels = best.min_channels = min(_MAX_NVLS_HEADS, searcher.ngpus)
        if searcher.ngpus == 1 and best.pattern != RING:
            best.pattern = TREE
        if best.pattern == RING and best.max_channels >= 2 and best.min_channels == 1 and self._split_nvlink():
            best.min_channels = 2
        self.trial = best.copy()
        self.start_at(self._first_speed())
        self._find()
        self._double()
        self._hasten()
        return self.best

    def _split_nvlink(self) -> bool:
        """Whether NVLink joins the GPUs into exactly two groups of at least two (``ncclTopoSplitNvLink``)."""
        gpus, paths = self.system.gpus, self.searcher.paths
        group = list(range(len(gpus)))
        for g, gpu in enumerate(gpus):
            for p in range(g + 1, len(gpus)):
                if paths.type_name(gpu, gpus[p]) == "NVL":
                    group[p] = group[g]
        return sum(group.count(g) > 1 for g in range(len(gpus))) == 2

    def _first_speed(self) -> int:
        """The first speed that one path, and as many channels as are wanted at least, could have."""
        total = self.searcher.total_gb_s
        n = self.searcher.ngpus
        if n > 1 and self.best.pattern != RING:
            total = f32(total * (n / (n - 1)))
        speed = 0
        while speed < len(self.speeds) - 1 and (
            self.speeds[speed] > self.searcher.max_gb_s or f32(self.speeds[speed] * self.best.min_channels) > total
        ):
            speed += 1
        return speed

    def _find(self) -> None:
        """The first pass: relax the demands one after the other until a graph is found that cannot be improved."""
        trial, searcher = self.trial, self.searcher
        sys, dis = self.version.rank_of("SYS"), self.version.rank_of("DIS")
        while True:
            left = self.attempt()
            best = self.best
            if left == -1 or self._saturates():
                return
            through_amd = self.system.cpu == "amd" and trial.type_intra == sys
            if trial.same_channels and not through_amd:
                trial.same_channels = False
                continue
            trial.same_channels = self.try_same
            if not self.settle(left) and best.nchannels:
                return
            if self.system.compute_capability >= 90 and trial.pattern == BALANCED_TREE:
                trial.pattern = TREE
                continue
            trial.pattern = best.pattern
            if trial.type_intra < searcher.max_type and (best.nchannels == 0 or trial.type_intra < best.type_intra):
                trial.type_intra += 1
                if trial.type_intra < dis:
                    continue
            trial.type_intra = searcher.min_type
            if not self.slower_is_worth_it():
                return
            self.start_at(self.speed + 1)

    def _saturates(self) -> bool:
        """Whether the graph uses all that a device's links carry."""
        best = self.best
        return f32(best.nchannels * best.bw_inter) >= self.searcher.total_gb_s

    def _double(self) -> None:
        """Fast channels are split in two, more thread blocks at less speed each, except many on Hopper and later."""
        best = self.best
        many = self.system.compute_capability > 80 and best.bw_intra < 50 and best.nchannels > 4
        if best.nchannels and best.pattern != NVLS and best.bw_intra >= 25 and not many:
            self.double_channels()

    def _hasten(self) -> None:
        """The second pass: as many channels, faster (rings both speeds, NVLS the heads, trees inside the server)."""
        best = self.best
        self.trial = trial = best.copy()
        self.start_at(self.speed_of_best())
        trial.min_channels = best.nchannels
        left = -1
        while left != 0 and self.speed > 0:
            if best.pattern == RING:
                self.start_at(self.speed - 1)
            elif best.pattern == NVLS and trial.bw_inter == best.bw_inter and trial.bw_inter < trial.bw_intra * 2:
                trial.min_channels = trial.max_channels = best.nchannels
                self.speed -= 1
                trial.bw_inter = self.speeds[self.speed]
            elif trial.bw_intra == best.bw_intra and trial.bw_intra < trial.bw_inter * 2:
                self.speed -= 1
                trial.bw_intra = self.speeds[self.speed]
            else:
                return
            left = self.attempt()


class _Outer2_7(_Outer):
    """``ncclTopoCompute`` of 2.7.8 on one server."""

    speeds = _SPEEDS_2_7

    def compute(self) -> _core.NcclGraph:
        best = self.best
        self.nearest = self.version.rank_of("LOC" if self.searcher.ngpus == 1 else "NVL")
        best.type_intra = self.nearest
        if self.searcher.ngpus == 1 and best.pattern != RING:
            best.pattern = TREE
        self.trial = best.copy()
        speed = 0
        while self.speeds[speed] > self.searcher.max_gb_s and speed < len(self.speeds) - 1:
            speed += 1
        self.start_at(speed)
        self._find()
        self._hasten()
        if best.nchannels and best.bw_intra >= 25:
            self.double_channels()
        return best

    def _find(self) -> None:
        """The first pass: different channels, farther hops, simpler trees, lower speeds."""
        trial, best = self.trial, self.best
        farthest = self.version.rank_of("SYS")
        while True:
            left = self.attempt()
            if best.nchannels == best.max_channels and best.bw_inter == f32(self.searcher.max_gb_s):
                return
            if trial.same_channels:
                trial.same_channels = False
                continue
            trial.same_channels = True
            if not self.settle(left):
                return
            if trial.type_intra < farthest and (best.nchannels == 0 or trial.type_intra < best.type_intra):
                trial.type_intra += 1
                continue
            trial.type_intra = self.nearest
            if trial.pattern == SPLIT_TREE:
                trial.pattern = TREE
                continue
            trial.pattern = best.pattern
            if not self.slower_is_worth_it():
                return
            self.start_at(self.speed + 1)

    def _hasten(self) -> None:
        """The second pass: as many channels, faster inside the server; trees only."""
        best = self.best
        self.trial = trial = best.copy()
        self.start_at(self.speed_of_best())
        trial.min_channels = best.nchannels
        left = -1
        while left != 0 and best.pattern != RING and self.speed > 0:
            if not (trial.bw_intra == best.bw_intra and trial.bw_intra < trial.bw_inter * 2):
                return
            self.speed -= 1
            trial.bw_intra = self.speeds[self.speed]
            left = self.attempt()
