"""What NCCL composes of grouped sends and receives: all-to-all, gather and scatter, as nccl-tests calls them.

All pairs run at once, each over as many channels as NCCL gives a peer (``ncclTopoGetNchannels`` and
``ncclTopoComputeP2pChannels`` in src/graph/paths.cc of NCCL 2.30.7): two for every NVLink lane that the narrowest pair
has, two over PCIe, rounded up to a power of two. A channel's kernel serves several peers by warps of its own; here every
pair and direction has a channel, and no rank more than NCCL's 64 for its sends. What a rank keeps it copies itself.

Where a pair's way crosses a GPU (NVB), that GPU copies on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....schedules.program import INPUT, OUTPUT, Channel, Connection, Operand, Program, Step, slot
from ....topology import Topology, route

#: What nccl-tests composes; ``sendrecv_perf`` is none of the eight collectives.
COLLECTIVES = ("gather", "scatter", "alltoall")
#: A pair's data goes by LL up to this size (NCCL_P2P_LL_THRESHOLD, src/enqueue.cc).
LL_THRESHOLD = 1 << 14
#: NCCL_P2P_NVL_CHUNKSIZE and NCCL_P2P_PCI_CHUNKSIZE, src/init.cc.
NVLINK_CHUNK_BYTES, PCI_CHUNK_BYTES = 1 << 19, 1 << 17
#: Pairs grow with ranks squared.
MOST_RANKS = 64
_MOST_CHANNELS = 64
_SLOTS = 4

Pair = tuple[int, int]


def pairs_of(collective: str, root: int | None, nranks: int) -> list[Pair]:
    """Who sends to whom, by the distance that NCCL schedules them in."""
    pairs = [(rank, (rank + apart) % nranks) for apart in range(1, nranks) for rank in range(nranks)]
    if collective == "gather":
        return [pair for pair in pairs if pair[1] == root]
    return [pair for pair in pairs if pair[0] == root] if collective == "scatter" else pairs


def channels_per_peer(nranks: int, lanes: Sequence[float]) -> int:
    """Channels of a pair, from the NVLink lanes of every pair's way (0: no NVLink)."""
    least = min((2 * max(1, int(count)) for count in lanes), default=2)
    return max(1, min(1 << (least - 1).bit_length(), _MOST_CHANNELS // max(1, nranks - 1)))


def p2p_program(
    topology: Topology, collective: str, root: int | None, *, protocol: str, nchannels: int, crossed: Mapping[Pair, int], algorithm: str
) -> Program:
    """All pairs of a collective at once, ``nchannels`` channels each; ``crossed``: the rank that a pair's way leads over."""
    n = topology.nranks
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(n)]

    def connect(src: int, dst: int) -> int:
        connections.append(Connection(src, dst, route(topology, src, dst), _SLOTS, protocol))
        return len(connections) - 1

    def add(rank: int, share: int, shard: int, src: Operand, dst: Operand, syncs: tuple[int, ...]) -> None:
        channels[rank].append(Channel((Step("copy", share, (src,), (dst,), wait=syncs, signal=syncs, shard=shard),)))

    for src, dst in pairs_of(collective, root, n):
        # Whose shard it is in the source's input and in the destination's output.
        read, written = {"gather": (src, src), "scatter": (dst, dst), "alltoall": (dst, src)}[collective]
        for share in range(nchannels):
            middle = crossed.get((src, dst))
            leaves = arrives = connect(src, dst if middle is None else middle)
            if middle is not None:
                arrives = connect(middle, dst)
                add(middle, share, written, slot(leaves), slot(arrives), (leaves, arrives))
            add(src, share, read, INPUT, slot(leaves), (leaves,))
            add(dst, share, written, slot(arrives), OUTPUT, (arrives,))
    for rank in range(n) if root is None else (root,):
        for share in range(nchannels):
            add(rank, share, rank, INPUT, OUTPUT, ())
    return Program(
        algorithm=algorithm,
        collective=collective,
        root=root,
        topology=topology,
        nshards=n,
        weights=(1,) * nchannels,
        connections=tuple(connections),
        ranks=tuple(map(tuple, channels)),
        in_place=collective != "alltoall",
    )
