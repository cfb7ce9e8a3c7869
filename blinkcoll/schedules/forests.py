"""All-reduce as a reduce-scatter and an all-gather that trees carry, every rank the root of an equal shard.

A shard goes up the trees of its rank and, complete, down them again. Sums and results travel in channels of their own, so
that the next chunk is added up while the last is handed out; at a shard's rank one step ends the sum and sends it off.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

from ..errors import ScheduleError
from ..packing.plan import Plan, Tree
from ..topology import Path, Topology
from .cuts import common_cut, repeats
from .program import OUTPUT, SCALED_INPUT, Channel, Connection, Program, Step, slot
from .transports import transport_of
from .trees import CHANNEL_GB_S, MAX_CHANNELS


def lower_forest_allreduce(
    up: Plan, down: Plan, *, slots: int = 4, max_channels: int = MAX_CHANNELS, channel_gb_s: Fraction = CHANNEL_GB_S, chunk_bytes: int = 1 << 19
) -> Program:
    """The all-reduce by the trees of a reduce-scatter plan and those of an all-gather plan of one topology.

    Raises
    ------
    ScheduleError
        Where the plans are for other collectives, or some rank is the root of no tree.
    """
    if (up.collective, down.collective) != ("reducescatter", "allgather") or up.topology != down.topology:
        raise ScheduleError(f"expected a reducescatter and an allgather plan of one topology, got {up.collective} and {down.collective}")
    n = up.topology.nranks
    ways: dict[tuple[str, int], list[Tree]] = {}
    for plan in (up, down):
        for root in range(n):
            ways[plan.collective, root] = [t for t in plan.trees if t.root == root and t.rate > 0]
            if not ways[plan.collective, root]:
                raise ScheduleError(f"{plan.collective}: no tree for the shard of rank {root}")
    takes = common_cut({key: [t.rate for t in trees] for key, trees in ways.items()}, max(1, max_channels // 8))
    parts = len(takes["allgather", 0])
    builder = _Builder(up.topology, slots, max(1, max_channels // (2 * parts)))
    times = repeats(parts, 2 * min(n, builder.ngroups), min(up.rate, down.rate), channel_gb_s, max_channels)
    for share in range(parts * times):
        for root in range(n):
            rising, falling = (ways[c, root][takes[c, root][share // times]] for c in ("reducescatter", "allgather"))
            builder.add(root, share, rising.up or (), falling.down or ())
    return Program(
        algorithm="forest", collective="allreduce", topology=up.topology, nshards=n, weights=(1,) * (parts * times),
        connections=tuple(builder.connections), ranks=builder.ranks(), chunk_bytes=chunk_bytes,
    )  # fmt: skip


class _Builder:
    """The steps of every (rank, share, direction, group), each with its hops so far, as shards are added."""

    def __init__(self, topology: Topology, slots: int, ngroups: int) -> None:
        self.topology, self.slots, self.ngroups = topology, slots, ngroups
        self.connections: list[Connection] = []
        self._steps: list[dict[tuple[int, str, int], list[tuple[int, int, Step]]]] = [defaultdict(list) for _ in range(topology.nranks)]

    def add(self, root: int, share: int, rising: tuple[Path, ...], falling: tuple[Path, ...]) -> None:
        """A shard's way up and down."""
        arrive, leave = self._connect(rising), self._connect(falling)
        below: dict[int, list[int]] = defaultdict(list)
        above: dict[int, list[int]] = defaultdict(list)
        to_parent = {self.connections[c].src: c for c in arrive}
        from_parent = {self.connections[c].dst: c for c in leave}
        for c in arrive:
            below[self.connections[c].dst].append(c)
        for c in leave:
            above[self.connections[c].src].append(c)
        for rank in range(self.topology.nranks):
            height = self._height(rank, below)
            outs = [*above[root]] if rank == root else [to_parent[rank]]
            srcs, touched = (SCALED_INPUT, *map(slot, below[rank])), (*below[rank], *outs)
            dsts = ((OUTPUT,) if rank == root else ()) + tuple(map(slot, outs))
            step = Step("copy" if len(srcs) == 1 else "reduce", share, srcs, dsts, wait=touched, signal=touched, shard=root, postscaled=rank == root)
            self._place(rank, share, "up", root, height, step)
            if rank != root:
                touched = (from_parent[rank], *above[rank])
                step = Step("copy", share, (slot(from_parent[rank]),), (OUTPUT, *map(slot, above[rank])), wait=touched, signal=touched, shard=root)
                self._place(rank, share, "down", root, self._depth(rank, root, from_parent), step)

    def ranks(self) -> tuple[tuple[Channel, ...], ...]:
        """The channels, their steps in the order in which data can arrive."""
        return tuple(
            tuple(Channel(tuple(step for _, _, step in sorted(steps[key], key=lambda placed: placed[:2]))) for key in sorted(steps))
            for steps in self._steps
        )

    def _place(self, rank: int, share: int, direction: str, root: int, hops: int, step: Step) -> None:
        turn = (root - rank) % self.topology.nranks
        self._steps[rank][share, direction, root % self.ngroups].append((hops, turn, step))

    def _connect(self, paths: tuple[Path, ...]) -> list[int]:
        first = len(self.connections)
        for path in sorted(paths, key=str):
            src, dst = path[0], path[-1]
            if not isinstance(src, int) or not isinstance(dst, int):
                raise ScheduleError(f"a tree's path must join ranks, got {path}")
            self.connections.append(Connection(src, dst, path, self.slots, transport=transport_of(self.topology, path)))
        return list(range(first, len(self.connections)))

    def _height(self, rank: int, below: dict[int, list[int]]) -> int:
        return max((1 + self._height(self.connections[c].src, below) for c in below[rank]), default=0)

    def _depth(self, rank: int, root: int, from_parent: dict[int, int]) -> int:
        return 0 if rank == root else 1 + self._depth(self.connections[from_parent[rank]].src, root, from_parent)
