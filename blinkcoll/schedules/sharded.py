"""Plans for collectives in which every rank has a shard of its own, to programs.

All-gather: a tree leads away from every shard's rank; reduce-scatter: one leads to it. Gather, scatter and all-to-all: a
path from source to destination, through ranks that pass chunks on. Each (shard or pair, share) takes one tree or path,
with connections of its own; a channel runs the steps of several of them.

No order of the steps within a channel can deadlock that follows the data: a step that gets a chunk after d hops comes
after all steps of its channel that get theirs after fewer. Sends come first, so that an all-to-all may be called in
place: a rank's piece for a peer is read before the peer's piece is written over it, in the channel of that pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ..errors import ScheduleError
from ..packing.plan import Flow, Plan, Tree
from ..topology import Path, Topology
from .cuts import common_cut, repeats
from .program import INPUT, OUTPUT, SCALED_INPUT, Channel, Connection, Operand, Program, Step, executor_numbers, slot
from .transports import transport_of


def lower_sharded_trees(plan: Plan, *, slots: int, max_channels: int, channel_gb_s: Fraction, chunk_bytes: int = 1 << 19) -> Program:
    """The program of a tree plan for allgather or reducescatter.

    Raises
    ------
    ScheduleError
        Where some rank is the root of no tree.
    """
    n = plan.topology.nranks
    ways: dict[int, list[Tree]] = {r: [t for t in plan.trees if t.root == r and t.rate > 0] for r in range(n)}
    if not all(ways.values()):
        raise ScheduleError(f"{plan.collective}: no tree for the shard of rank {min(r for r in ways if not ways[r])}")
    takes = common_cut({r: [t.rate for t in trees] for r, trees in ways.items()}, _most_shares(max_channels))
    parts = len(takes[0])
    builder = _Builder(plan.topology, slots, max(1, max_channels // parts))
    times = repeats(parts, min(n, builder.ngroups), plan.rate, channel_gb_s, max_channels)
    for share in range(parts * times):
        for root in range(n):
            tree = ways[root][takes[root][share // times]]
            if plan.collective == "allgather":
                builder.add_down(root, tree.down or (), share)
            else:
                builder.add_up(root, tree.up or (), share)
    return builder.program("trees", plan.collective, None, parts * times, chunk_bytes)


def lower_flows(plan: Plan, *, slots: int, max_channels: int, channel_gb_s: Fraction, chunk_bytes: int = 1 << 19) -> Program:
    """The program of a plan of flows for gather, scatter or alltoall.

    Raises
    ------
    ScheduleError
        Where a pair that has to communicate has no flow.
    """
    n, root = plan.topology.nranks, plan.root
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
    builder = _Builder(plan.topology, slots, max(1, max_channels // parts))
    times = repeats(parts, min(n // 2 + 1, builder.ngroups), plan.rate, channel_gb_s, max_channels)
    for share in range(parts * times):
        for a, b in wanted:
            at_source, at_end = (a, a) if plan.collective == "gather" else (b, b) if plan.collective == "scatter" else (b, a)
            builder.add_path(ways[a, b][takes[a, b][share // times]].path, share, at_source, at_end)
        for rank in range(n) if root is None else (root,):
            builder.add_step(rank, share, 0, 0, rank, Step("copy", share, (INPUT,), (OUTPUT,), shard=rank))
    return builder.program("flows", plan.collective, root, parts * times, chunk_bytes)


def _most_shares(max_channels: int) -> int:
    """Leave each share a few channels: steps of one channel follow one another, links want to be used at once."""
    return max(1, max_channels // 4)


@dataclass(frozen=True)
class _Placed:
    """A step, and its place among those of its channel: hops of its data so far, then whose data."""

    hops: int
    turn: int
    step: Step


class _Builder:
    """Connections, and the steps of every (rank, share, group) as trees and paths are added."""

    def __init__(self, topology: Topology, slots: int, ngroups: int) -> None:
        self.topology, self.slots, self.ngroups = topology, slots, ngroups
        self.connections: list[Connection] = []
        self.numbers = executor_numbers(topology)
        self.steps: list[dict[tuple[int, int], list[_Placed]]] = [defaultdict(list) for _ in self.numbers]

    def add_step(self, rank: int, share: int, hops: int, group: int, turn: int, step: Step) -> None:
        self.steps[rank][share, group % self.ngroups].append(_Placed(hops, turn, step))

    def add_down(self, root: int, paths: Iterable[Path], share: int) -> None:
        """A tree that brings the root's shard to all ranks."""
        arrives, leaves = self._connect(paths)
        for rank, depth in _depths(root, leaves, self.connections).items():
            srcs = (INPUT,) if rank == root else (slot(arrives[rank]),)
            kept = () if self._relay(rank) else (OUTPUT,)
            touched = (*(() if rank == root else (arrives[rank],)), *leaves[rank])
            step = Step("copy", share, srcs, (*kept, *map(slot, leaves[rank])), wait=touched, signal=touched, shard=root)
            self.add_step(rank, share, depth, root, (root - rank) % self.topology.nranks, step)

    def add_up(self, root: int, paths: Iterable[Path], share: int) -> None:
        """A tree that adds all ranks' parts of the root's shard up."""
        n = self.topology.nranks
        leaves: dict[int, int] = {}
        arrives: dict[int, list[int]] = defaultdict(list)
        for path in sorted(paths, key=str):
            connection = self._connection(path)
            leaves[self.connections[connection].src] = connection
            arrives[self.connections[connection].dst].append(connection)
        for rank in (*range(n), *(executor for executor in leaves if self._relay(executor))):
            srcs = (*(() if self._relay(rank) else (SCALED_INPUT,)), *map(slot, arrives[rank]))
            dsts = (OUTPUT,) if rank == root else (slot(leaves[rank]),)
            touched = (*arrives[rank], *(() if rank == root else (leaves[rank],)))
            op = "copy" if len(srcs) == 1 else "reduce"
            step = Step(op, share, srcs, dsts, wait=touched, signal=touched, shard=root, postscaled=rank == root)
            self.add_step(rank, share, _height(rank, arrives, self.connections), root, (root - rank) % n, step)

    def add_path(self, path: Path, share: int, at_source: int, at_end: int) -> None:
        """A path for one pair's data: shard ``at_source`` of the source's input, ``at_end`` of the destination's output."""
        stops = [i for i, v in enumerate(path) if v in self.numbers]
        ranks = [self.numbers[path[i]] for i in stops]
        n = self.topology.nranks
        apart = (ranks[-1] - ranks[0]) % n
        group = min(apart, n - apart)
        arrives: int | None = None
        for hop, rank in enumerate(ranks):
            leaves = None if hop == len(ranks) - 1 else self._connection(path[stops[hop] : stops[hop + 1] + 1])
            srcs: tuple[Operand, ...] = (INPUT,) if arrives is None else (slot(arrives),)
            dsts: tuple[Operand, ...] = (OUTPUT,) if leaves is None else (slot(leaves),)
            touched = tuple(c for c in (arrives, leaves) if c is not None)
            shard = at_source if hop == 0 else at_end
            self.add_step(rank, share, hop, group, apart, Step("copy", share, srcs, dsts, wait=touched, signal=touched, shard=shard))
            arrives = leaves

    def _relay(self, executor: int) -> bool:
        return executor >= self.topology.nranks

    def _connection(self, path: Path) -> int:
        src, dst = self.numbers.get(path[0]), self.numbers.get(path[-1])
        if src is None or dst is None:
            raise ScheduleError(f"a connection must join ranks or relays, got {path}")
        self.connections.append(Connection(src, dst, path, self.slots, transport=transport_of(self.topology, path)))
        return len(self.connections) - 1

    def _connect(self, paths: Iterable[Path]) -> tuple[dict[int, int], dict[int, list[int]]]:
        """Connections of a tree away from its root: the one that arrives at each rank, those that leave it."""
        arrives: dict[int, int] = {}
        leaves: dict[int, list[int]] = defaultdict(list)
        for path in sorted(paths, key=str):
            connection = self._connection(path)
            arrives[self.connections[connection].dst] = connection
            leaves[self.connections[connection].src].append(connection)
        return arrives, leaves

    def program(self, algorithm: str, collective: str, root: int | None, nshares: int, chunk_bytes: int) -> Program:
        """What has been added, with equal shares."""
        ranks = []
        idle = not any(self.steps[self.topology.nranks :])  # no relay has work
        for of_rank in self.steps[: self.topology.nranks] if idle else self.steps:
            channels = []
            for key in sorted(of_rank):
                placed = sorted(of_rank[key], key=lambda p: (p.hops, p.turn, p.step.shard))
                channels.append(Channel(tuple(p.step for p in placed)))
            ranks.append(tuple(channels))
        return Program(
            algorithm=algorithm,
            collective=collective,
            root=root,
            topology=self.topology,
            nshards=self.topology.nranks,
            weights=(1,) * nshares,
            connections=tuple(self.connections),
            ranks=tuple(ranks),
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


