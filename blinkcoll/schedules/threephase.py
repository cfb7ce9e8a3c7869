"""Three-phase plans to programs: local trees, an exchange of the servers' roots, local trees (Blink, section 3.5).

Every partition (or copy of one, where its rate needs several channels) is one share of the data. Inside a server a rank has
an up channel and a down channel as in ``trees.py``; at the server's root the two meet in an exchange, an opaque step that an
engine carries between servers. All three phases of different chunks run at once. Sums are ordered: in a server own data
first, then children by rank; across servers in the order of the group, the hub first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..errors import ScheduleError
from ..packing.plan import Partition, Plan
from ..topology import Path
from .contract import REDUCING
from .program import INPUT, OUTPUT, SCALED_INPUT, SCRATCH, Channel, Connection, Operand, Program, Step, slot
from .shares import channels_per_tree, integer_weights
from .trees import CHANNEL_GB_S, MAX_CHANNELS


def lower_three_phase(
    plan: Plan, *, slots: int = 4, max_channels: int = MAX_CHANNELS, channel_gb_s: Fraction = CHANNEL_GB_S, chunk_bytes: int = 1 << 19,
) -> Program:  # fmt: skip
    """The program of a three-phase plan, its exchanges opaque (see :func:`blinkcoll.schedules.expand_exchanges`).

    ``max_channels`` holds for the expanded program too.

    Raises
    ------
    ScheduleError
        Where the plan has no partitions, or more than ``max_channels`` can hold.
    """
    if not plan.partitions:
        raise ScheduleError(f"{plan.method}: a plan without partitions has no three phases")
    copies = channels_per_tree([p.rate for p in plan.partitions], channel_gb_s, _budget(plan.partitions, plan.topology.nranks, max_channels))
    builder = _Builder(plan, slots)
    rates = [p.rate / n for p, n in zip(plan.partitions, copies, strict=True) for _ in range(n)]
    for share, partition in enumerate(p for p, n in zip(plan.partitions, copies, strict=True) for _ in range(n)):
        builder.add(partition, share)
    return Program(
        algorithm="three-phase",
        collective=plan.collective,
        root=plan.root,
        topology=plan.topology,
        nshards=1,
        weights=integer_weights(rates),
        connections=tuple(builder.connections),
        ranks=tuple(map(tuple, builder.channels)),
        chunk_bytes=chunk_bytes,
    )


def _budget(partitions: Sequence[Partition], nranks: int, max_channels: int) -> Callable[[Sequence[int]], bool]:
    """Whether copies keep every rank within ``max_channels``: one a half, and one more at a hub that adds up behind its own sum."""

    def fits(copies: Sequence[int]) -> bool:
        used = [0] * nranks
        for partition, n in zip(partitions, copies, strict=True):
            for rank in range(nranks):
                alone = partition.down is None and rank == partition.hub
                used[rank] += n * ((partition.up is not None) + (partition.down is not None) + alone)
        return max(used) <= max_channels

    return fits


class _Builder:
    """Connections and channels as partitions are added."""

    def __init__(self, plan: Plan, slots: int) -> None:
        self.plan, self.slots = plan, slots
        self.connections: list[Connection] = []
        self.channels: list[list[Channel]] = [[] for _ in range(plan.topology.nranks)]

    def add(self, partition: Partition, share: int) -> None:
        """A partition that carries a share."""
        up, down, ways = self._connect(partition.up or ()), self._connect(partition.down or ()), self._connect(partition.exchange, "c10d")
        to_parent = {self.connections[c].src: c for c in up}
        from_parent = {self.connections[c].dst: c for c in down}
        below: dict[int, list[int]] = defaultdict(list)
        above: dict[int, list[int]] = defaultdict(list)
        for c in up:
            below[self.connections[c].dst].append(c)
        for c in down:
            above[self.connections[c].src].append(c)
        group = (partition.hub, *(r for r in partition.roots if r != partition.hub))
        for rank, channels in enumerate(self.channels):
            over = tuple(c for c in ways if rank in (self.connections[c].src, self.connections[c].dst))
            make = _Steps(self.plan, share, rank, below[rank], to_parent.get(rank), from_parent.get(rank), above[rank], group, over)
            channels += [Channel(tuple(steps)) for steps in make.channels()]

    def _connect(self, paths: Sequence[Path], transport: str = "peer") -> list[int]:
        first = len(self.connections)
        for path in sorted(paths, key=str):
            src, dst = path[0], path[-1]
            if not isinstance(src, int) or not isinstance(dst, int):
                raise ScheduleError(f"a partition's path must join ranks, got {path}")
            self.connections.append(Connection(src, dst, path, self.slots, transport=transport))
        return list(range(first, len(self.connections)))


@dataclass(frozen=True)
class _Steps:
    """What a rank does for a share: its local trees' connections, and the exchange if it is in its group."""

    plan: Plan
    share: int
    rank: int
    below: Sequence[int]
    to_parent: int | None
    from_parent: int | None
    above: Sequence[int]
    group: tuple[int, ...]
    over: tuple[int, ...]

    def channels(self) -> list[list[Step]]:
        """One a half, or a single one where an exchange joins them."""
        up, down = self.plan.collective in REDUCING, self.plan.collective != "reduce"
        if self.rank in self.group:
            return [self._sum_across() if up else self._hand_across()]
        return [[self._rise()]] * up + [[self._fall()]] * down

    def _rise(self) -> Step:
        """Add own data to the children's sums; on to the parent, or, at a reduce's root, it is complete."""
        if self.to_parent is None:
            return self._step((SCALED_INPUT, *map(slot, self.below)), (OUTPUT,), self.below, complete=True)
        return self._step((SCALED_INPUT, *map(slot, self.below)), (slot(self.to_parent),), (*self.below, self.to_parent))

    def _fall(self) -> Step:
        """Keep what comes from above, and pass it on; at a broadcast's root it is the input."""
        if self.from_parent is None:
            return self._step((INPUT,), (OUTPUT, *map(slot, self.above)), self.above)
        return self._step((slot(self.from_parent),), (OUTPUT, *map(slot, self.above)), (self.from_parent, *self.above))

    def _sum_across(self) -> list[Step]:
        """The server's sum into the exchange, and what comes out to where it is wanted."""
        place = OUTPUT if self.plan.collective == "allreduce" else SCRATCH
        steps = [self._step((SCALED_INPUT, *map(slot, self.below)), (place,), self.below)] if self.below else []
        source = place if self.below else SCALED_INPUT
        complete = self.plan.collective == "allreduce" or self.group[0] == self.plan.root
        if self.plan.collective == "allreduce":
            return [*steps, self._exchange((source,), (OUTPUT, *map(slot, self.above)), self.above, complete)]
        if self.rank != self.group[0]:
            return [*steps, self._exchange((source,), (), (), complete)]
        if self.to_parent is None:
            return [*steps, self._exchange((source,), (OUTPUT,), (), complete)]
        return [*steps, self._exchange((source,), (slot(self.to_parent),), (self.to_parent,), complete)]

    def _hand_across(self) -> list[Step]:
        """A broadcast's data to the other servers, or from the root's server down."""
        if self.rank == self.group[0]:
            return [self._fall(), self._exchange((OUTPUT,), (), ())]
        return [self._exchange((), (OUTPUT, *map(slot, self.above)), self.above)]

    def _step(self, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], touched: Sequence[int], complete: bool = False) -> Step:
        op = "copy" if len(srcs) == 1 else "reduce"
        return Step(op, self.share, srcs, dsts, wait=tuple(touched), signal=tuple(touched), postscaled=complete)

    def _exchange(self, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], touched: Sequence[int], complete: bool = False) -> Step:
        syncs = tuple(touched)
        return Step("exchange", self.share, srcs, dsts, wait=syncs, signal=syncs, postscaled=complete, group=self.group, over=self.over)
