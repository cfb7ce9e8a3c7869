"""Many trees in few channels, each for an equal part of the data: a shard of the program, whoever its root is.

:func:`lower_trees` gives every tree channels of its own. Where a rank may not run that many, and where every rank is the
root of a part (an all-reduce as a reduce-scatter and an all-gather), a channel runs steps of several trees. Sums and
results travel in channels of their own, so that the next chunk is added up while the last is handed out; at a tree's root
one step ends the sum and sends it off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

from ..errors import ScheduleError
from ..packing.plan import Plan, Tree
from ..topology import Path, Topology
from .assign import ChannelBuilder
from .contract import REDUCING
from .cuts import common_cut, repeats
from .program import INPUT, OUTPUT, SCALED_INPUT, Operand, Program, Step, slot
from .split import split_wide_steps
from .trees import CHANNEL_GB_S, MAX_CHANNELS

#: Parts that trees of unequal rates are cut into, at most.
_MOST_PARTS = 128
_UP, _DOWN = 0, 1


def lower_forest(
    plan: Plan, *, slots: int = 4, max_channels: int = MAX_CHANNELS, channel_gb_s: Fraction = CHANNEL_GB_S, chunk_bytes: int = 1 << 19
) -> Program:
    """The program of a plan of trees for broadcast, reduce or allreduce, however many there are.

    Where rates have no common unit of at least 1/128 of their sum, parts are rounded to that.

    Raises
    ------
    ScheduleError
        Where the plan has no trees, or ``max_channels`` is less than 2.
    """
    trees = [t for t in plan.trees if t.rate > 0]
    if not trees:
        raise ScheduleError(f"a plan for {plan.collective} without trees cannot be lowered")
    (takes,) = common_cut({None: [t.rate for t in trees]}, _MOST_PARTS).values()
    times = repeats(1, 2 * min(len(takes), max(1, max_channels // 2)), plan.rate, channel_gb_s, max_channels)
    builder = _Forest(plan.topology, slots, plan.collective in REDUCING)
    for share in range(times):
        for part, way in enumerate(takes):
            builder.add(part, trees[way].root, share, trees[way].up, trees[way].down)
    return Program(
        algorithm="trees", collective=plan.collective, root=plan.root, topology=plan.topology, nshards=len(takes), weights=(1,) * times,
        connections=tuple(builder.channels.connections), ranks=builder.channels.channels(max_channels, channel_gb_s * len(takes) * times / plan.rate), chunk_bytes=chunk_bytes,
    )  # fmt: skip


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
    builder = _Forest(up.topology, slots, reduces=True)
    times = repeats(parts, 2 * min(n, max(1, max_channels // (2 * parts))), min(up.rate, down.rate), channel_gb_s, max_channels)
    for share in range(parts * times):
        for root in range(n):
            rising, falling = (ways[c, root][takes[c, root][share // times]] for c in ("reducescatter", "allgather"))
            builder.add(root, root, share, rising.up, falling.down)
    program = Program(
        algorithm="forest", collective="allreduce", topology=up.topology, nshards=n, weights=(1,) * (parts * times),
        connections=tuple(builder.channels.connections), ranks=builder.channels.channels(max_channels, channel_gb_s * n * parts * times / min(up.rate, down.rate)), chunk_bytes=chunk_bytes,
    )  # fmt: skip
    return split_wide_steps(program)


class _Forest:
    """The steps of trees, a shard each, as they are added."""

    def __init__(self, topology: Topology, slots: int, reduces: bool) -> None:
        self.nranks, self.reduces = topology.nranks, reduces
        self.channels = ChannelBuilder(topology, slots)

    def add(self, shard: int, root: int, share: int, rising: Sequence[Path] | None, falling: Sequence[Path] | None) -> None:
        """A shard's way up to the root and down from it; None where there is none."""
        to_parent, below = self._connect(rising or (), child=0)
        from_parent, above = self._connect(falling or (), child=-1)
        height, depth = _heights(root, below), _depths(root, above)
        for rank in range(self.nranks):
            up = (*map(slot, (c for c, _ in below[rank])),)
            down = (*map(slot, (c for c, _ in above[rank])),)
            mine = SCALED_INPUT if self.reduces else INPUT
            if rank == root:
                self._step(rank, share, shard, (mine, *up), (OUTPUT, *down), _UP, height[rank], ends=self.reduces)
                continue
            if rising is not None:
                self._step(rank, share, shard, (mine, *up), (slot(to_parent[rank]),), _UP, height[rank])
            if falling is not None:
                self._step(rank, share, shard, (slot(from_parent[rank]),), (OUTPUT, *down), _DOWN, depth[rank])
        for relay in filter(self.channels.relay, to_parent):  # has nothing of its own
            self._step(relay, share, shard, tuple(slot(c) for c, _ in below[relay]), (slot(to_parent[relay]),), _UP, height[relay])
        for relay in filter(self.channels.relay, from_parent):
            self._step(relay, share, shard, (slot(from_parent[relay]),), tuple(slot(c) for c, _ in above[relay]), _DOWN, depth[relay])

    def _step(
        self, rank: int, share: int, shard: int, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], lane: int, hops: int, ends: bool = False
    ) -> None:
        touched = tuple(o.connection for o in (*srcs, *dsts) if o.connection is not None)
        step = Step("copy" if len(srcs) == 1 else "reduce", share, srcs, dsts, wait=touched, signal=touched, shard=shard, postscaled=ends)
        # Every rank begins with another shard, so that not all send to one at once.
        self.channels.add(rank, step, together=shard, hops=hops, turn=(shard - rank) % self.nranks, lane=lane)

    def _connect(self, paths: Sequence[Path], child: int) -> tuple[dict[int, int], dict[int, list[tuple[int, int]]]]:
        """Connections by the child of their edge, and by its parent with the child beside them."""
        by_child: dict[int, int] = {}
        by_parent: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number in self.channels.connect_all(paths):
            ends = self.channels.connections[number]
            lower, upper = (ends.src, ends.dst) if child == 0 else (ends.dst, ends.src)
            by_child[lower] = number
            by_parent[upper].append((number, lower))
        return by_child, by_parent


def _depths(root: int, children: dict[int, list[tuple[int, int]]]) -> dict[int, int]:
    """Hops from the root."""
    depth, queue = {root: 0}, [root]
    for rank in queue:
        for _, child in children[rank]:
            depth[child] = depth[rank] + 1
            queue.append(child)
    return depth


def _heights(root: int, children: dict[int, list[tuple[int, int]]]) -> dict[int, int]:
    """Hops from the farthest leaf below each rank."""
    height: dict[int, int] = defaultdict(int)
    for rank in reversed(list(_depths(root, children))):
        height[rank] = max((1 + height[child] for _, child in children[rank]), default=0)
    return height
