"""Three-phase plans to programs: local trees, an exchange of the servers' roots, local trees (Blink, section 3.5).

Every partition (or copy of one, where its rate needs several channels) is one share of the data. Inside a server a rank has
an up channel and a down channel as in ``trees.py``; at the server's root the two meet in an exchange, an opaque step that an
engine carries between servers. All three phases of different chunks run at once. Sums are ordered: in a server own data
first, then children by rank; across servers in the order of the group, the hub first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    copies = channels_per_tree([p.rate for p in plan.partitions], channel_gb_s, _budget(plan, max_channels))
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


def _budget(plan: Plan, max_channels: int) -> Callable[[Sequence[int]], bool]:
    """Whether copies keep every rank within ``max_channels``: one a half, and in a reduce one more where an exchange is added up behind the own sum."""
    each = [[(p.up is not None) + (p.down is not None)] * plan.topology.nranks for p in plan.partitions]
    if plan.collective == "reduce":
        for used, partition in zip(each, plan.partitions, strict=True):
            for rank in {partition.hub, _home(plan, partition)}:
                used[rank] += 1

    def fits(copies: Sequence[int]) -> bool:
        return all(sum(n * used[rank] for n, used in zip(copies, each, strict=True)) <= max_channels for rank in range(plan.topology.nranks))

    return fits


def _home(plan: Plan, partition: Partition) -> int:
    """The partition's root in the server of a rooted collective's root; the hub where there is none."""
    if plan.root is None:
        return partition.hub
    server = [device.server for device in plan.topology.devices]
    return next(r for r in partition.roots if server[r] == server[plan.root])


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
        groups = self._groups(partition)
        for rank, channels in enumerate(self.channels):
            mine = [_Group(g, tuple(c for c in ways if rank in self._ends(c) and self._ends(c) <= set(g))) for g in groups if rank in g]
            make = _Steps(self.plan, share, rank, below[rank], to_parent.get(rank), from_parent.get(rank), above[rank], mine)
            channels += [Channel(tuple(steps)) for steps in make.channels()]

    def _groups(self, partition: Partition) -> list[tuple[int, ...]]:
        """Who exchanges, in the order in which data meets; two exchanges where a reduce's or broadcast's data ends or begins elsewhere than at the hub."""
        hub, home = partition.hub, _home(self.plan, partition)
        others = [r for r in partition.roots if r not in (hub, home)]
        if home == hub:
            return [(hub, *others)]
        return [(home, hub), (hub, *others)] if self.plan.collective == "broadcast" else [(hub, *others), (home, hub)]

    def _ends(self, connection: int) -> set[int]:
        return {self.connections[connection].src, self.connections[connection].dst}

    def _connect(self, paths: Sequence[Path], transport: str = "peer") -> list[int]:
        first = len(self.connections)
        for path in sorted(paths, key=str):
            src, dst = path[0], path[-1]
            if not isinstance(src, int) or not isinstance(dst, int):
                raise ScheduleError(f"a partition's path must join ranks, got {path}")
            self.connections.append(Connection(src, dst, path, self.slots, transport=transport))
        return list(range(first, len(self.connections)))


@dataclass(frozen=True)
class _Group:
    """An exchange that a rank takes part in, and its ways there."""

    ranks: tuple[int, ...]
    over: tuple[int, ...]


@dataclass(frozen=True)
class _Steps:
    """What a rank does for a share: its local trees' connections, and the exchanges that it is in."""

    plan: Plan
    share: int
    rank: int
    below: Sequence[int]
    to_parent: int | None
    from_parent: int | None
    above: Sequence[int]
    groups: Sequence[_Group]

    def channels(self) -> list[list[Step]]:
        """One a half, or a single one where an exchange joins them."""
        if self.groups:
            return [{"allreduce": self._both, "reduce": self._sum_across, "broadcast": self._hand_across}[self.plan.collective]()]
        return [[self._rise()]] * (self.plan.collective in REDUCING) + [[self._fall()]] * (self.plan.collective != "reduce")

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

    def _both(self) -> list[Step]:
        """The server's sum into the exchange, what comes out of it down the server's tree."""
        steps, source = self._own_sum(OUTPUT)
        return [*steps, self._exchange(self.groups[0], (source,), (OUTPUT, *map(slot, self.above)), self.above, complete=True)]

    def _sum_across(self) -> list[Step]:
        """The server's sum into the exchange; at the hub on to the root's server, there into the tree that leads to the root."""
        steps, source = self._own_sum(SCRATCH)
        for group in self.groups:
            last = group is self.groups[-1]
            if self.rank != group.ranks[0]:
                made = self._exchange(group, (source,), (), ())
            elif not last:
                made, source = self._exchange(group, (source,), (SCRATCH,), ()), SCRATCH
            elif self.to_parent is None:
                made = self._exchange(group, (source,), (OUTPUT,), ())
            else:
                made = self._exchange(group, (source,), (slot(self.to_parent),), (self.to_parent,))
            steps.append(replace(made, postscaled=group.ranks[0] == self.plan.root))
        return steps

    def _own_sum(self, place: Operand) -> tuple[list[Step], Operand]:
        """The step that adds up what is below, and where the sum is; a rank alone in its server has it already."""
        if not self.below:
            return [], SCALED_INPUT
        return [self._step((SCALED_INPUT, *map(slot, self.below)), (place,), self.below)], place

    def _hand_across(self) -> list[Step]:
        """What the root's server has on its way to the others, what they get down their trees."""
        steps = [self._fall()] if self.rank == self.groups[0].ranks[0] and self._at_home() else []
        for group in self.groups:
            if self.rank == group.ranks[0]:
                steps.append(self._exchange(group, (OUTPUT,), (), ()))
            else:
                steps.append(self._exchange(group, (), (OUTPUT, *map(slot, self.above)), self.above))
        return steps

    def _at_home(self) -> bool:
        assert self.plan.root is not None
        devices = self.plan.topology.devices
        return devices[self.rank].server == devices[self.plan.root].server

    def _step(self, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], touched: Sequence[int], complete: bool = False) -> Step:
        op = "copy" if len(srcs) == 1 else "reduce"
        return Step(op, self.share, srcs, dsts, wait=tuple(touched), signal=tuple(touched), postscaled=complete)

    def _exchange(self, group: _Group, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], touched: Sequence[int], complete: bool = False) -> Step:
        syncs = tuple(touched)
        return Step("exchange", self.share, srcs, dsts, wait=syncs, signal=syncs, postscaled=complete, group=group.ranks, over=group.over)
