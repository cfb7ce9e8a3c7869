"""``rocm-smi --showtopo`` and ``amd-smi topology``: tables of weights, hops and link types between GPUs, NUMA nodes.

The hop count is 1 between any two GPUs that xGMI joins somehow, so it tells nothing; the weight is 15 a hop of xGMI (the
kernel's KFD io_link weight). A pair of type XGMI is joined directly where its weight is 15 (or, in a table where all
differ from it, the smallest there is). How many links a pair has is in neither table: one is counted.
"""

from __future__ import annotations

import re
from itertools import combinations, pairwise

from .draft import UNKNOWN_CPU_GB_S, Draft
from .model import Device, GpuIndex, PciBusId, Switch, Topology
from .rates import CPU_LATENCY_US, PCIE_LATENCY_US, XGMI_LATENCY_US, pcie_generation_of, pcie_rate, xgmi_rate
from .source import Source
from .text_matrix import Matrix, read_matrices

_SECTIONS = (
    ("weight", re.compile(r"Weight between two GPUs|^\s*WEIGHT TABLE", re.IGNORECASE), re.compile(r"[0-9]{1,6}")),
    ("hops", re.compile(r"Hops between two GPUs|^\s*HOPS TABLE", re.IGNORECASE), re.compile(r"[0-9]{1,6}")),
    ("type", re.compile(r"Link Type between two GPUs|^\s*LINK TYPE TABLE", re.IGNORECASE), re.compile(r"0|SELF|XGMI|PCIE|N/A|UNKNOWN", re.IGNORECASE)),
    ("bandwidth", re.compile(r"^\s*NUMA BW TABLE", re.IGNORECASE), re.compile(r"N/A|[0-9]{1,7}-[0-9]{1,7}")),
)  # fmt: skip
_OTHER = re.compile(r"^\s*=+.*=+\s*$|^\s*[A-Z -]+ TABLE\b")
_NUMA = re.compile(r"GPU\s*\[?([0-9]{1,4})\]?\s*:\s*\(Topology\) Numa (Node|Affinity):\s*(-?[0-9]{1,5})")
_GFX = re.compile(r"\b(gfx[0-9a-f]{3,5})\b")
#: MB/s that the driver gives one xGMI link.
_XGMI_MB_S = 50000
#: One hop of xGMI in weights.
_HOP = 15


def parse_rocm_smi(source: Source, arch: str = "") -> Topology:
    """The machine in the text; ``arch`` where it names none.

    Raises
    ------
    TopologyError
        Where there is no table of link types (and none of weights to tell xGMI by), or tables are cut off.
    """
    tables = _tables(source)
    types, weights = tables.get("type"), tables.get("weight")
    if types is None and weights is None:
        raise source.error("has neither a table of link types nor one of weights (rocm-smi --showtopo)")
    labels = (types or weights).gpus  # type: ignore[union-attr]
    known = _GFX.search(source.text)
    direct = _direct(source, labels, types, weights)
    gfx = arch or (known.group(1) if known else "")
    rate_of = gfx or _guess(source, labels, direct)
    draft = Draft(re.split(r"[/\\]", source.name)[-1].removesuffix(".txt") or "machine")
    names = {}
    for i, label in enumerate(labels):
        match = re.fullmatch(r"GPU\[?([0-9]{1,4})\]?", label)
        index = int(match.group(1)) if match else i
        bus_id = None if match else PciBusId(label)
        names[label] = draft.add_device(Device(f"gpu{index}", index=GpuIndex(index), arch=gfx, bus_id=bus_id))
    counted = 0
    for a, b in direct:
        lanes = _lanes(tables.get("bandwidth"), a, b)
        counted += not lanes
        draft.wire(names[a], names[b], "XGMI", xgmi_rate(rate_of) * (lanes or 1), XGMI_LATENCY_US, lanes or 1)
    if counted:
        source.note("says not how many xGMI links join a pair: one is counted")
    _hang(source, draft, labels, names, weights, rate_of)
    return draft.build(None, source.notes)


def _lanes(bandwidths: Matrix | None, a: str, b: str) -> int:
    """xGMI links of a pair by ``amd-smi``'s table of least and most MB/s, 0 where it says nothing."""
    cell = bandwidths.cells.get((a, b), "") if bandwidths else ""
    most = int(cell.split("-")[1]) if "-" in cell else 0
    return min(8, round(most / _XGMI_MB_S))


def _tables(source: Source) -> dict[str, Matrix]:
    """The first table of each section."""
    starts: list[tuple[int, str, re.Pattern[str] | None]] = []
    for number, line in enumerate(source.lines):
        section = next(((name, cell) for name, head, cell in _SECTIONS if head.search(line[:200])), None)
        if section:
            starts.append((number, *section))
        elif _OTHER.match(line[:200]):
            starts.append((number, "", None))
    starts.append((len(source.lines), "", None))
    found: dict[str, Matrix] = {}
    for (first, name, cell), (last, _, _) in pairwise(starts):
        if cell is not None and name not in found:
            matrices = read_matrices(source, cell, first, last)
            if matrices:
                found[name] = matrices[0]
    return found


def _value(source: Source, table: Matrix, a: str, b: str, what: str) -> str:
    """The cell of a pair; both halves have to say the same."""
    cells = [table.cells[pair].upper() for pair in ((a, b), (b, a)) if pair in table.cells]
    if not cells:
        raise source.error(f"the table of {what} is cut off: it says nothing of {a} and {b}", table.line)
    if len(set(cells)) > 1:
        raise source.error(f"the table of {what} is not symmetric: {a} to {b} is {cells[0]}, {b} to {a} is {cells[1]}", table.rows[a])
    return cells[0]


def _direct(source: Source, labels: list[str], types: Matrix | None, weights: Matrix | None) -> list[tuple[str, str]]:
    """Pairs that a link of xGMI joins."""
    pairs = list(combinations(labels, 2))
    kinds = {p: _value(source, types, *p, "link types") for p in pairs} if types else dict.fromkeys(pairs, "")
    weight = {p: int(_value(source, weights, *p, "weights")) for p in pairs} if weights else dict.fromkeys(pairs, _HOP)
    if types is None:
        kinds = {p: "XGMI" if w and w % _HOP == 0 else "PCIE" for p, w in weight.items()}
        source.note("has no table of link types: pairs whose weight is a multiple of 15 are taken as xGMI")
    if weights is None and "XGMI" in kinds.values():
        source.note("has no table of weights: every pair of type XGMI is taken as joined directly, which its hops cannot tell")
    xgmi = {p: weight[p] for p, kind in kinds.items() if kind == "XGMI"}
    nearest = _HOP if _HOP in xgmi.values() else min(xgmi.values(), default=_HOP)
    farther = [p for p, w in xgmi.items() if w > nearest]
    if farther:
        source.note(f"{len(farther)} pairs of type XGMI have a weight above {nearest}: several hops apart, no link of their own")
    return [p for p, w in xgmi.items() if w <= nearest]


def _guess(source: Source, labels: list[str], direct: list[tuple[str, str]]) -> str:
    """The slowest GPU that is wired so: all of eight joined directly are MI300, else an MI200."""
    if not direct:
        return ""
    mesh = len(labels) == 8 and len(direct) == 28
    guess = "gfx942" if mesh else "gfx90a" if len(labels) > 2 else "gfx906"
    source.note(f"names no GPU model: xGMI links are planned as those of {guess}; --arch says otherwise")
    return guess


def _hang(source: Source, draft: Draft, labels: list[str], names: dict[str, str], weights: Matrix | None, arch: str) -> None:
    """GPUs at their NUMA nodes by PCIe; nothing tells of switches."""
    numa: dict[int, int] = {}
    for line in source.lines:
        match = _NUMA.search(line[:200])
        if match and (match.group(2) == "Node" or int(match.group(1)) not in numa) and int(match.group(3)) >= 0:
            numa[int(match.group(1))] = int(match.group(3))
    if any((draft.devices[names[label]].index or 0) not in numa for label in labels):
        source.note("says not for all GPUs which NUMA node they are at: those are taken to be at one")
    generation = pcie_generation_of(arch)
    source.note(f"shows no PCIe tree: each GPU is planned at its NUMA node, generation {generation or 3}, sixteen lanes")
    cpus: dict[int, str] = {}
    for label in labels:
        node = numa.get(draft.devices[names[label]].index or 0, 0)
        if node not in cpus:
            cpus[node] = draft.add_switch(Switch(f"cpu{node}", "cpu"))
        draft.wire(names[label], cpus[node], "PCIE", pcie_rate(generation, 16), PCIE_LATENCY_US, 16, generation)
    if len(cpus) > 1:
        source.note(f"names no CPU: {UNKNOWN_CPU_GB_S} GB/s are planned between NUMA nodes")
    for a, b in combinations(cpus.values(), 2):
        draft.wire(a, b, "CPU", UNKNOWN_CPU_GB_S, CPU_LATENCY_US)
