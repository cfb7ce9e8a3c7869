"""NCCL's rings and trees across several servers, version 2.30.

A ring goes through all GPUs of a server and on to the next; it enters beside the NIC that its channel has, so that every NIC
carries its part. A tree is a chain inside every server, whose heads are joined by NCCL's double binary tree (``ncclGetDtree``
in src/graph/trees.cc, half of the channels each). What NCCL searches for on one server it searches for with the NICs in the
graph on several; here the orders inside a server are those of its search without them, cut where a channel's NIC is, and
every NIC has two channels. The tuner is ``ncclTopoTuneModel`` and ``ncclTopoGetAlgoTime`` with the constants for two and for
more nodes; NVLS trees, CollNet, PAT, PXN and rails of unequal speed are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import log2

from ....errors import SimulationError
from ....packing.plan import Tree
from ....schedules.doubletrees import parent
from ....schedules.program import Program
from ....schedules.trees import TreeBuilder
from ....topology import Topology, pcie_distance, pcie_tree, route
from ...rotation import rotation_of
from .plan import NcclPlan, search
from .tuner import BYTES_PER_THREAD, PROTOCOLS, THREADS

Orders = tuple[tuple[int, ...], ...]

#: Steps of a ring program grow with ranks squared times channels; more than this (128 ranks in 16 channels) takes over a minute.
MOST_RING_STEPS = 600_000
#: The ways of a tree are looked for through the whole network, each in time linear in it.
MOST_TREE_RANKS = 2048
_SLOTS = 4
_DISTANCES = ("PIX", "PXB", "PHB", "NODE", "SYS", "NET", "-")

# ncclTunerConstantsDefaults, us: (LL, LL128, simple) inside by NVLink and PCIe, and over the network.
_BASE_US = {"tree": (6.8, 14.0, 8.4), "ring": (6.6, 14.0, 8.4)}
_INSIDE_US = {True: {"tree": (0.6, 1.25, 4.0), "ring": (0.6, 1.9, 3.4)}, False: {"tree": (1.0, 1.9, 4.0), "ring": (1.0, 2.5, 5.7)}}
_NET_US = {"tree": (5.0, 8.5, 14.0), "ring": (2.7, 4.0, 14.0)}
# Two nodes and more; Volta and before, Ampere, Hopper, Blackwell. GB/s.
_LL_MAX = ((39.0, 20.4), (22.5, 19.0), (45.0, 35.0), (90.0, 70.0))
_RING_LL128 = ((20.0, 20.0), (20.0, 20.0), (36.7, 36.7), (40.0, 40.0))
_TREE_LL128 = ((20.0, 20.0), (20.0, 20.0), (36.7, 29.0), (31.67, 20.0))
_TREE_MAX = ((18.5, 10.0), (23.6, 17.8), (41.4, 36.0), (42.8, 24.0))


@dataclass(frozen=True)
class ServersPlan:
    """What NCCL runs across servers.

    Parameters
    ----------
    topology, servers
        All ranks, and those of each server.
    rings
        Cyclic orders of all ranks, one a NIC; run twice each, half of the data.
    gb_s
        A channel's speed: what its NIC carries.
    crossings
        For pairs of ranks whose way leads over a GPU (NVB): that GPU's rank.
    """

    topology: Topology
    servers: Orders
    rings: Orders
    chains: tuple[Orders, ...]  # per ring: every server's GPUs from the one beside the NIC on
    gb_s: Fraction
    nvlink: bool
    generation: int
    crossings: dict[tuple[int, int], int]

    @property
    def path_type(self) -> str:
        """The farthest kind of path: ``"NET"``."""
        return "NET"

    def time_us(self, collective: str, algorithm: str, protocol: int, nbytes: int) -> float:
        """NCCL's estimate."""
        n, nodes = self.topology.nranks, len(self.servers)
        many = min(nodes, 3) - 2
        busbw = len(self.rings) * float(self.gb_s)
        inside, net = _INSIDE_US[self.nvlink][algorithm][protocol], _NET_US["tree" if n == nodes else algorithm][protocol]
        latency = _BASE_US[algorithm][protocol]
        if algorithm == "tree":
            # Two servers are the two trees' only edge: each direction of a NIC carries half of the data up and half down.
            busbw = min(busbw * (2 if nodes == 2 else 1) * 0.92, len(self.rings) * _TREE_MAX[self.generation][many])
            if protocol == 0:
                busbw = min(busbw / 3.8, _LL_MAX[self.generation][many])
            elif protocol == 1:
                busbw = min(busbw * 120 / 128, len(self.rings) * _TREE_LL128[self.generation][many])
            latency += 2 * ((n / nodes - 1) * inside + int(log2(nodes)) * net)
            return latency + nbytes / (500 * busbw)
        if protocol == 0:
            busbw = min(_LL_MAX[self.generation][many], busbw * 0.5)
        elif protocol == 1:
            busbw = min(busbw * 0.92, len(self.rings) * _RING_LL128[self.generation][many])
        steps = {"allreduce": 2 * (n - 1), "broadcast": n, "reduce": n}.get(collective, n - 1)
        if collective in ("broadcast", "reduce"):
            return latency + steps * (net if protocol < 2 else _NET_US["tree"][2]) + nbytes * steps / (1000 * busbw * n)
        between = (nodes - 1) * (2 if collective == "allreduce" else 1)
        overhead = 1.0 if protocol < 2 else 3.0
        latency += (steps - between) * max(inside, overhead) + between * net
        if protocol == 2 and collective == "allreduce" and nbytes / (2 * len(self.rings) * n) >= 64:
            latency *= 1.9 if self.generation == 0 else 1.4
        return latency + nbytes * steps / (1000 * busbw * n)

    def choose(self, collective: str, nbytes: int, only: str | None = None) -> tuple[str, str]:
        """The algorithm and the protocol that the tuner takes to be fastest."""
        algorithms = [a for a in (("ring", "tree") if collective == "allreduce" else ("ring",)) if only in (None, a)]
        protocols = (0, 1, 2) if self.nvlink else (0, 2)
        times = [(self.time_us(collective, a, p, nbytes), a, PROTOCOLS[p]) for a in algorithms for p in protocols]
        if not times:
            raise SimulationError(f"NCCL has no {only} for {collective} across servers; it has ring, and tree for allreduce")
        return min(times)[1:]


    def nchannels(self, algorithm: str, protocol: str, nbytes: int) -> int:
        """Two a NIC; fewer where each thread would have less than its share of bytes."""
        at = PROTOCOLS.index(protocol)
        share = THREADS[at] * BYTES_PER_THREAD[at] * (self.topology.nranks if (algorithm, protocol) == ("ring", "LL") else 1)
        return max(1, min(2 * len(self.rings), nbytes // share))


@lru_cache(maxsize=16)
def plan_servers(topology: Topology) -> ServersPlan:
    """The rings and chains of a cluster.

    Raises
    ------
    SimulationError
        Where a server has no NIC, or NVLink joins servers.
    TopologyError
        Where NCCL cannot be searched for on a server.
    """
    of_server: dict[int, list[int]] = {}
    for rank, device in enumerate(topology.devices):
        of_server.setdefault(device.server, []).append(rank)
    servers = tuple(tuple(of_server[s]) for s in sorted(of_server))
    check_domains(topology)
    alike = rotation_of(topology) is not None  # equal servers are searched once
    plans = [_search_one(topology, ranks) for ranks in (servers[:1] if alike else servers)]
    entries = [_entries(topology, ranks, device) for ranks, device, _ in zip(servers, sorted(of_server), plans, strict=False)]
    if alike:
        plans *= len(servers)
        entries = [[ranks[servers[0].index(rank)] for rank in entries[0]] for ranks in servers]
    channels = min(len(e) for e in entries)
    if not channels:
        raise SimulationError(f"topology {topology.name}: a server has no NIC for NCCL to leave it by")
    chains = tuple(
        tuple(_begin_at(_order(plan, c, ranks), entry[c]) for plan, ranks, entry in zip(plans, servers, entries, strict=True))
        for c in range(channels)
    )
    capability = min(int(d.arch.removeprefix("sm_").rstrip("abf")) for d in topology.devices)
    crossings = {
        (ranks[a], ranks[b]): ranks[middle]
        for plan, ranks in zip(plans, servers, strict=True)
        if plan is not None
        for (a, b), middle in plan.crossings.items()
    }
    return ServersPlan(
        topology=topology,
        servers=servers,
        rings=tuple(tuple(rank for chain in of_all for rank in chain) for of_all in chains),
        chains=chains,
        gb_s=min(_nic_gb_s(topology), default=Fraction(0)),
        nvlink=all(plan is None or plan.path_type in ("NVL", "NVB") for plan in plans),
        generation=3 if capability >= 100 else 2 if capability >= 90 else 1 if capability >= 80 else 0,
        crossings=crossings,
    )


def trees_across(plan: ServersPlan, nchannels: int, name: str) -> Program:
    """The all-reduce over double binary trees of the servers, a chain in each."""
    topology, nodes = plan.topology, len(plan.servers)
    builder = TreeBuilder(topology, _SLOTS)
    for share in range(nchannels):
        chains = plan.chains[share % len(plan.chains)]

        def named(place: int, second: bool = share >= max(1, nchannels // 2)) -> int:
            """The server at a place of the in-order tree; the second tree is its mirror image, or moved on by one."""
            if not second:
                return place
            return nodes - 1 - place if nodes % 2 == 0 else (place + 1) % nodes

        edges = [(chain[i + 1], chain[i]) for chain in chains for i in range(len(chain) - 1)]
        edges += [(chains[named(place)][0], chains[named(parent(place, nodes))][0]) for place in range(1, nodes)]
        up = tuple(route(topology, child, above) for child, above in edges)
        down = tuple(route(topology, above, child) for child, above in edges)
        builder.add(Tree(root=chains[named(0)][0], rate=Fraction(1), weight=Fraction(1, nchannels), up=up, down=down), share)
    return Program(
        algorithm=name, collective="allreduce", topology=topology, nshards=1, weights=(1,) * nchannels,
        connections=tuple(builder.connections), ranks=tuple(map(tuple, builder.channels)),
    )  # fmt: skip


def check_ranks(nranks: int, collective: str, algorithm: str | None) -> None:
    """Refuse at once, before NCCL's plan is searched for, what has no program whatever the plan.

    Raises
    ------
    SimulationError
        Naming the ranks and what to try.
    """
    if algorithm is None and collective == "allreduce" and nranks <= MOST_TREE_RANKS:
        return
    check_size(nranks, collective, algorithm or "ring", 1)


def check_size(nranks: int, collective: str, algorithm: str, nchannels: int) -> None:
    """Refuse what would take minutes.

    Raises
    ------
    SimulationError
        Naming the ranks and what to try.
    """
    n = nranks
    if algorithm == "tree":
        if n > MOST_TREE_RANKS:
            raise SimulationError(f"NCCL's trees over {n} ranks have no program: at most {MOST_TREE_RANKS} ranks; fewer servers show the same rate")
        return
    steps = n * nchannels * (2 * n if collective == "allreduce" else n if collective in ("allgather", "reducescatter") else 1)
    if steps > MOST_RING_STEPS:
        raise SimulationError(
            f"NCCL's rings over {n} ranks in {nchannels} channels are {steps} steps a chunk, more than {MOST_RING_STEPS}: on equal servers "
            f"run_baseline (blinkcoll simulate --algorithm nccl) simulates one for all; algorithm='tree' runs all-reduces of up to {MOST_TREE_RANKS} ranks"
        )


def check_domains(topology: Topology) -> None:
    """Refuse servers that NVLink joins: they are one node to NCCL, and an NVSwitch between them is no server's.

    Raises
    ------
    SimulationError
        Where NVLink leads from server to server.
    """
    home = {device.name: device.server for device in topology.devices} | {switch.name: switch.server for switch in topology.switches}
    if any(link.kind == "NVLINK" and home[link.src] != home[link.dst] for link in topology.links):
        raise SimulationError(f"topology {topology.name}: NVLink joins its servers (MNNVL), for which NCCL's search is not rebuilt; the GPUs of one server can be compared")


def _search_one(topology: Topology, ranks: tuple[int, ...]) -> NcclPlan | None:
    return None if len(ranks) == 1 else search(topology.subset([topology.devices[rank].name for rank in ranks]))


def _order(plan: NcclPlan | None, channel: int, ranks: tuple[int, ...]) -> tuple[int, ...]:
    if plan is None:
        return ranks
    return tuple(ranks[place] for place in plan.rings[channel % plan.common_channels])


def _begin_at(order: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return (*order[order.index(rank) :], *order[: order.index(rank)])


def _entries(topology: Topology, ranks: tuple[int, ...], server: int) -> list[int]:
    """For every NIC of a server the GPU beside it, each GPU before any has a second."""
    tree = pcie_tree(topology)
    nics = [switch.name for switch in topology.switches if switch.kind == "nic" and switch.server == server]
    taken = dict.fromkeys(ranks, 0)
    found = []
    for nic in nics:
        distances = {rank: _DISTANCES.index(pcie_distance(topology, topology.devices[rank].name, nic, tree)) for rank in ranks}
        nearest = min(ranks, key=lambda rank: (distances[rank], taken[rank], rank))
        taken[nearest] += 1
        found.append(nearest)
    return found


def _nic_gb_s(topology: Topology) -> list[Fraction]:
    nics = {switch.name for switch in topology.switches if switch.kind == "nic"}
    return [link.capacity for link in topology.links if link.src in nics]


def with_protocol(program: Program, protocol: str) -> Program:
    """All connections by one protocol."""
    return replace(program, connections=tuple(replace(c, protocol=protocol) for c in program.connections))
