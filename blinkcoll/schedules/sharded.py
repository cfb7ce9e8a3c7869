"""Plans for collectives in which every rank has a shard of its own, to programs.

All-gather: a tree leads away from every shard's rank; reduce-scatter: one leads to it. Gather, scatter and all-to-all: a
path from source to destination, through ranks that pass chunks on. Each (shard or pair, share) takes one tree or path,
with connections of its own; a channel runs the steps of several of them (``assign.py``). An all-to-all may be called in
place: what arrives from a peer waits until the rank's own piece for it, over which it is written, has been read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from functools import partial

from ..errors import PackingError, ScheduleError
from ..packing import make_plan
from ..packing.plan import Flow, Plan, Tree
from ..topology import Path, Topology
from .assign import ChannelBuilder, Placed
from .cuts import common_cut, exact_parts, repeats
from .program import INPUT, OUTPUT, SCALED_INPUT, Connection, Operand, Program, Step, slot

#: Trees of one rate that plan less than this part of a rate are not worth their evenness.
_WORTH = Fraction(9, 10)
#: Methods of plans by the links' rates alone; other trees on the same links may take their place.
_REPLACEABLE = ("exact", "approximate")


def lower_sharded_trees(plan: Plan, *, slots: int, max_channels: int, channel_gb_s: Fraction, chunk_bytes: int = 1 << 19) -> Program:
    """The program of a tree plan for allgather or reducescatter.

    Raises
    ------
    ScheduleError
        Where some rank is the root of no tree.
    """
    n = plan.topology.nranks
    plan = _for_few_channels(plan, max_channels)
    ways: dict[int, list[Tree]] = {r: [t for t in plan.trees if t.root == r and t.rate > 0] for r in range(n)}
    if not all(ways.values()):
        raise ScheduleError(f"{plan.collective}: no tree for the shard of rank {min(r for r in ways if not ways[r])}")
    takes = common_cut({r: [t.rate for t in trees] for r, trees in ways.items()}, _most_shares(max_channels))
    parts = len(takes[0])
    builder = _Builder(plan.topology, slots)
    times = repeats(parts, min(n, max(1, max_channels // parts)), plan.rate, channel_gb_s, max_channels)
    for share in range(parts * times):
        for root in range(n):
            tree = ways[root][takes[root][share // times]]
            if plan.collective == "allgather":
                builder.add_down(root, tree.down or (), share)
            else:
                builder.add_up(root, tree.up or (), share)
    room = channel_gb_s * n * parts * times / plan.rate if plan.rate else Fraction(1)
    return builder.program("trees", plan, parts * times, max_channels, room, chunk_bytes)


def _for_few_channels(plan: Plan, max_channels: int) -> Plan:
    """The plan, or trees of one rate on the same links where those lose less than sharing channels does.

    On the way up every rank but the root stores over a link in every tree. Where there are more trees than channels such
    steps hold each other up: on eight V100s of a DGX-1, 48 parts of trees in 32 channels reach 0.82 of the bound, simulated;
    trees of one rate of which 16 plan 0.93 of it reach 0.91. On the way down leaves store nothing, and 48 reach 0.92.
    """
    n = plan.topology.nranks
    parts = exact_parts([t.rate for t in plan.trees if t.root == r and t.rate > 0] for r in range(n))
    crowded = parts * n > max_channels if plan.collective == "reducescatter" else parts > _most_shares(max_channels)
    if not crowded or plan.method not in _REPLACEABLE or max_channels < n:
        return plan
    try:
        other = make_plan(plan.topology, plan.collective, links=plan.links, rates=plan.rates, equal_trees=max_channels)
    except PackingError:  # there are switches
        return plan
    return other if other.rate >= _WORTH * plan.rate else plan


def lower_flows(plan: Plan, *, slots: int, max_channels: int, channel_gb_s: Fraction, chunk_bytes: int = 1 << 19, uneven: bool = False) -> Program:
    """The program of a plan of flows for gather, scatter or alltoall.

    ``uneven``: an all-to-all becomes an ``alltoallv``; the others take unequal shards as they are.

    Raises
    ------
    ScheduleError
        Where a pair that has to communicate has no flow.
    """
    n, root = plan.topology.nranks, plan.root
    collective = "alltoallv" if uneven and plan.collective == "alltoall" else plan.collective
    ways: dict[tuple[int, int], list[Flow]] = defaultdict(list)
    for flow in plan.flows:
        if flow.rate > 0:
            ways[flow.src, flow.dst].append(flow)
    wanted = [(a, b) for a in range(n) for b in range(n) if a != b and (root is None or root == (b if plan.collective == "gather" else a))]
    missing = [pair for pair in wanted if pair not in ways]
    if missing:
        raise ScheduleError(f"{plan.collective}: no flow from rank {missing[0][0]} to rank {missing[0][1]}")
    rates = {pair: [f.rate for f in ways[pair]] for pair in wanted}
    takes = common_cut(rates, _most_shares(max_channels))
    parts = len(next(iter(takes.values()), [0]))
    builder = _Builder(plan.topology, slots)
    ends = 2 * n - 1 if plan.collective == "alltoall" else n  # steps of a share at a rank, at most, relayed ones left out
    times = repeats(parts, min(ends, max(1, max_channels // parts)), plan.rate, channel_gb_s, max_channels)
    for share in range(parts * times):
        for a, b in wanted:
            builder.add_path(ways[a, b][takes[a, b][share // times]].path, share, *_shards_of_pair(collective, a, b, n))
        for rank in range(n) if root is None else (root,):
            step = Step("copy", share, (INPUT,), (OUTPUT,), shard=_shards_of_pair(collective, rank, rank, n)[0])
            builder.channels.add(rank, step, together=(rank, rank), hops=0, turn=0)
    # A pair's piece is small and goes over few links: channels as equal as can be, whatever links they then serve (with room for what
    # a channel moves an all-to-all among eight V100s reached 0.91 of its bound at 1 GiB, so 0.97).
    made = builder.program("flows", plan, parts * times, max_channels, Fraction(1), chunk_bytes)
    return replace(made, collective=collective, nshards=n * n, in_place=False) if collective == "alltoallv" else made


def _shards_of_pair(collective: str, src: int, dst: int, nranks: int) -> tuple[int, int]:
    """What the data from one rank to another is called where it leaves, and where it arrives."""
    pair = src * nranks + dst
    return {"gather": (src, src), "scatter": (dst, dst), "alltoall": (dst, src), "alltoallv": (pair, pair)}[collective]


def _most_shares(max_channels: int) -> int:
    """Leave each share a few channels: steps of one channel follow one another, links want to be used at once."""
    return max(1, max_channels // 4)


class _Builder:
    """Connections and steps as trees and paths are added."""

    def __init__(self, topology: Topology, slots: int) -> None:
        self.topology = topology
        self.channels = ChannelBuilder(topology, slots)
        self._sent: dict[tuple[int, int, int], Placed] = {}  # (rank, share, shard): the step that reads this piece of the input
        self._arrivals: list[tuple[tuple[int, int, int], Callable[..., Placed]]] = []

    def add_down(self, root: int, paths: Iterable[Path], share: int) -> None:
        """A tree that brings the root's shard to all ranks."""
        connections = self.channels.connections
        arrives: dict[int, int] = {}
        leaves: dict[int, list[int]] = defaultdict(list)
        for connection in self.channels.connect_all(paths):
            arrives[connections[connection].dst] = connection
            leaves[connections[connection].src].append(connection)
        for rank, depth in _depths(root, leaves, connections).items():
            srcs = (INPUT,) if rank == root else (slot(arrives[rank]),)
            kept = () if self.channels.relay(rank) else (OUTPUT,)
            touched = (*(() if rank == root else (arrives[rank],)), *leaves[rank])
            step = Step("copy", share, srcs, (*kept, *map(slot, leaves[rank])), wait=touched, signal=touched, shard=root)
            self.channels.add(rank, step, together=root, hops=depth, turn=(root - rank) % self.topology.nranks)

    def add_up(self, root: int, paths: Iterable[Path], share: int) -> None:
        """A tree that adds all ranks' parts of the root's shard up."""
        n, connections = self.topology.nranks, self.channels.connections
        leaves: dict[int, int] = {}
        arrives: dict[int, list[int]] = defaultdict(list)
        for connection in self.channels.connect_all(paths):
            leaves[connections[connection].src] = connection
            arrives[connections[connection].dst].append(connection)
        for rank in (*range(n), *filter(self.channels.relay, leaves)):
            srcs = (*(() if self.channels.relay(rank) else (SCALED_INPUT,)), *map(slot, arrives[rank]))
            dsts = (OUTPUT,) if rank == root else (slot(leaves[rank]),)
            touched = (*arrives[rank], *(() if rank == root else (leaves[rank],)))
            op = "copy" if len(srcs) == 1 else "reduce"
            step = Step(op, share, srcs, dsts, wait=touched, signal=touched, shard=root, postscaled=rank == root)
            self.channels.add(rank, step, together=root, hops=_height(rank, arrives, connections), turn=(root - rank) % n)

    def add_path(self, path: Path, share: int, at_source: int, at_end: int) -> None:
        """A path for one pair's data: shard ``at_source`` of the source's input, ``at_end`` of the destination's output."""
        numbers = self.channels.numbers
        stops = [i for i, v in enumerate(path) if v in numbers]
        ranks = [numbers[path[i]] for i in stops]
        turn = (ranks[-1] - ranks[0]) % self.topology.nranks
        arrives: int | None = None
        for hop, rank in enumerate(ranks):
            leaves = None if hop == len(ranks) - 1 else self.channels.connect(path[stops[hop] : stops[hop + 1] + 1])
            srcs: tuple[Operand, ...] = (INPUT,) if arrives is None else (slot(arrives),)
            dsts: tuple[Operand, ...] = (OUTPUT,) if leaves is None else (slot(leaves),)
            touched = tuple(c for c in (arrives, leaves) if c is not None)
            step = Step("copy", share, srcs, dsts, wait=touched, signal=touched, shard=at_source if hop == 0 else at_end)
            add = partial(self.channels.add, rank, step, together=(ranks[0], ranks[-1]), hops=hop, turn=turn)
            if hop == 0:
                self._sent[rank, share, step.shard] = add()
            elif leaves is None:
                self._arrivals.append(((rank, share, step.shard), add))
            else:
                add()
            arrives = leaves

    def program(self, algorithm: str, plan: Plan, nshares: int, max_channels: int, room: Fraction, chunk_bytes: int) -> Program:
        """What has been added, with equal shares; ``room``: see :meth:`ChannelBuilder.channels`."""
        for piece, add in self._arrivals:
            add(behind=self._sent.get(piece))
        return Program(
            algorithm=algorithm,
            collective=plan.collective,
            root=plan.root,
            topology=self.topology,
            nshards=self.topology.nranks,
            weights=(1,) * nshares,
            connections=tuple(self.channels.connections),
            ranks=self.channels.channels(max_channels, room),
            chunk_bytes=chunk_bytes,
        )


def _depths(root: int, leaves: dict[int, list[int]], connections: list[Connection]) -> dict[int, int]:
    """Hops from the root to every rank that a tree reaches."""
    depth, queue = {root: 0}, [root]
    for rank in queue:
        for connection in leaves[rank]:
            child = connections[connection].dst
            depth[child] = depth[rank] + 1
            queue.append(child)
    return depth


def _height(rank: int, arrives: dict[int, list[int]], connections: list[Connection]) -> int:
    """Hops from the farthest leaf below a rank."""
    return max((1 + _height(connections[c].src, arrives, connections) for c in arrives[rank]), default=0)
