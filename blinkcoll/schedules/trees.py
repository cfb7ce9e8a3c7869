"""Trees to programs: reduce towards the root in one direction while broadcasting in the other (Blink, sections 3-4).

Every tree (or copy of one, where its rate needs several channels) is one share of the data. A rank has an *up* channel
that adds its own data to its children's and sends the sum on, and a *down* channel that keeps what comes from above and
passes it on; at the root the two meet in one step, so both directions of every link are busy at once. The order of a
sum is the order of its sources: own data first, then children by rank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction

from ..errors import ScheduleError
from ..packing.plan import Plan, Tree
from ..topology import Path
from .contract import REDUCING
from .program import INPUT, OUTPUT, SCALED_INPUT, Channel, Connection, Operand, Program, Step, slot
from .shares import channels_per_tree, integer_weights

#: Channels (thread blocks) any rank may run, unless the caller says otherwise.
MAX_CHANNELS = 32
#: What one channel is taken to move, GB/s: NCCL 2.30.7 src/graph/tuning.cc has 20-26 for a ring's or tree's channel on
#: Volta and Ampere (perChMaxRingLL128Bws, perChMaxTreeBws).
CHANNEL_GB_S = Fraction(20)


def lower_trees(
    plan: Plan, *, slots: int = 4, max_channels: int = MAX_CHANNELS, channel_gb_s: Fraction = CHANNEL_GB_S,
    chunk_bytes: int = 1 << 19,
) -> Program:  # fmt: skip
    """The program of a tree plan for broadcast, reduce or allreduce.

    Raises
    ------
    ScheduleError
        Where the plan has no trees for its collective, or more than ``max_channels`` can hold.
    """
    if plan.collective not in ("broadcast", "reduce", "allreduce"):
        raise ScheduleError(f"trees cannot be lowered to {plan.collective}")
    builder = TreeBuilder(plan.topology.nranks, slots)
    rates: list[Fraction] = []
    trees = [t for t in plan.trees if t.rate > 0]
    copies = channels_per_tree([t.rate for t in trees], channel_gb_s, _budget(trees, plan.topology.nranks, max_channels)) if trees else []
    for tree, n in zip(trees, copies, strict=True):
        for _ in range(n):
            builder.add(tree, share=len(rates))
            rates.append(tree.rate / n)
    return Program(
        algorithm="trees",
        collective=plan.collective,
        root=plan.root,
        topology=plan.topology,
        nshards=1,
        weights=integer_weights(rates) if rates else (1,),
        connections=tuple(builder.connections),
        ranks=tuple(tuple(channels) for channels in builder.channels) if rates else _alone(plan),
        chunk_bytes=chunk_bytes,
    )


def fits(plan: Plan, max_channels: int) -> bool:
    """Whether every tree can have channels of its own."""
    trees = [t for t in plan.trees if t.rate > 0]
    return not trees or _budget(trees, plan.topology.nranks, max_channels)([1] * len(trees))


def _budget(trees: Sequence[Tree], nranks: int, max_channels: int) -> Callable[[Sequence[int]], bool]:
    """Whether copies of trees keep every rank within ``max_channels``: a half each, and one at the root."""

    def fits(copies: Sequence[int]) -> bool:
        halves = [n * ((tree.up is not None) + (tree.down is not None)) for tree, n in zip(trees, copies, strict=True)]
        saved = [0] * nranks
        for tree, n in zip(trees, copies, strict=True):
            if tree.up is not None and tree.down is not None:
                saved[tree.root] += n
        return sum(halves) - min(saved) <= max_channels

    return fits


def _alone(plan: Plan) -> tuple[tuple[Channel, ...], ...]:
    """One rank has nobody to talk to: its output is its input."""
    if plan.topology.nranks != 1:
        raise ScheduleError(f"a plan of {plan.topology.nranks} ranks without trees cannot be lowered")
    reduces = plan.collective in REDUCING
    return ((Channel((Step("copy", 0, (SCALED_INPUT if reduces else INPUT,), (OUTPUT,), postscaled=reduces),)),),)


class TreeBuilder:
    """Connections and channels as trees are added."""

    def __init__(self, nranks: int, slots: int) -> None:
        self.slots = slots
        self.connections: list[Connection] = []
        self.channels: list[list[Channel]] = [[] for _ in range(nranks)]

    def add(self, tree: Tree, share: int) -> None:
        """A tree that carries a share: its connections, and a channel a rank and half."""
        own = SCALED_INPUT if tree.up is not None else INPUT
        to_parent = self._connect(tree.up or (), child=0)
        from_parent = self._connect(tree.down or (), child=-1)
        below: dict[int, list[int]] = defaultdict(list)  # connections that bring children's sums
        above: dict[int, list[int]] = defaultdict(list)  # connections that take data to children
        for connection in to_parent.values():
            below[self.connections[connection].dst].append(connection)
        for connection in from_parent.values():
            above[self.connections[connection].src].append(connection)
        for rank in range(len(self.channels)):
            if rank == tree.root:
                self._step(rank, share, (own, *map(slot, below[rank])), (OUTPUT, *map(slot, above[rank])), below[rank], above[rank], tree.up is not None)
                continue
            if tree.up is not None:
                self._step(rank, share, (own, *map(slot, below[rank])), (slot(to_parent[rank]),), below[rank], [to_parent[rank]])
            if tree.down is not None:
                arrives = from_parent[rank]
                self._step(rank, share, (slot(arrives),), (OUTPUT, *map(slot, above[rank])), [arrives], above[rank])

    def _connect(self, paths: Sequence[Path], child: int) -> dict[int, int]:
        """A connection per path, keyed by the child of that edge: the rank at the path's end ``child``."""
        made: dict[int, int] = {}
        for path in sorted(paths, key=str):
            src, dst, key = path[0], path[-1], path[child]
            if not isinstance(src, int) or not isinstance(dst, int) or not isinstance(key, int):
                raise ScheduleError(f"a tree's path must join ranks, got {path}")
            made[key] = len(self.connections)
            self.connections.append(Connection(src, dst, path, self.slots))
        return made

    def _step(
        self, rank: int, share: int, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], arriving: list[int], leaving: list[int],
        complete: bool = False,
    ) -> None:  # fmt: skip
        touched = (*arriving, *leaving)
        op = "copy" if len(srcs) == 1 else "reduce"
        self.channels[rank].append(Channel((Step(op, share, srcs, dsts, wait=touched, signal=touched, postscaled=complete),)))
