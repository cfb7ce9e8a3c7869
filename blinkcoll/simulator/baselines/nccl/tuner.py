"""Which algorithm, protocol and number of channels NCCL picks for a size.

Rebuilt from src/graph/tuning.cc (``ncclTopoTuneModel``, ``ncclTopoGetAlgoTime``) and src/enqueue.cc
(``topoGetAlgoInfo``, in 2.7 ``getAlgoInfo``, in 2.4 ``getKernelInfo``) for one server. The times are NCCL's estimates:
they choose, and are reported as nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....errors import SimulationError
from ....packing.collectives import canonical
from .compute import Graph
from .versions import TREE, Version

PROTOCOLS = ("LL", "LL128", "simple")
COLLECTIVES = ("broadcast", "reduce", "allgather", "reducescatter", "allreduce")
_LL, _LL128, _SIMPLE = range(3)
_PCI_GB_S = 12.0  # PCI_BW

# 2.30: ncclTunerConstantsDefaults, microseconds: (LL, LL128, simple).
_BASE_US = {"tree": (6.8, 14.0, 8.4), "ring": (6.6, 14.0, 8.4), "nvls": (0.0, 0.0, 0.0)}
_HW_US = {
    "nvlink": {"tree": (0.6, 1.25, 4.0), "ring": (0.6, 1.9, 3.4), "nvls": (0.0, 0.0, 25.0)},
    "pci": {"tree": (1.0, 1.9, 4.0), "ring": (1.0, 2.5, 5.7), "nvls": (0.0, 0.0, 0.0)},
}
# One node, by generation: Volta and before, Ampere, Hopper, Blackwell. GB/s.
_LL_MAX = (39.0, 87.7, 141.0, 282.0)
_RING_LL128_PER_CHANNEL = (20.0, 20.0, 36.7, 40.0)
_TREE_LL128_PER_CHANNEL = (20.0, 20.0, 36.7, 55.6)
_TREE_PER_CHANNEL = (26.5, 24.0, 38.7, 70.0)
_NVLS_EFFICIENCY = (0.0, 0.0, 0.85, 0.74)
# treeCorrectionFactor, by powers of two from 64 B on.
_TREE_CORRECTION = (
    (1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0),
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 1.0, 1.0),
    (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9),
)

# 2.7: baseLat, hwLat, ll128MaxBwPerCh, treeCorrectionFactor.
_BASE_US_2_7 = {"tree": (4.4, 4.4, 0.0), "ring": (3.6, 10.0, 8.4)}
_HW_US_2_7 = {
    "nvlink": {"tree": (0.52, 1.2, 28.0), "ring": (0.47, 1.9, 3.4)},
    "pci": {"tree": (1.0, 1.9, 28.0), "ring": (1.0, 2.5, 5.7)},
}
_LL128_PER_CHANNEL_2_7 = {"broadcast": 18.8, "reduce": 12.0, "allgather": 18.3, "reducescatter": 15.2, "allreduce": 16.7}
_TREE_CORRECTION_2_7 = (
    (1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0),
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.5, 0.6, 0.6, 0.7, 0.7, 0.8, 0.9, 0.9, 1.0),
    (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.6, 0.7, 0.8, 0.9),
)

# Bytes a thread should have at least, and threads a channel (NCCL_*_THREAD_THRESHOLD, NCCL_*_MAX_NTHREADS).
BYTES_PER_THREAD = (8, 8, 64)
THREADS = (512, 640, 512)
_NVLS_CHANNELS_SM90, _NVLS_CHANNELS_SM100 = 16, 24  # NVLS_NCHANNELS_SM90, NVLS_NCHANNELS_SM100_NVL


def nvls_channels(compute_capability: int) -> int:
    """The thread blocks that 2.30 runs NVLS in on one server, whatever the size."""
    return _NVLS_CHANNELS_SM100 if compute_capability >= 100 else _NVLS_CHANNELS_SM90


@dataclass(frozen=True)
class Choice:
    """What NCCL would run: ``algorithm`` is "ring", "tree" or "nvls"; ``time_us`` is NCCL's own estimate or None."""

    algorithm: str
    protocol: str
    nchannels: int
    time_us: float | None


class Tuner:
    """The choice of one communicator, from its graphs."""

    def __init__(
        self, version: Version, nranks: int, compute_capability: int, cpu: str, *, ring: Graph, tree: Graph | None,
        nvls: Graph | None, nchannels: int, nchannels_run: int,
    ) -> None:  # fmt: skip
        self.version, self.n, self.sm, self.cpu = version, nranks, compute_capability, cpu
        self.graphs = {name: graph for name, graph in (("tree", tree), ("ring", ring), ("nvls", nvls)) if graph is not None}
        self.nchannels, self.nchannels_run = nchannels, nchannels_run
        self.generation = 3 if self.sm >= 100 else 2 if self.sm >= 90 else 1 if self.sm >= 80 else 0

    # -- the choice -------------------------------------------------------------------------------------------

    def choose(self, nbytes: int, collective: str = "allreduce", *, only: str | None = None) -> Choice:
        """What NCCL runs for ``nbytes``: the rank's buffer, or the total of all shards for all-gather and reduce-scatter.

        ``only`` leaves it one algorithm, as ``NCCL_ALGO`` does.

        Raises
        ------
        SimulationError
            For a collective that NCCL composes of sends and receives, or where ``only`` has no program for it.
        """
        collective = canonical(collective)
        if collective not in COLLECTIVES:
            raise SimulationError(f"NCCL {self.version.name} runs {collective} as sends and receives; it has a tuner for {', '.join(COLLECTIVES)}")
        allowed = [name for name in self.graphs if only in (None, name)]
        if self.n == 1 and allowed:
            return Choice("ring", "simple", 1, 0.0)
        if self.version.name == "2.4" and allowed:
            return self._choose_2_4(nbytes, collective)
        times = [
            (time_us, algorithm, protocol)
            for algorithm in allowed
            for protocol in range(3)
            if (time_us := self.time_us(nbytes, collective, algorithm, protocol)) is not None
        ]
        if not times:
            raise SimulationError(f"NCCL {self.version.name} has no {only} for {collective} here; it has {', '.join(self.graphs)}")
        time_us, algorithm, protocol = min(times, key=lambda entry: entry[0])
        return Choice(algorithm, PROTOCOLS[protocol], self._channels(nbytes, algorithm, protocol), time_us)

    def time_us(self, nbytes: int, collective: str, algorithm: str, protocol: int) -> float | None:
        """NCCL's estimate; None where it does not consider this."""
        gb_s = self.algbw(collective, algorithm, protocol)
        if gb_s == 0:
            return None
        log = (nbytes >> 6).bit_length() - 1
        if algorithm == "tree" and collective == "allreduce":
            table = (_TREE_CORRECTION if self.version.device_nodes else _TREE_CORRECTION_2_7)[protocol]
            if not self.version.device_nodes:
                log = max(log, 0)
            if 0 <= log < len(table):
                gb_s *= table[log]
        return self.latency_us(collective, algorithm, protocol) + nbytes / (1000 * gb_s)

    def _channels(self, nbytes: int, algorithm: str, protocol: int) -> int:
        """Fewer channels where each thread would have less than its share of bytes."""
        if algorithm == "nvls":
            return nvls_channels(self.sm)
        threads = THREADS[protocol]
        if algorithm == "ring" and protocol == _SIMPLE and self._slow():
            threads = 256
        share = BYTES_PER_THREAD[protocol]
        if algorithm == "ring" and protocol == _LL:
            share *= self.n
        return max(1, min(self.nchannels_run, nbytes // (threads * share)))

    def _slow(self) -> bool:
        return float(self.graphs["ring"].gb_s) * self.nchannels <= _PCI_GB_S

    # -- the model ----------------------------------------------------------------------------------------------

    def algbw(self, collective: str, algorithm: str, protocol: int) -> float:
        """GB/s that NCCL expects of large sizes; 0 where it does not consider this."""
        if algorithm == "tree" and collective != "allreduce":
            return 0.0
        if algorithm == "nvls" and (collective in ("broadcast", "reduce") or protocol != _SIMPLE):
            return 0.0
        if protocol == _LL128 and not self._ll128(algorithm):
            return 0.0
        return self._algbw_2_30(collective, algorithm, protocol) if self.version.device_nodes else self._algbw_2_7(collective, algorithm, protocol)

    def _ll128(self, algorithm: str) -> bool:
        """Whether LL128 is allowed: Volta and later over NVLink (2.7: Volta and Ampere)."""
        near = self.version.path_types.index(self.graphs[algorithm].path_type) <= self.version.rank_of("NVB" if self.version.nvb else "NVL")
        return near and (self.sm >= 70 if self.version.device_nodes else self.sm in (70, 80))

    def _algbw_2_30(self, collective: str, algorithm: str, protocol: int) -> float:
        graph = self.graphs[algorithm]
        if algorithm == "nvls":
            return self._algbw_nvls(collective, graph)
        n, most = self.nchannels, _LL_MAX[self.generation]
        busbw = n * float(graph.gb_s)
        if algorithm == "ring":
            if protocol == _LL:
                busbw = min(most, busbw * 0.5)
            elif protocol == _LL128:
                busbw = min(busbw * 0.92, n * _RING_LL128_PER_CHANNEL[self.generation])
            return busbw * self.n / self._steps(collective)
        busbw = min(busbw * 0.92, n * _TREE_PER_CHANNEL[self.generation])
        if protocol == _LL:
            busbw = min(busbw / 3.8, most)
        elif protocol == _LL128:
            busbw = min(busbw * 7.0 / 9.0, n * _TREE_LL128_PER_CHANNEL[self.generation])
        if graph.pattern == TREE:
            busbw *= 0.85
        return busbw * 0.5

    def _algbw_nvls(self, collective: str, graph: Graph) -> float:
        heads = graph.nchannels
        if heads < 2:
            return 0.0
        gb_s = float(graph.gb_s) * _NVLS_EFFICIENCY[self.generation] * (heads - 1) / heads
        gb_s *= 2 if collective == "allreduce" else (self.n - 1) / self.n
        busbw = heads * min(gb_s, float(graph.inter_gb_s))
        return busbw * self.n / self._steps(collective) if collective == "allreduce" else busbw

    def _algbw_2_7(self, collective: str, algorithm: str, protocol: int) -> float:
        n = self.nchannels
        busbw = n * float(self.graphs[algorithm].gb_s)
        ampere = self.sm == 80
        if ampere:
            busbw = min(busbw, 235.0)
        per_channel = _LL128_PER_CHANNEL_2_7[collective] * n
        if algorithm == "ring":
            if protocol == _LL:
                busbw *= 1 / 4 if collective in ("allreduce", "reduce") else 1 / 3
            elif protocol == _LL128:
                busbw = min(busbw * 0.92, per_channel)
            return busbw * self.n / self._steps(collective)
        busbw = min(busbw * 0.9, 130.0 if ampere and protocol == _LL128 else 110.0)
        if protocol == _LL:
            busbw /= 3.8
        elif protocol == _LL128:
            busbw = min(busbw * 7.0 / 9.0, per_channel * 7.0 / 9.0)
        return busbw * 0.5

    def latency_us(self, collective: str, algorithm: str, protocol: int) -> float:
        """What a collective takes however small it is, in NCCL's model."""
        graph = self.graphs[algorithm]
        base = (_BASE_US if self.version.device_nodes else _BASE_US_2_7)[algorithm][protocol]
        hop = self._hop_us(algorithm, protocol, graph)
        if algorithm == "nvls":
            return hop
        if algorithm == "tree":
            return base + 2 * (self.n - 1) * hop
        if collective not in ("broadcast", "reduce"):
            return base + self._steps(collective) * hop
        if graph.same_channels:
            return base + hop
        # Where channels differ, the wait for a chunk is taken to be a tree's.
        return base + self._steps(collective) * (self._hop_us("tree", protocol, graph) if protocol == _SIMPLE else hop)

    def _hop_us(self, algorithm: str, protocol: int, graph: Graph) -> float:
        """A hop of ``algorithm`` over the kind of path that ``graph`` has; only direct NVLink counts as NVLink."""
        hardware = _HW_US if self.version.device_nodes else _HW_US_2_7
        over_nvlink = graph.path_type == "NVL"
        if self.version.device_nodes and self.cpu == "power" and not over_nvlink and (algorithm, protocol) == ("tree", _SIMPLE):
            algorithm = "ring"
        return hardware["nvlink" if over_nvlink else "pci"][algorithm][protocol]

    def _steps(self, collective: str) -> int:
        """Hops of a ring."""
        return {"allreduce": 2 * (self.n - 1), "broadcast": self.n, "reduce": self.n}.get(collective, self.n - 1)

    # -- 2.4 ----------------------------------------------------------------------------------------------------

    def _choose_2_4(self, nbytes: int, collective: str) -> Choice:
        """Rings always; LL below a number of bytes a thread (``getKernelInfo``)."""
        per_thread = 32 if self.sm < 70 else 64
        chunks = 1 if collective in ("broadcast", "reduce") else self.n
        threads = 64
        while -(-nbytes // (threads * chunks)) > 8 and threads * 2 <= 256:
            threads *= 2
        channels = min(max(1, -(-nbytes // (threads * chunks * 8))), self.nchannels_run)
        if nbytes <= channels * threads * chunks * per_thread:
            return Choice("ring", "LL", channels, None)
        return Choice("ring", "simple", self.nchannels_run, None)
