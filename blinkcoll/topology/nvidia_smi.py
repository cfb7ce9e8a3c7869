"""``nvidia-smi topo -m``, with ``topo -p2p`` and ``nvidia-smi -L`` where the same text has them.

The matrix says NV# (bonded NVLinks) for a pair *or* its PCIe distance, never both, and nothing about rates, models or
switches. What follows from it for certain is kept: NVLinks; NVSwitches where a GPU would need more links than any GPU
has; the PCIe tree of what it shows, where hidden distances follow from the tree being a tree (of three distances the two
largest are equal). What has to be assumed (the rate of a link of an unknown model) is noted.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

from ..errors import TopologyError
from .draft import Draft
from .gpu_models import arch_of_model
from .model import Device, GpuIndex, PciBusId, Switch, Topology, Uuid
from .pcie_matrix import PcieMatrix
from .rates import MOST_NVLINKS, most_nvlinks, pcie_generation_of
from .source import Source
from .text_matrix import Matrix, read_matrices

_CELL = re.compile(r"X|NV[0-9]{1,4}|PIX|PXB|PHB|PSB|NODE|SYS|SOC|N/A|DIS", re.IGNORECASE)
_P2P = re.compile(r"X|OK|CNS|GNS|TNS|NS|DR|U", re.IGNORECASE)
_REFUSALS = {
    "CNS": "the chipset does not support it", "GNS": "the GPU does not support it", "TNS": "the topology does not support it",
    "NS": "it is not supported", "DR": "it is disabled in the registry", "U": "unknown",
}  # fmt: skip
#: Words of older drivers.
_OLD = {"SOC": "SYS", "PSB": "PIX"}
_FARTHER = ("PIX", "PXB", "PHB", "NODE", "SYS")


def parse_nvidia_smi(source: Source, arch: str = "") -> Topology:
    """The machine in the text; ``arch`` for GPUs whose model it does not name.

    Raises
    ------
    TopologyError
        Where there is no matrix of links, or it is cut off so that links between GPUs are unknown.
    """
    links = [m for m in read_matrices(source, _CELL) if _tells_links(m)]
    p2p = [m for m in read_matrices(source, _P2P) if any(c != "X" for c in m.cells.values())]
    if not links:
        if p2p:
            raise source.error(
                f"is a matrix of who may access whom (nvidia-smi topo -p2p, {len(p2p[0].gpus)} GPUs), which names no link; "
                "put the output of nvidia-smi topo -m into the same file",
                p2p[0].line,
            )
        raise source.error("mentions GPUs but has no matrix of links between them (nvidia-smi topo -m)")
    return _Reader(source, links[0], arch).read(p2p[0] if p2p else None)


def _tells_links(matrix: Matrix) -> bool:
    """Whether a table has links in it, not only X and rubbish; that of a single GPU has nothing else."""
    told = any(cell != "X" for cell in matrix.cells.values()) or (len(matrix.gpus) == 1 and bool(matrix.cells))
    return told and any(row in matrix.gpus for row in matrix.rows)


class _Reader:
    """Turns one matrix into a topology."""

    def __init__(self, source: Source, matrix: Matrix, arch: str) -> None:
        self.source, self.matrix, self.given = source, matrix, arch
        self.draft = Draft(re.split(r"[/\\]", source.name)[-1].removesuffix(".txt") or "machine")
        self.gpus = matrix.gpus
        self.models = _models(source)
        self.legend = {m[1]: m[2] for line in source.lines if (m := re.fullmatch(r"[\s>|]{0,20}(NIC[0-9]{1,4}):\s+(\S{1,60})\s*", line[:200]))}
        self.cells: dict[frozenset[str], str] = {}

    def read(self, p2p: Matrix | None) -> Topology:
        self._pair_up()
        lanes = self._lanes()
        archs = {gpu: arch_of_model(self.models.get(_index(gpu), _Model()).name) or self.given for gpu in self.gpus}
        switched = self._behind_nvswitch(lanes, archs)
        guess = next((a for a in archs.values() if a), "") or self._guess(lanes, switched)
        for gpu in self.gpus:
            self._device(gpu, archs[gpu])
        self._wire(lanes, switched, {gpu: archs[gpu] or guess for gpu in self.gpus})
        self._pcie(guess)
        if p2p is not None:
            self._refused(p2p)
        order = sorted(self.draft.devices, key=lambda name: self.draft.devices[name].index or 0)
        return self.draft.build(order, self.source.notes)

    # -- the matrix ---------------------------------------------------------------------------------------------

    def _pair_up(self) -> None:
        """One cell a pair, from both halves of the matrix."""
        for row, word, line in self.matrix.rubbish:
            self.source.note(f"the row of {row} cannot be read from {word[:20]!r} on; the other half of the matrix is used", line)
        missing: list[tuple[str, str]] = []
        missing_nics: list[tuple[str, str]] = []
        for a, b in combinations(self.matrix.columns, 2):
            cell = self._agreed(a, b)
            if cell is not None:
                self.cells[frozenset((a, b))] = cell
            else:
                (missing if a in self.gpus and b in self.gpus else missing_nics).append((a, b))
        if missing:
            a, b = missing[0]
            raise self.source.error(
                f"the matrix is cut off: {len(missing)} of {len(self.gpus) * (len(self.gpus) - 1) // 2} pairs of GPUs are in "
                f"neither half, {a} and {b} first",
                self.matrix.rows.get(b, self.matrix.rows.get(a, self.matrix.line)),
            )
        unknown = []
        while gaps := Counter(n for a, b in missing_nics for n in (a, b) if n not in self.gpus):
            worst = max(gaps, key=lambda n: gaps[n])
            unknown.append(worst)
            missing_nics = [pair for pair in missing_nics if worst not in pair]
        if unknown:
            self.source.note(f"where {', '.join(unknown[:4])}{' and others' if len(unknown) > 4 else ''} hang cannot be told: left out")
            self.matrix.columns = [c for c in self.matrix.columns if c not in unknown]

    def _agreed(self, a: str, b: str) -> str | None:
        """What the matrix says of a pair; where its halves differ, what both allow: fewer links, the farther way."""
        words = [self.matrix.cells.get(pair) for pair in ((a, b), (b, a))]
        cells = [_OLD.get(w.upper(), w.upper()) for w in words if w is not None and w.upper() not in ("N/A", "DIS")]
        if not cells:
            return None
        if "X" in cells:
            self.source.note(f"says X (itself) of {a} and {b}, which are two; that cell is not used", self.matrix.rows.get(a) or self.matrix.rows.get(b))
            cells = [c for c in cells if c != "X"]
            if not cells:
                return None
        if len(set(cells)) == 1:
            return cells[0]
        lanes = [int(c[2:]) for c in cells if c.startswith("NV")]
        kept = f"NV{min(lanes)}" if len(lanes) == 2 else max((c for c in cells if not c.startswith("NV")), key=_FARTHER.index)
        self.source.note(f"is not symmetric: {a} to {b} is {cells[0]}, {b} to {a} is {cells[1]}; {kept} is kept", self.matrix.rows[a])
        return kept

    def _lanes(self) -> dict[frozenset[str], int]:
        lanes = {pair: int(cell[2:]) for pair, cell in self.cells.items() if cell.startswith("NV")}
        stray = [p for p in lanes if not p.issubset(self.gpus)]
        if stray:
            self.source.note(f"shows NVLinks of {' and '.join(sorted(stray[0]))}, which are not both GPUs: not used", self.matrix.line)
        return {pair: n for pair, n in lanes.items() if n and pair not in stray}

    # -- NVLink -------------------------------------------------------------------------------------------------

    def _behind_nvswitch(self, lanes: dict[frozenset[str], int], archs: dict[str, str]) -> dict[str, int]:
        """The GPUs behind NVSwitches with their links: those that would need more links than they have.

        Between such GPUs a cell shows the links to the switches of the one that has fewer (a link may be down). Where
        cells cannot be that, the matrix contradicts itself.
        """
        total: Counter[str] = Counter()
        for pair, n in lanes.items():
            for gpu in pair:
                total[gpu] += n
        over = [gpu for gpu in self.gpus if total[gpu] > self._most(archs[gpu], gpu, lanes)]
        own = {gpu: max(n for pair, n in lanes.items() if gpu in pair) for gpu in over}
        found: dict[str, int] = {}
        for gpu in over:
            most = most_nvlinks(archs[gpu])
            cells = {other: lanes.get(frozenset((gpu, other)), 0) for other in over if other != gpu}
            if own[gpu] <= most and cells and all(n == min(own[gpu], own[other]) for other, n in cells.items()):
                found[gpu] = own[gpu]
                continue
            self.source.note(
                f"{gpu} would have {total[gpu]} NVLinks, a {archs[gpu] or 'GPU'} has at most {most}; which of them exist cannot be told, "
                "so none is kept",
                self.matrix.rows.get(gpu),
            )
            for pair in [p for p in lanes if gpu in p]:
                del lanes[pair]
        return found if len(found) > 1 else {}

    def _most(self, arch: str, gpu: str, lanes: dict[frozenset[str], int]) -> int:
        """How many NVLinks a GPU can have; of an unknown model by what its cells show.

        Four GPUs that show NV4 or NV6 of each other are an HGX A100 or H100 with four GPUs, joined directly; any other
        set whose cells are all alike, and are as many as a whole V100, A100 or H100 has, is behind NVSwitches.
        """
        if arch:
            return most_nvlinks(arch)
        own = [n for pair, n in lanes.items() if gpu in pair]
        if len(own) > 1 and set(own) == {6} and len(own) != 3:
            return 6
        return own[0] if len(own) > 1 and len(set(own)) == 1 and own[0] in (8, 12) else MOST_NVLINKS

    def _guess(self, lanes: dict[frozenset[str], int], switched: dict[str, int]) -> str:
        """The architecture to plan with where the text names no model: the slowest that has such links."""
        if not lanes:
            return ""
        total: Counter[str] = Counter()
        for pair, n in lanes.items():
            for gpu in pair:
                total[gpu] += n
        most = max(switched.values()) if switched else max(total.values())
        one_peer = max(Counter(gpu for pair in lanes for gpu in pair).values()) == 1
        if self._power9():
            guess = "sm_70"
        elif most <= 4:  # bridges: two links on Turing, four on Ampere
            guess = "sm_60" if not one_peer else "sm_75" if most <= 2 else "sm_86"
        else:
            guess = "sm_70" if most <= 6 else "sm_80" if most <= 12 else "sm_90"
        self.source.note(f"names no GPU model: {most} NVLinks a GPU are planned as those of {guess}; --arch says otherwise")
        return guess

    def _wire(self, lanes: dict[frozenset[str], int], switched: dict[str, int], archs: dict[str, str]) -> None:
        if switched:
            switch = self.draft.add_nvswitch(archs[next(iter(switched))], 1)
            for gpu, n in switched.items():
                self.draft.wire_nvlinks(_name(gpu), switch, n, archs[gpu])
        for pair, n in lanes.items():
            a, b = sorted(pair, key=self.gpus.index)
            if a not in switched or b not in switched:
                self.draft.wire_nvlinks(_name(a), _name(b), n, archs[a])

    # -- the rest -----------------------------------------------------------------------------------------------

    def _device(self, gpu: str, arch: str) -> None:
        index = _index(gpu)
        model = self.models.get(index, _Model())
        self.draft.add_device(
            Device(_name(gpu), index=GpuIndex(index), arch=arch, bus_id=model.bus_id, uuid=model.uuid, model=model.name)
        )

    def _numa(self, label: str) -> tuple[str, str]:
        """CPU affinity and NUMA node of a row, "" where they are not there."""
        fields = [*self.matrix.rest.get(label, []), "", ""]
        affinity = fields[0] if re.fullmatch(r"[0-9][0-9,-]*", fields[0]) else ""
        numa = fields[1] if re.fullmatch(r"[0-9]{1,4}", fields[1]) else ""
        return affinity, numa

    def _power9(self) -> bool:
        """POWER9 numbers the memory of its second CPU 8; no other machine has just these two."""
        return {numa for gpu in self.gpus if (numa := self._numa(gpu)[1])} == {"0", "8"}

    def _pcie(self, guess: str) -> None:
        names = {label: _name(label) if label in self.gpus else self._nic(label) for label in self.matrix.columns}
        generation = pcie_generation_of(guess)
        tree = PcieMatrix(
            {pair: cell for pair, cell in self.cells.items() if cell in _FARTHER and pair.issubset(names)},
            {label: self._numa(label) for label in names}, self.source,
        )  # fmt: skip
        to_cpu: dict[str, int] = {}
        if self._power9():
            total: Counter[str] = Counter()
            for pair, n in self._lanes().items():
                total.update(dict.fromkeys(pair, n))
            to_cpu = {gpu: most_nvlinks("sm_70") - n for gpu, n in total.items() if n < most_nvlinks("sm_70")}
            self.source.note("NUMA nodes 0 and 8 are those of POWER9: the NVLinks of each V100 that join no GPU go to its CPU")
        tree.hang(self.draft, names, generation, to_cpu if self._power9() else None)

    def _nic(self, label: str) -> str:
        name = self.legend.get(label, label.lower() if label.startswith("NIC") else label)
        return self.draft.add_switch(Switch(name, "nic"))

    def _refused(self, p2p: Matrix) -> None:
        """Pairs that the driver refuses lose their NVLinks and are staged through host memory."""
        devices = set(self.draft.devices)
        count: Counter[str] = Counter()
        for (a, b), cell in p2p.cells.items():
            pair = _name(a), _name(b)
            if cell.upper() in _REFUSALS and devices.issuperset(pair) and a != b:
                count[cell.upper()] += 1
                self.draft.no_peer_access.append(pair)
                self.draft.links = [k for k in self.draft.links if k.kind != "NVLINK" or {k.src, k.dst} != set(pair)]
        for cell, n in count.items():
            self.source.note(f"{n} ordered pairs of GPUs have no peer access ({_REFUSALS[cell]}): staged through host memory", p2p.line)


class _Model:
    """What ``nvidia-smi`` and ``nvidia-smi -L`` print about one GPU."""

    def __init__(self, name: str = "", uuid: str = "", bus_id: str = "") -> None:
        self.name = name
        self.uuid = Uuid(uuid) if uuid else None
        self.bus_id = PciBusId(bus_id) if bus_id else None


def _models(source: Source) -> dict[int, _Model]:
    found: dict[int, _Model] = {}
    for line in source.lines:
        listed = re.search(r"\bGPU ([0-9]{1,4}): ([^()\n]{2,60}?)\s*\(UUID: (GPU-[0-9a-f-]{8,40})\)", line[:400])
        table = re.match(r"\|\s+([0-9]{1,4})\s+(\S.{1,40}?)\s+(?:On|Off|N/A|WDDM|TCC)?\s*\|\s*([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])\s", line[:400])
        if listed:
            found.setdefault(int(listed.group(1)), _Model(listed.group(2), listed.group(3)))
        elif table:
            index = int(table.group(1))
            known = found.get(index, _Model())
            try:
                found[index] = _Model(known.name or table.group(2), known.uuid or "", table.group(3))
            except TopologyError:
                continue
    return found


def _index(label: str) -> int:
    return int(re.sub(r"[^0-9]", "", label) or 0)


def _name(label: str) -> str:
    return f"gpu{_index(label)}"
