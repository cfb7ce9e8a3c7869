"""RCCL on one server of AMD GPUs: its rings over xGMI, its tuner, as programs.

RCCL does not search on the machines that it knows: their rings are tables in its sources (``src/graph/rome_models.cc`` at
0cbce2a7, October 2024). Where every pair of GPUs has a link the table for eight (``rome_model_79``, MI300X) loads every
directed link alike, as the cycles made here do for any number; for a whole MI250X machine (``rome_model_65``) they are
given. Elsewhere RCCL searches as NCCL does, and so does this, with xGMI lanes for NVLinks.

The tuner is ``ncclTopoTuneModel`` and ``ncclTopoGetAlgoTime`` in ``src/graph/tuning.cc``, for one server: rings, and
chains up and down that it calls trees. Not modelled: MSCCL's and MSCCL++'s kernels for small all-reduces, which RCCL of
2024 and later prefers up to about 1 MiB on MI300X.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from ...errors import SimulationError
from ...packing.collectives import canonical, check_root
from ...schedules.program import Program
from ...topology import Topology
from .nccl import p2p, search
from .nccl.programs import COLLECTIVES, ring_or_chain_program

Orders = tuple[tuple[int, ...], ...]

#: NCCL_MIN_NTHREADS of a channel and bytes a thread should have at least, by protocol (src/enqueue.cc).
_THREADS, _BYTES_PER_THREAD = 256, {"LL": 8, "LL128": 8, "simple": 64}

# rome_model_65: 16 GCDs of MI250X; the first and last rank of a ring meet over xGMI too.
_MI250X = """
9 8 12 13 5 4 0 1 3 2 6 7 15 14 10 11|3 2 6 7 15 14 10 11 9 8 12 13 5 4 0 1|7 6 2 3 1 0 4 5 13 12 8 9 11 10 14 15
15 14 10 11 9 8 12 13 5 4 0 1 3 2 6 7|11 10 14 15 7 6 2 3 1 0 4 5 13 12 8 9|1 0 4 5 13 12 8 9 11 10 14 15 7 6 2 3
6 7 3 2 1 0 4 5 14 15 11 10 9 8 12 13|14 15 11 10 9 8 12 13 6 7 3 2 1 0 4 5|5 4 0 1 2 3 7 6 13 12 8 9 10 11 15 14
13 12 8 9 10 11 15 14 5 4 0 1 2 3 7 6|8 9 13 12 4 5 1 0 2 3 7 6 14 15 11 10|10 11 15 14 6 7 3 2 0 1 5 4 12 13 9 8
12 13 9 8 10 11 15 14 6 7 3 2 0 1 5 4|4 5 1 0 2 3 7 6 14 15 11 10 8 9 13 12|2 3 7 6 14 15 11 10 8 9 13 12 4 5 1 0
0 1 5 4 12 13 9 8 10 11 15 14 6 7 3 2|10 11 9 8 12 13 5 4 0 1 3 2 6 7 15 14|6 7 15 14 10 11 9 8 12 13 5 4 0 1 3 2
2 3 1 0 4 5 13 12 8 9 11 10 14 15 7 6|14 15 7 6 2 3 1 0 4 5 13 12 8 9 11 10|0 1 2 3 7 6 13 12 8 9 10 11 15 14 5 4
8 9 10 11 15 14 5 4 0 1 2 3 7 6 13 12|7 6 13 12 8 9 10 11 15 14 5 4 0 1 2 3|3 2 1 0 4 5 14 15 11 10 9 8 12 13 6 7
12 13 6 7 3 2 1 0 4 5 14 15 11 10 9 8|4 5 14 15 11 10 9 8 12 13 6 7 3 2 1 0|1 0 2 3 7 6 14 15 11 10 8 9 13 12 4 5
13 12 4 5 1 0 2 3 7 6 14 15 11 10 8 9|11 10 8 9 13 12 4 5 1 0 2 3 7 6 14 15|5 4 12 13 9 8 10 11 15 14 6 7 3 2 0 1
15 14 6 7 3 2 0 1 5 4 12 13 9 8 10 11|9 8 10 11 15 14 6 7 3 2 0 1 5 4 12 13
"""


@dataclass(frozen=True)
class _Tuning:
    """A ``tuningModel`` of src/graph/tuning.cc for one server: us a hop, parts of the bandwidth, by (algorithm, protocol)."""

    hop_us: dict[tuple[str, str], float]
    part: dict[tuple[str, str], float]
    tree_correction: dict[str, tuple[float, ...]]
    base_gb_s: float | None = None


_BASE_US = {"LL": 12.0, "LL128": 12.0, "simple": 17.0}  # baseLat

# tuning_model_5 (gfx94): no LL128, and no simple chains on one server.
_GFX94 = _Tuning(
    hop_us={("tree", "LL"): 0.9, ("ring", "LL"): 0.8, ("ring", "simple"): 2.1},
    part={("tree", "LL"): 0.06, ("ring", "LL"): 0.08, ("ring", "simple"): 1.0},
    tree_correction={"LL": (*(0.1,) * 6, 1.0, 1.0, 1.0, 1.0, 1.0, 0.6, 1.0, 0.9, 1.0, 1.0, *(0.1,) * 11)},
)
# tuning_model_4 (gfx90a), with the bandwidth that rome_model_65 gives.
_GFX90A = _Tuning(
    hop_us={("tree", "LL"): 0.8, ("tree", "LL128"): 1.4, ("tree", "simple"): 2.5, ("ring", "LL"): 0.8, ("ring", "LL128"): 2.2, ("ring", "simple"): 3.6},
    part={("tree", "LL"): 0.16, ("tree", "LL128"): 1.09, ("tree", "simple"): 1.61, ("ring", "LL"): 0.15, ("ring", "LL128"): 0.41, ("ring", "simple"): 1.0},
    tree_correction={
        "LL": (*(0.1,) * 8, 1.0, 0.1, 0.1, 0.2, 0.4, 0.6, 0.5, *(0.1,) * 12),
        "LL128": (*(0.1,) * 9, 0.2, 0.1, 0.1, 0.2, 1.0, 0.5, *(0.2,) * 12),
        "simple": (*(1.0,) * 8, 0.8, 0.4, 0.3, 0.3, 0.1, 0.1, 1.0, 1.0, 0.7, 0.5, 0.6, 0.5, 0.6, 0.6, 0.5, 0.6, 0.6, 0.6, 0.7),
    },
    base_gb_s=161.4,
)


def rccl_program(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """What RCCL runs for a collective of ``nbytes`` on one server.

    Raises
    ------
    SimulationError
        For GPUs that are not AMD's of the gfx90a or gfx94 kind, or several servers.
    TopologyError
        Where no ring is found, or nothing leads from a rank to the next.
    """
    collective = canonical(collective)
    root = check_root(collective, root, topology.nranks)
    _check(topology)
    if collective in p2p.COLLECTIVES:
        protocol = "LL" if nbytes // topology.nranks <= p2p.LL_THRESHOLD else "simple"
        nchannels = p2p.channels_per_peer(topology.nranks, [1.0])
        return _sent(topology, collective, root, protocol, nchannels)
    algorithm, protocol = choose(topology, collective, nbytes)
    return _built(topology, collective, root, algorithm, protocol, _nchannels(topology, algorithm, protocol, nbytes))


def rccl_rings_program(topology: Topology, collective: str, root: int | None, protocol: str) -> Program:
    """All of RCCL's rings by one protocol, whatever its tuner says.

    Raises
    ------
    SimulationError, TopologyError
        As :func:`rccl_program`.
    """
    _check(topology)
    return _built(topology, collective, root, "ring", protocol, len(rings(topology)))


def choose(topology: Topology, collective: str, nbytes: int) -> tuple[str, str]:
    """The algorithm and protocol that RCCL's tuner takes to be fastest."""
    tuning, n = _tuning(topology), topology.nranks
    if n == 1:
        return "ring", "simple"
    steps = {"allreduce": 2 * (n - 1), "broadcast": n, "reduce": n}.get(collective, n - 1)
    total = tuning.base_gb_s if tuning.base_gb_s is not None and n == 16 else float(_least_leaving(topology))
    log = min(max((nbytes >> 6).bit_length() - 1, 0), 26)
    times = []
    for (algorithm, protocol), part in tuning.part.items():
        gb_s = total * part
        if algorithm == "tree":
            if collective != "allreduce":
                continue
            gb_s *= 0.5 * tuning.tree_correction[protocol][log]
            hops = 2 * (n - 1)
        else:
            if protocol == "LL" and collective in ("broadcast", "reduce") and topology.devices[0].arch.startswith("gfx94"):
                gb_s *= 1.65
            gb_s *= n / steps
            hops = 1 if collective in ("broadcast", "reduce") and n < 3 else steps
        times.append((_BASE_US[protocol] + hops * tuning.hop_us[algorithm, protocol] + nbytes / (1000 * gb_s), algorithm, protocol))
    return min(times)[1:]


def _tuning(topology: Topology) -> _Tuning:
    return _GFX94 if topology.devices[0].arch.startswith(("gfx94", "gfx95")) else _GFX90A


def _check(topology: Topology) -> None:
    for device in topology.devices:
        if not device.arch.startswith(("gfx90a", "gfx94", "gfx95")):
            raise SimulationError(f"{device.name} has architecture {device.arch!r}: RCCL is modelled for gfx90a, gfx94 and gfx95; nccl is for NVIDIA GPUs")
    if len({device.server for device in topology.devices}) > 1:
        raise SimulationError(f"topology {topology.name}: RCCL is modelled for one server; these devices are of several")


def _lanes(topology: Topology) -> dict[tuple[int | str, int | str], int]:
    lanes: dict[tuple[int | str, int | str], int] = {}
    for link in topology.links:
        if link.kind == "XGMI":
            hop = (topology.vertex(link.src), topology.vertex(link.dst))
            lanes[hop] = lanes.get(hop, 0) + link.lanes
    return lanes


def _least_leaving(topology: Topology) -> Fraction:
    """``totalBw``: what the xGMI links of the scarcest GPU carry."""
    leaving = {rank: Fraction(0) for rank in range(topology.nranks)}
    for link in topology.links:
        rank = topology.vertex(link.src)
        if link.kind == "XGMI" and isinstance(rank, int):
            leaving[rank] += link.capacity
    return min(leaving.values()) or Fraction(12)


@lru_cache(maxsize=64)
def rings(topology: Topology) -> Orders:
    """The rings that RCCL runs."""
    n, lanes = topology.nranks, _lanes(topology)
    if n <= 2:
        return (tuple(range(n)),) * 4
    if all((a, b) in lanes for a in range(n) for b in range(n) if a != b) and len(set(lanes.values())) == 1:
        return cycles_of_a_mesh(n) * 2  # the table for eight lists each of its fourteen twice
    known = tuple(tuple(map(int, ring.split())) for line in _MI250X.split("\n") for ring in line.split("|") if ring)
    if n == 16 and all(hop in lanes for ring in known for hop in zip(ring, ring[1:] + ring[:1], strict=True)):
        return known
    return _searched(topology)


def cycles_of_a_mesh(n: int) -> Orders:
    """Cycles through all of n vertices, n of at least 3, that together use every directed pair equally often.

    One zigzag over the residues modulo n - 1 (0, 1, -1, 2, ...) with a pole, its n - 1 rotations, and all of these the
    other way round: every distance occurs twice in a zigzag, so every pair is in two of the cycles (Walecki, in Lucas,
    Récréations mathématiques II, 1883).
    """
    m = n - 1
    zigzag = [(i + 1) // 2 if i % 2 else -(i // 2) for i in range(m)]
    forth = [(m, *((v + turn) % m for v in zigzag)) for turn in range(m)]
    return tuple((*forth, *(tuple(reversed(cycle)) for cycle in forth)))


def _searched(topology: Topology) -> Orders:
    """The rings that NCCL's search finds on the same graph with NVLinks."""
    links = tuple(replace(k, kind="NVLINK") if k.kind == "XGMI" else k for k in topology.links)
    devices = tuple(replace(d, arch="sm_80") for d in topology.devices)
    parent = topology
    while parent.parent is not None:
        parent = parent.parent
    found = search(replace(topology, devices=devices, links=links, parent=parent)).rings
    return found * (2 if len(found) * 2 <= 64 else 1)


def _nchannels(topology: Topology, algorithm: str, protocol: str, nbytes: int) -> int:
    share = _THREADS * _BYTES_PER_THREAD[protocol] * (topology.nranks if algorithm == "ring" and protocol == "LL" else 1)
    return max(1, min(len(rings(topology)), nbytes // share))


@lru_cache(maxsize=128)
def _built(topology: Topology, collective: str, root: int | None, algorithm: str, protocol: str, nchannels: int) -> Program:
    orders = rings(topology)[:nchannels]
    return ring_or_chain_program(topology, collective, root, orders, algorithm=algorithm, protocol=protocol, name=f"rccl-{algorithm}")


@lru_cache(maxsize=64)
def _sent(topology: Topology, collective: str, root: int | None, protocol: str, nchannels: int) -> Program:
    return p2p.p2p_program(topology, collective, root, protocol=protocol, nchannels=nchannels, crossed={}, algorithm="rccl-p2p")


__all__ = ["COLLECTIVES", "choose", "cycles_of_a_mesh", "rccl_program", "rccl_rings_program", "rings"]
