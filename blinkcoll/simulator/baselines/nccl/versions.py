"""What differs between the versions of NCCL that are rebuilt: constants and rules, each with its place in the sources.

Version "2.30" is 2.30.7, "2.7" is 2.7.8 (the last without NVB paths), "2.4" is 2.4.8 (rings only on one node; it has no
graph search, see ``rings_2_4.py``). The bandwidths are NCCL's own constants: they choose NCCL's plan and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....errors import TopologyError

#: Patterns of ``NCCL_TOPO_PATTERN_*`` (src/include/graph.h).
BALANCED_TREE, SPLIT_TREE, TREE, RING, NVLS = 1, 2, 3, 4, 5
PATTERN_NAMES = {BALANCED_TREE: "balanced tree", SPLIT_TREE: "split tree", TREE: "tree", RING: "ring", NVLS: "NVLS"}

#: ``LOC_BW``: what a GPU's own memory is taken for, GB/s.
LOCAL_GB_S = 5000.0


@dataclass(frozen=True)
class StepLimits:
    """How many steps a search may take before it is given up (``NCCL_SEARCH_*TIMEOUT*``); no clocks anywhere."""

    one: int
    tree: int
    same_channels: int
    total: int


@dataclass(frozen=True)
class Version:
    """The facts and rules of one version that its graph search depends on.

    Parameters
    ----------
    name, release
        What callers say, and the release it was rebuilt from.
    path_types
        Kinds of path, nearest first (``PATH_*``).
    channel_limit
        ``MAXCHANNELS``; the search may use half of it, because every channel is doubled afterwards.
    nvlink_gb_s
        ``(at least this compute capability, GB/s a lane)``, highest first.
    cpu_gb_s
        Between two CPUs of one server, per CPU model.
    p2p_level
        The farthest kind of path over which GPUs may reach each other directly, per CPU model; None means any. Beyond
        it the data goes through the CPU's memory.
    overhead
        What GPU traffic through an Intel CPU costs PCIe links more than its size, as a ratio.
    nvb
        Whether a path may cross another GPU over NVLink.
    device_nodes
        Whether every GPU (one rank) hangs off a device that owns its links (2.30), or owns them itself.
    whole_nvlink_gb_s
        Whether a lane's speed is cut to whole GB/s.
    """

    name: str
    release: str
    path_types: tuple[str, ...]
    channel_limit: int
    nvlink_gb_s: tuple[tuple[int, float], ...]
    cpu_gb_s: dict[str, float]
    p2p_level: dict[str, str | None]
    overhead: tuple[float, float]
    limits: StepLimits
    nvb: bool
    device_nodes: bool
    whole_nvlink_gb_s: bool = False

    def rank_of(self, path_type: str) -> int:
        """The position of a kind of path, 0 the nearest."""
        return self.path_types.index(path_type)

    def lane_gb_s(self, compute_capability: int) -> float:
        """GB/s that this version counts for one NVLink lane of a GPU."""
        for least, gb_s in self.nvlink_gb_s:
            if compute_capability >= least:
                return float(int(gb_s)) if self.whole_nvlink_gb_s else gb_s
        return self.nvlink_gb_s[-1][1]


V2_30 = Version(
    name="2.30",
    release="2.30.7",
    # src/include/graph.h
    path_types=("LOC", "NVL", "NVB", "C2C", "PIX", "PXB", "P2C", "PXN", "PHB", "SYS", "NET", "DIS"),
    channel_limit=64,  # src/include/device.h
    # src/graph/topo.h: SM*_NVLINK_BW, ncclTopoNVLinkBw (sm_86 is slower than sm_80; below sm_60 counts as sm_80)
    nvlink_gb_s=((100, 40.1), (90, 20.6), (87, 20.0), (86, 12.0), (80, 20.0), (70, 20.0), (60, 18.0), (0, 20.0)),
    # src/graph/topo.cc: ncclTopoGetInterCpuBw
    cpu_gb_s={"intel-bdw": 6.0, "intel-skl": 10.0, "intel-srp": 22.0, "intel-erp": 40.0, "amd": 16.0, "power": 32.0, "arm": 6.0},
    # src/graph/paths.cc: ncclTopoCheckP2p; pairs of GPUs on AMD CPUs are the exception, see paths.py
    p2p_level={"intel-bdw": "PXB", "intel-skl": "PXB", "intel-srp": "PXB", "intel-erp": "PXB", "amd": "PXB", "power": "PXB", "arm": "PXB"},
    overhead=(6.0, 5.0),  # src/graph/topo.h: INTEL_P2P_OVERHEAD
    limits=StepLimits(one=1 << 14, tree=1 << 14, same_channels=1 << 8, total=1 << 19),  # src/graph/search.cc
    nvb=True,
    device_nodes=True,
)

V2_7 = Version(
    name="2.7",
    release="2.7.8",
    path_types=("LOC", "NVL", "PIX", "PXB", "PHB", "SYS", "NET"),  # src/graph/topo.h
    channel_limit=32,  # src/include/devcomm.h
    nvlink_gb_s=((61, 21.0), (60, 18.0), (0, 21.0)),  # src/graph/topo.h; topo.cc: ncclTopoAddNvLinks
    whole_nvlink_gb_s=True,  # `int nvlSpeed`
    cpu_gb_s={"intel-bdw": 6.0, "intel-skl": 9.0, "intel-srp": 9.0, "intel-erp": 9.0, "amd": LOCAL_GB_S, "power": 32.0, "arm": 6.0},
    p2p_level={"intel-bdw": "PXB", "intel-skl": "PHB", "intel-srp": "PHB", "intel-erp": "PHB", "amd": None, "power": None, "arm": "PXB"},
    overhead=(12.0, 9.0),
    limits=StepLimits(one=1 << 18, tree=1 << 17, same_channels=1 << 10, total=3 << 19),
    nvb=False,
    device_nodes=False,
)

#: 2.4.8 has no search; the entry names it and holds what its rings need.
V2_4 = Version(
    name="2.4",
    release="2.4.8",
    path_types=("LOC", "NVL", "PIX", "PXB", "PHB", "SYS"),
    channel_limit=16,  # src/include/devcomm.h
    nvlink_gb_s=V2_30.nvlink_gb_s,  # it has no speeds: 2.30's are used where one is shown
    cpu_gb_s=V2_30.cpu_gb_s,
    p2p_level=dict.fromkeys(V2_7.p2p_level, "PHB"),  # src/transport/p2p.cc: p2pCanConnect, below PATH_SYS
    overhead=(1.0, 1.0),
    limits=StepLimits(0, 0, 0, 0),
    nvb=False,
    device_nodes=False,
)

VERSIONS = {v.name: v for v in (V2_30, V2_7, V2_4)}


def version_named(name: str) -> Version:
    """The version of that name; ``"2.30.7"`` means ``"2.30"``.

    Raises
    ------
    TopologyError
        Where none of that name is rebuilt.
    """
    for version in VERSIONS.values():
        if name in (version.name, version.release):
            return version
    raise TopologyError(f"NCCL {name!r} is not rebuilt here; known: {', '.join(VERSIONS)}")
