"""A PCIe tree from the distances between its leaves (PIX < PXB < PHB < NODE < SYS).

Distances in a tree are an ultrametric: of the three among any three leaves the two largest are equal. A distance that a
matrix hides (it shows NVLinks instead) is therefore known where some third leaf is nearer to one of the two than to the
other, and bounded where it is equally near to both.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from .draft import UNKNOWN_CPU_GB_S, Draft
from .model import Switch
from .rates import CPU_LATENCY_US, PCIE_LATENCY_US, cpu_rate, nvlink_rate, pcie_rate
from .source import Source

_LEVELS = ("PIX", "PXB", "PHB", "NODE", "SYS")
_PXB, _PHB, _SYS = 1, 2, 4


class PcieMatrix:
    """Levels between labels: ``level[a, b]`` as an index into PIX, PXB, PHB, NODE, SYS."""

    def __init__(self, cells: dict[frozenset[str], str], places: dict[str, tuple[str, str]], source: Source) -> None:
        self.labels = list(places)
        self.places = places
        self.source = source
        self.shown = {tuple(sorted(pair)): _LEVELS.index(cell) for pair, cell in cells.items()}
        self.level: dict[tuple[str, str], int] = {}
        for i, a in enumerate(self.labels):
            for b in self.labels[i + 1 :]:
                self.level[a, b] = self.level[b, a] = self._level(a, b)

    def _shown(self, a: str, b: str) -> int | None:
        return self.shown.get((a, b) if a < b else (b, a))

    def _level(self, a: str, b: str) -> int:
        """What is shown, else what follows from a third leaf, else by CPU affinity: other host bridges of one node, or SYS."""
        one_node = bool(self.places[a][1]) and self.places[a][1] == self.places[b][1]
        shown = self._shown(a, b)
        if shown is not None:
            if shown == _SYS and one_node:
                self.source.note(f"says SYS within NUMA node {self.places[a][1]}: taken as NODE")
                return _SYS - 1
            return shown
        bounds = []
        for c in self.labels:
            to = self._shown(a, c), self._shown(b, c)
            if c in (a, b) or None in to:
                continue
            near, far = sorted(level for level in to if level is not None)
            if near != far:
                return _SYS - 1 if far == _SYS and one_node else far
            bounds.append(far)
        bound = min(bounds, default=_SYS)
        if bound < _SYS:
            return bound
        known = [place for place in (self.places[a], self.places[b]) if place[0]]
        same = not known or (len(known) == 2 and (one_node or (known[0] == known[1] and not known[0][1])))
        return _SYS - 1 if same else _SYS

    def hang(self, draft: Draft, names: dict[str, str], generation: int | None, to_cpu: dict[str, int] | None = None) -> None:
        """CPUs, switches and links of the tree; ``names`` gives the vertices of the labels.

        ``to_cpu``, on POWER9, the NVLinks between a GPU and its CPU, which take the place of PCIe.
        """
        power9 = to_cpu is not None
        nodes = self._groups(self.labels, _SYS - 1)
        cpus: list[str] = []
        for group in nodes:
            numa = sorted({self.places[label][1] for label in group} - {""})
            name = f"cpu{numa[0]}" if len(numa) == 1 else f"cpu{len(cpus)}"
            cpus.append(draft.add_switch(Switch(name, "cpu", arch="ppc64le", vendor="IBM", model="POWER9") if power9 else Switch(name, "cpu")))
            for label in [label for label in group if to_cpu and label in to_cpu]:
                lanes, nvlink = (to_cpu or {})[label], nvlink_rate("sm_70")
                draft.wire(names[label], cpus[-1], "CPU", nvlink.lane_gb_s * lanes, CPU_LATENCY_US, lanes, nvlink.generation)
                group.remove(label)
            self._below_cpu(draft, cpus[-1], group, names, generation)
        if any(link.kind == "PCIE" for link in draft.links):
            self.source.note(f"shows no PCIe rates: planned as generation {generation or 3}, sixteen lanes")
        if len(cpus) > 1:
            rate = self._between_cpus(generation, len(cpus), power9)
            self.source.note(f"names no CPU: {rate} GB/s are planned between CPUs")
            for i, a in enumerate(cpus):
                for b in cpus[i + 1 :]:
                    draft.wire(a, b, "CPU", rate, CPU_LATENCY_US)

    def _groups(self, labels: Iterable[str], within: int) -> list[list[str]]:
        """Labels that a chain of steps of at most that level joins."""
        groups: list[list[str]] = []
        for label in labels:
            near = [g for g in groups if any(self.level[label, other] <= within for other in g)]
            groups = [g for g in groups if g not in near] + [[other for g in near for other in g] + [label]]
        return sorted(groups, key=lambda g: min(self.labels.index(label) for label in g))

    def _below_cpu(self, draft: Draft, cpu: str, group: list[str], names: dict[str, str], generation: int | None) -> None:
        for bridge, around in enumerate(self._groups(group, _PHB)):
            for below in self._groups(around, _PXB):
                self._below_switch(draft, cpu, f"bridge{bridge}", below, names, generation)

    def _below_switch(self, draft: Draft, cpu: str, port: str, group: list[str], names: dict[str, str], generation: int | None) -> None:
        def wire(a: str, b: str, port: str) -> None:
            draft.wire(a, b, "PCIE", pcie_rate(generation, 16), PCIE_LATENCY_US, 16, generation, port)

        if len(group) == 1:
            wire(names[group[0]], cpu, port)
            return
        number = sum(s.kind == "pcie" for s in draft.switches.values())
        top = draft.add_switch(Switch(f"plx{number}", "pcie"))
        wire(top, cpu, port)
        inner = self._groups(group, 0)
        for n, part in enumerate(inner):
            if len(inner) == 1 or len(part) == 1:
                for label in part:
                    wire(names[label], top, "" if len(inner) == 1 else f"port{n}")
                continue
            switch = draft.add_switch(Switch(f"{top}.{n}", "pcie"))
            wire(switch, top, f"port{n}")
            for label in part:
                wire(names[label], switch, "")

    def _between_cpus(self, generation: int | None, cpus: int, power9: bool) -> Fraction:
        """What CPUs of the time of such GPUs plan with; the slower where several makes are possible."""
        if power9:
            return cpu_rate("ppc64le", "IBM", "") or UNKNOWN_CPU_GB_S
        if generation == 5:
            model = "Sapphire Rapids"
        elif generation == 4 or _SYS - 1 in self.level.values():  # several host bridges a node: Skylake or later, or EPYC
            model = "Skylake"
        else:
            model = "Broadwell"
        vendor = "AuthenticAMD" if cpus > 2 and generation == 4 else "GenuineIntel"
        return cpu_rate("x86_64", vendor, model) or UNKNOWN_CPU_GB_S

