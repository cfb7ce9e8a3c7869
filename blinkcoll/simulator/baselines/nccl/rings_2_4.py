"""NCCL 2.4's rings: no search over speeds, but every way of laying Hamiltonian cycles over whole NVLinks.

Rebuilt from src/misc/rings.cc (``fillCoords``, ``ncclGetRings``), src/transport/p2p.cc (``p2pCanConnect``,
``p2pGetRings`` and what it calls) and src/transport/shm.cc (``shmGetRings``) of NCCL 2.4.8, for one server. Ranks that
reach each other directly, if only through others, form a group; groups are joined through shared memory, and inside
each group rings are laid over NVLink or else over PCIe. Where that gives no ring NCCL takes the ranks in order, over
whatever lies between them. On one node 2.4 has no trees: they start at two nodes (``ncclTreeThreshold``).
"""

from __future__ import annotations

from dataclasses import dataclass

from .paths import Paths
from .system import Node, System

MAX_RINGS = 16  # MAXCHANNELS
_NVLINK, _NVSWITCH = 0x10, 0x100  # CONNECT_NVLINK, CONNECT_NVSWITCH (src/include/nvlink.h)
_P2P, _SHM = 0, 1
_MAX_LANES = 6  # getNvlinkGpu looks at six links, four before Volta
_MAX_LANES_PASCAL = 4
_MAX_SCORE = 7  # NCCL_MAX_SCORE
_BEST_PCI = 5  # 1 + PATH_SYS: the value of the nearest PCIe pair
_OVERSUBSCRIBED = 4  # with so few ranks half a lane may carry a ring
_MAX_NVLINK_RANKS = 8

Matrix = list[list[int]]


@dataclass(frozen=True)
class Rings:
    """The rings that 2.4 lays.

    Parameters
    ----------
    rings
        Each ring once, as ranks from rank 0 on, before NCCL doubles those over NVLink.
    nchannels_run
        The channels that NCCL makes of them.
    lanes_per_ring
        How much of an NVLink lane one ring takes: 1, or 1/2 where lanes were shared; 0 for rings that leave NVLink.
    fallback
        Whether no ring was found and the ranks are taken in order.
    """

    rings: tuple[tuple[int, ...], ...]
    nchannels_run: int
    lanes_per_ring: float
    fallback: bool


def rings_2_4(system: System, paths: Paths) -> Rings:
    """What ``ncclGetRings`` of 2.4.8 gives on one server."""
    transports, values = _connect_matrices(system, paths)
    n = len(system.gpus)
    if n == 1:
        return Rings(((0,),), 1, 0, False)
    groups = _groups(transports)
    shared: dict[tuple[int, int], _Found] = {}
    nexts, counts, last = [], [], _Found([], 0, False)
    for rank in range(n):
        last = _rings_of(rank, n, groups, transports, values, shared)
        counts.append(len(last.nexts))
        nexts.append(last.nexts)
    count = min(counts)
    if count == 0:
        return Rings((tuple(range(n)),), 1, 0, True)
    rings = tuple(_follow([nexts[rank][c][rank] for rank in range(n)]) for c in range(last.single))
    over_nvlink = all(values[a][b] >= _NVLINK for ring in rings for a, b in zip(ring, ring[1:] + ring[:1], strict=True))
    return Rings(rings, count, (0.5 if last.oversubscribed else 1) if over_nvlink else 0, False)


def _follow(following: list[int]) -> tuple[int, ...]:
    ring = [0]
    while following[ring[-1]] != 0:
        ring.append(following[ring[-1]])
    return tuple(ring)


# -- who reaches whom, and how well -----------------------------------------------------------------------------------


def _connect_matrices(system: System, paths: Paths) -> tuple[Matrix, Matrix]:
    """The transport of each pair (P2P or shared memory) and its value: lanes for NVLink, nearness for PCIe."""
    by_rank = sorted(system.gpus, key=lambda gpu: gpu.rank)
    transports, values = [], []
    for here in by_rank:
        pairs = [_value(system, paths, here, there) for there in by_rank]
        transports.append([_P2P if value else _SHM for value in pairs])
        values.append([value or 1 for value in pairs])
    return transports, values


def _value(system: System, paths: Paths, here: Node, there: Node) -> int:
    """``p2pCanConnect``: 0 where the pair must use shared memory."""
    if here is there:
        return _BEST_PCI
    if (here.name, there.name) in system.no_peer_access or (there.name, here.name) in system.no_peer_access:
        return 0
    lane_gb_s = system.version.lane_gb_s(here.compute_capability)
    most = _MAX_LANES if here.compute_capability >= 70 else _MAX_LANES_PASCAL
    switched = sum(round(e.gb_s / lane_gb_s) for e in here.edges if e.kind == "NVL" and e.to.kind == "NVS")
    if switched:
        return _NVSWITCH * min(switched, most)
    lanes = sum(round(e.gb_s / lane_gb_s) for e in here.edges if e.kind == "NVL" and e.to is there)
    if lanes:
        return _NVLINK * min(lanes, most)
    return _pci_value(here, there)


def _pci_value(here: Node, there: Node) -> int:
    """``1 + PATH_SYS - pciDistance``: 5 behind one bridge, 4 behind several, 3 through one host bridge; 0 (shared
    memory) between host bridges and between CPUs."""
    above_here, above_there = [here, *_way_up(here)], [there, *_way_up(there)]
    common = next((node for node in above_here if node in above_there), None)
    if common is None:
        return 0
    below_here = above_here[above_here.index(common) - 1]
    below_there = above_there[above_there.index(common) - 1]
    one_part = below_here.port == below_there.port
    if common.kind == "CPU":
        return 3 if one_part else 0
    return _BEST_PCI if one_part and (below_here, below_there) == (here, there) else 4


def _way_up(gpu: Node) -> list[Node]:
    """The PCI switches above a GPU and its CPU, nearest first (the link up is each node's last over PCI)."""
    way: list[Node] = []
    node = gpu
    while node.kind != "CPU":
        node = next(e.to for e in reversed(node.edges) if e.kind == "PCI")
        way.append(node)
    return way


def _groups(transports: Matrix) -> list[list[int]]:
    """Ranks that P2P connects, directly or through others, group by group (``fillCoords``); each in rank order."""
    n = len(transports)
    grouped: set[int] = set()
    groups: list[list[int]] = []
    current: int | None = 0
    while current is not None:
        group = _reached(current, transports)
        groups.append(group)
        grouped.update(group)
        # The next group is found from the last rank of this one.
        current = next((r for r in range(n) if r not in grouped and transports[group[-1]][r] == _SHM), None)
    return groups


def _reached(start: int, transports: Matrix) -> list[int]:
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for there, transport in enumerate(transports[here]):
            if transport == _P2P and there not in seen:
                seen.add(there)
                todo.append(there)
    return sorted(seen)


# -- rings as one rank sees them ------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """Per ring, next[rank] (-1 where this rank cannot know); how many before doubling, and whether lanes are shared."""

    nexts: list[list[int]]
    single: int
    oversubscribed: bool


def _rings_of(
    rank: int, n: int, groups: list[list[int]], transports: Matrix, values: Matrix, shared: dict[tuple[int, int], _Found]
) -> _Found:
    """``ncclGetRings`` as ``rank`` runs it: lower the score wanted until rings are found.

    Ranks of one group see the same, so what one found is ``shared``.
    """
    mine = next(i for i, group in enumerate(groups) if rank in group)
    found = _Found([], 0, False)
    for score in range(_MAX_SCORE, 0, -1):
        if (mine, score) not in shared:
            shared[mine, score] = _rings_at(score, n, groups, mine, transports, values)
        found = shared[mine, score]
        if found.nexts:
            break
    return found


def _rings_at(score: int, n: int, groups: list[list[int]], mine: int, transports: Matrix, values: Matrix) -> _Found:
    count = MAX_RINGS
    nexts = [[-1] * n for _ in range(MAX_RINGS)]
    prevs = [[-1] * n for _ in range(MAX_RINGS)]
    found = _Found([], 0, False)
    if len(groups) > 1:
        count = 1
        _join_groups(groups, nexts[0], prevs[0])
    group = groups[mine]
    if len(group) > 1:
        wanted = []
        for ring in range(count):
            start = next((r for r in group if prevs[ring][r] != -1), None)
            end = next((r for r in group if nexts[ring][r] != -1), None)
            wanted.append(None if start is None or end is None else (group.index(end), group.index(start)))
        local = [[values[a][b] if transports[a][b] == _P2P else 0 for b in group] for a in group]
        laid, doubled, found.oversubscribed = _lay(local, wanted, score)
        laid = laid[:count]
        found.single = len(laid)
        count = min(MAX_RINGS, 2 * len(laid)) if doubled else len(laid)
        laid = (laid * 2)[:count]
        for ring, ranks in enumerate(laid):
            for a, b in zip(ranks, ranks[1:] + ranks[:1], strict=True):
                if nexts[ring][group[a]] == -1:
                    nexts[ring][group[a]] = group[b]
    else:
        found.single = count
    found.nexts = nexts[:count]
    return found


def _join_groups(groups: list[list[int]], following: list[int], previous: list[int]) -> None:
    """One ring through all groups over shared memory: in at the first rank, out at the last (``shmGetRings``)."""
    for group, after in zip(groups, groups[1:] + groups[:1], strict=True):
        following[group[-1]] = after[0]
        previous[after[0]] = group[-1]


def _lay(values: Matrix, wanted: list[tuple[int, int] | None], score: int) -> tuple[list[list[int]], bool, bool]:
    """Rings inside one group (``p2pGetRings``), whether NCCL doubles them, and whether lanes are shared."""
    n = len(values)
    connected = wanted[0] is not None
    if n > 1 and values[0][1] >= _NVSWITCH:
        return _lay_on_switch(values, wanted, score)
    lanes = [sum(value // _NVLINK for value in row if value < _NVSWITCH) for row in values]
    if min(lanes) > 0 and n <= _MAX_NVLINK_RANKS:
        return _lay_on_nvlink(values, wanted)
    laid = [_lay_on_pcie(values, want, score) for want in (wanted if connected else [None])]
    return [ring for ring in laid if ring is not None], False, False


def _lay_on_switch(values: Matrix, wanted: list[tuple[int, int] | None], score: int) -> tuple[list[list[int]], bool, bool]:
    """Over NVSwitch: the ranks in order, once a lane, twice (``p2pComputeRingsSeqNew``, ``...SeqConnect``)."""
    n = len(values)
    rings = []
    for want in wanted:
        if want is None:
            break
        end, start = want
        ring = [end, start]
        for _ in range(n - 2):
            following = (ring[-1] + 1) % n
            while following in (end, start):
                following = (following + 1) % n
            ring.append(following)
        rings.append(ring)
    if rings:
        return rings, False, False
    count = min(len(wanted), values[0][1] // _NVSWITCH)
    return [list(range(n)) for _ in range(count)], True, False


def _lay_on_nvlink(values: Matrix, wanted: list[tuple[int, int] | None]) -> tuple[list[list[int]], bool, bool]:
    """Over direct NVLinks (``p2pComputeRingsNvLink``)."""
    connected = wanted[0] is not None
    rings = _most_rings([[value // _NVLINK for value in row] for row in values], len(wanted), wanted)
    if connected:
        return rings, False, False
    oversubscribed = False
    if rings and len(rings) < len(wanted) and len(values) <= _OVERSUBSCRIBED:
        more = _most_rings([[value // _NVLINK * 2 for value in row] for row in values], len(wanted), wanted)
        if len(more) > 2 * len(rings):
            rings, oversubscribed = more, True
    return rings, True, oversubscribed


def _most_rings(lanes: Matrix, most: int, wanted: list[tuple[int, int] | None]) -> list[list[int]]:
    """The first of the largest families of rings over whole lanes, depth first (``computeRingsRec``)."""
    return _Walk([list(row) for row in lanes], most, wanted).begin(0)


class _Walk:
    """Ring after ring, each through all ranks, taking a lane a hop.

    NCCL tries everything; here a branch ends as soon as it has as many rings as the scarcest rank has lanes, which
    changes the time and not the result (a later family replaces an earlier one only if it is larger).
    """

    def __init__(self, lanes: Matrix, most: int, wanted: list[tuple[int, int] | None]) -> None:
        self.lanes, self.most, self.wanted = lanes, most, wanted
        self.n = len(lanes)

    def begin(self, nth: int) -> list[list[int]]:
        """The rings that can be laid from the nth on."""
        want = self.wanted[nth]
        if want is not None:
            return self._extend(list(want), nth, self.most - nth)
        scarcest = min(min(sum(row) for row in self.lanes), min(sum(column) for column in zip(*self.lanes, strict=True)))
        return self._extend([0], nth, min(scarcest, self.most - nth))

    def _extend(self, ring: list[int], nth: int, bound: int) -> list[list[int]]:
        """The same, the nth begun as ``ring``."""
        here = ring[-1]
        row = self.lanes[here]
        if len(ring) == self.n:
            return self._close(ring, nth)
        best: list[list[int]] = []
        for there in range(self.n):
            if there in ring or row[there] <= 0:
                continue
            row[there] -= 1
            found = self._extend([*ring, there], nth, bound)
            row[there] += 1
            if len(found) > len(best):
                best = found
                if len(best) >= bound:
                    break
        return best

    def _close(self, ring: list[int], nth: int) -> list[list[int]]:
        row = self.lanes[ring[-1]]
        if row[ring[0]] <= 0:
            return []
        if nth + 1 == self.most:
            return [ring]
        row[ring[0]] -= 1
        rest = self.begin(nth + 1)
        row[ring[0]] += 1
        return [ring, *rest]


def _lay_on_pcie(values: Matrix, want: tuple[int, int] | None, score: int) -> list[int] | None:
    """The nearest rank next, and of the near ones the farthest from the end (``p2pComputeRingsPci``)."""
    n = len(values)
    if want is None:
        second = _closest(values, {0}, 0, None, score)
        if second is None:
            return None
        ring = [0, second]
    else:
        ring = list(dict.fromkeys(want))
    end = ring[0]
    while len(ring) < n:
        following = _closest(values, set(ring), ring[-1], end, score)
        if following is None:
            return None
        ring.append(following)
    if _closest(values, set(ring) - {end}, ring[-1], end, score) != end:
        return None
    return ring


def _closest(values: Matrix, taken: set[int], rank: int, end: int | None, score: int) -> int | None:
    for wanted in range(_BEST_PCI, score - 1, -1):
        near = [r for r in range(len(values)) if r not in taken and values[rank][r] == wanted]
        if near:
            if end is None:
                return near[0]
            # Strictly below PATH_SYS + 2, as findClosestPci compares.
            best = min(near, key=lambda r: values[end][r])
            return best if values[end][best] < _BEST_PCI + 1 else None
    return None
