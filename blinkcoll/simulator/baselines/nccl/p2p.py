"""What NCCL composes of grouped sends and receives: all-to-all, gather and scatter, as nccl-tests calls them.

All pairs run at once, each over as many channels as NCCL gives a peer (``ncclTopoGetNchannels`` and
``ncclTopoComputeP2pChannels`` in src/graph/paths.cc of NCCL 2.30.7): two for every NVLink lane that the narrowest pair
has, two over PCIe, rounded up to a power of two. A channel's kernel serves several peers by warps of its own; here every
pair and direction has a channel, and no rank more than NCCL's 64 for its sends: with more peers a channel serves several, the
nearest first, a whole piece at a time. What a rank keeps it copies itself.

Where a pair's way crosses a GPU (NVB), that GPU copies on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ....schedules.program import INPUT, OUTPUT, Channel, Connection, Operand, Program, Step, slot
from ....topology import Topology, route
from ...rotation import Rotation

#: What nccl-tests composes; ``sendrecv_perf`` is none of the eight collectives.
COLLECTIVES = ("gather", "scatter", "alltoall")
#: A pair's data goes by LL up to this size (NCCL_P2P_LL_THRESHOLD, src/enqueue.cc).
LL_THRESHOLD = 1 << 14
#: NCCL_P2P_NVL_CHUNKSIZE and NCCL_P2P_PCI_CHUNKSIZE, src/init.cc.
NVLINK_CHUNK_BYTES, PCI_CHUNK_BYTES = 1 << 19, 1 << 17
#: Pairs of an all-to-all grow with ranks squared; equal servers are folded into one (``rotation.py``) from here on.
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
    lanes: list[dict[tuple[str, int, int], list[Step]]] = [defaultdict(list) for _ in range(n)]
    each = max(1, _MOST_CHANNELS // nchannels)

    def connect(src: int, dst: int) -> int:
        connections.append(Connection(src, dst, route(topology, src, dst), _SLOTS, protocol))
        return len(connections) - 1

    def add(rank: int, does: str, lane: int, share: int, shard: int, src: Operand, dst: Operand, syncs: tuple[int, ...]) -> None:
        lanes[rank][does, lane, share].append(Step("copy", share, (src,), (dst,), wait=syncs, signal=syncs, shard=shard))

    for i, (src, dst) in enumerate(pairs_of(collective, root, n)):
        # Whose shard it is in the source's input and in the destination's output.
        read, written = {"gather": (src, src), "scatter": (dst, dst), "alltoall": (dst, src)}[collective]
        lane = ((dst - src) % n - 1) % each
        for share in range(nchannels):
            middle = crossed.get((src, dst))
            leaves = arrives = connect(src, dst if middle is None else middle)
            if middle is not None:
                arrives = connect(middle, dst)
                add(middle, "crossed", i, share, written, slot(leaves), slot(arrives), (leaves, arrives))
            add(src, "sends", lane, share, read, INPUT, slot(leaves), (leaves,))
            add(dst, "receives", lane, share, written, slot(arrives), OUTPUT, (arrives,))
    for rank in range(n) if root is None else (root,):
        for share in range(nchannels):
            add(rank, "keeps", 0, share, rank, INPUT, OUTPUT, ())
    return Program(
        algorithm=algorithm,
        collective=collective,
        root=root,
        topology=topology,
        nshards=n,
        weights=(1,) * nchannels,
        connections=tuple(connections),
        ranks=tuple(tuple(Channel(tuple(steps)) for steps in of_rank.values()) for of_rank in lanes),
        in_place=collective != "alltoall",
    )


def folded_alltoall(rotation: Rotation, *, protocol: str, algorithm: str) -> Program:
    """What one of equal servers does of an all-to-all among many ranks, a channel a peer.

    A rank's sends and its receives run on executors of their own here, since it may send to the very rank that it stands for.
    """
    n, each = rotation.topology.nranks, rotation.server.nranks
    connections = tuple(
        Connection(src, each + (src + apart) % each, rotation.way(src, (src + apart) % n), _SLOTS, protocol) for src in range(each) for apart in range(1, n)
    )

    def lanes(rank: int, sends: bool) -> Iterator[Channel]:
        for lane in range(1, min(_MOST_CHANNELS, n - 1) + 1):
            steps = []
            for apart in range(lane, n, _MOST_CHANNELS):
                source = rank if sends else (rank - apart) % each
                c = source * (n - 1) + apart - 1
                steps.append(Step("copy", 0, (INPUT if sends else slot(c),), (slot(c) if sends else OUTPUT,), wait=(c,), signal=(c,)))
            yield Channel(tuple(steps))

    keeps = Channel((Step("copy", 0, (INPUT,), (OUTPUT,)),))
    return Program(
        algorithm=algorithm, collective="alltoall", topology=rotation.server, nshards=n, weights=(1,), connections=connections,
        ranks=(*((*lanes(rank, True), keeps) for rank in range(each)), *(tuple(lanes(rank, False)) for rank in range(each))),
        in_place=False,
    )  # fmt: skip
