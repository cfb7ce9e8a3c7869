"""What NCCL would run on a server: ``search`` and the plan that it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from ....topology import Topology
from .compute import Graph, Searcher
from .log import info_log
from .paths import Paths
from .rates import busbw
from .rings_2_4 import Rings, rings_2_4
from .system import System, build_system
from .tuner import Choice, Tuner
from .versions import BALANCED_TREE, NVLS, RING, SPLIT_TREE, Version, version_named


@dataclass(frozen=True)
class NcclPlan:
    """The graphs of one version of NCCL on one topology, in ranks of that topology.

    Parameters
    ----------
    topology, version
        What was searched, by which version.
    ring, tree, nvls
        The graphs found; ``tree`` is None in 2.4, ``nvls`` where there is no NVSwitch that multicasts.
    nchannels_run
        The channels NCCL runs: each of the search's twice (``ncclTopoPostset``), half the data each.
    system, paths, tuner
        What the graphs were found on, and what picks among them.
    """

    topology: Topology
    version: Version
    ring: Graph
    tree: Graph | None
    nvls: Graph | None
    nchannels_run: int
    system: System = field(repr=False, compare=False)
    paths: Paths = field(repr=False, compare=False)
    tuner: Tuner = field(repr=False, compare=False)

    @property
    def nchannels(self) -> int:
        """Channels of the ring graph, before NCCL doubles them."""
        return self.ring.nchannels

    @property
    def gb_s_per_channel(self) -> Fraction:
        """The speed of a channel of the ring graph by NCCL's own constants, GB/s."""
        return self.ring.gb_s

    @property
    def path_type(self) -> str:
        """The farthest kind of path that the ring graph may take: NVL, NVB, PIX, PXB, PHB or SYS."""
        return self.ring.path_type

    @property
    def rings(self) -> tuple[tuple[int, ...], ...]:
        """The rings, as ranks."""
        return self.ring.channels

    @property
    def trees(self) -> tuple[tuple[int, ...], ...]:
        """The trees: on one server chains, from the root down, as ranks. None in 2.4."""
        return self.tree.channels if self.tree is not None else ()

    @property
    def common_channels(self) -> int:
        """Channels that both graphs have; NCCL uses no more of either."""
        return min(self.ring.nchannels, self.tree.nchannels) if self.tree is not None else self.ring.nchannels

    @property
    def ring_busbw(self) -> Fraction:
        """What the rings carry as an all-reduce, GB/s of bus bandwidth (nccl-tests' convention); see ``rates.py``."""
        return busbw(self.system, self.paths, self.ring, self.common_channels)

    @property
    def tree_busbw(self) -> Fraction | None:
        """The same of the trees; None in 2.4."""
        return None if self.tree is None else busbw(self.system, self.paths, self.tree, self.common_channels)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What NCCL looks up and the topology does not say."""
        return self.system.assumptions

    @cached_property
    def crossings(self) -> dict[tuple[int, int], int]:
        """For pairs of ranks that reach each other over a third GPU's NVLinks (NVB): that GPU's rank."""
        ranks = {gpu.name: gpu.rank for gpu in self.system.gpus}
        return {
            # GPU - its device - the device crossed - the other's device - GPU.
            (here.rank, there.rank): ranks[self.paths[here, there].edges[1].to.name]
            for here in self.system.gpus
            for there in self.system.gpus
            if here is not there and self.paths.type_name(here, there) == "NVB"
        }

    def choose(self, nbytes: int, collective: str = "allreduce") -> Choice:
        """The algorithm, protocol and number of channels that NCCL's tuner picks for a size."""
        return self.tuner.choose(nbytes, collective)

    def explain(self) -> str:
        """The plan as NCCL's INFO log would show it, with reasons."""
        return info_log(self)


def search(topology: Topology, version: str = "2.30", *, cpu: str | None = None) -> NcclPlan:
    """What NCCL plans on ``topology``, by a rebuilding of its own search.

    Parameters
    ----------
    topology
        One server's NVIDIA GPUs; rank i of NCCL's communicator is rank i.
    version
        "2.30", "2.7" (before NCCL could cross a GPU over NVLink) or "2.4" (rings only on one node).
    cpu
        The CPU model (``system.CPU_MODELS``), where its interconnect's capacity does not tell.

    Raises
    ------
    TopologyError
        For another version, several servers, or devices that NCCL does not run on.

    Notes
    -----
    The search is bounded by steps, not by time: milliseconds for most sets of eight GPUs, under a second for all.
    See ``docs/baselines.md`` for the sources and for where this departs from them.

    Examples
    --------
    >>> from blinkcoll.topology import load_topology
    >>> plan = search(load_topology("dgx1-v100").subset([0, 1, 4]))
    >>> plan.nchannels, int(plan.gb_s_per_channel), plan.path_type
    (1, 20, 'NVB')
    """
    rules = version_named(version)
    system = build_system(topology, rules, cpu)
    paths = Paths(system)
    if rules.name == "2.4":
        laid = rings_2_4(system, paths)
        ring = _graph_of_rings(laid, system, paths)
        return _plan(topology, system, paths, ring, None, None, laid.nchannels_run)
    searcher = Searcher(system, paths)
    ring = searcher.graph(RING, 1, rules.channel_limit // 2)
    if rules.name == "2.7":
        tree = searcher.graph(SPLIT_TREE, 1, ring.nchannels)
        nvls = None
    else:
        tree = searcher.graph(BALANCED_TREE, ring.nchannels, ring.nchannels)
        nvls = _nvls(searcher)
    return _plan(topology, system, paths, ring, tree, nvls, min(rules.channel_limit, 2 * min(ring.nchannels, tree.nchannels)))


def _nvls(searcher: Searcher) -> Graph | None:
    """The heads that pull from the switches, where switches add and multicast and GPUs can use it (``ncclNvlsInit``)."""
    system = searcher.system
    if not system.multicast or system.compute_capability < 90 or searcher.ngpus < 2:
        return None
    graph = searcher.graph(NVLS, 1, system.version.channel_limit)
    return graph if graph.nchannels else None


def _plan(
    topology: Topology, system: System, paths: Paths, ring: Graph, tree: Graph | None, nvls: Graph | None, nchannels_run: int
) -> NcclPlan:
    common = ring.nchannels if tree is None else min(ring.nchannels, tree.nchannels)
    tuner = Tuner(
        system.version, topology.nranks, system.compute_capability, system.cpu,
        ring=ring, tree=tree, nvls=nvls, nchannels=common, nchannels_run=nchannels_run,
    )  # fmt: skip
    return NcclPlan(topology, system.version, ring, tree, nvls, nchannels_run, system, paths, tuner)


def _graph_of_rings(laid: Rings, system: System, paths: Paths) -> Graph:
    """2.4's rings as a graph. It has no speeds: a ring is taken to run at its slowest hop's, by the topology's numbers."""
    by_rank = sorted(system.gpus, key=lambda gpu: gpu.rank)
    hops = [(by_rank[a], by_rank[b]) for ring in laid.rings for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]
    kinds = [paths[a, b].type for a, b in hops]
    slowest = min(paths[a, b].gb_s for a, b in hops)
    if laid.lanes_per_ring:
        lane = Fraction(str(system.version.lane_gb_s(system.compute_capability)))
        gb_s = lane * Fraction(laid.lanes_per_ring)
    else:
        gb_s = Fraction(f"{slowest:.6g}")
    return Graph(RING, laid.rings, gb_s, gb_s, system.version.path_types[max(kinds)], len(set(laid.rings)) == 1, laid.fallback)
