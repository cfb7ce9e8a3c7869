"""Trees to programs: reduce towards the root in one direction while broadcasting in the other (Blink, sections 3-4).

Every tree (or copy of one, where its rate needs several channels) is one share of the data. A rank has an *up* channel
that adds its own data to its children's and sends the sum on, and a *down* channel that keeps what comes from above and
passes it on; at the root the two meet in one step, so both directions of every link are busy at once. The order of a
sum is the order of its sources: own data first, then children by rank.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction

from ..errors import ScheduleError
from ..packing.plan import Plan, Tree
from ..packing.weights import rate_of, tree_load, tree_uses
from ..topology import Path, Topology
from .contract import REDUCING
from .program import INPUT, OUTPUT, SCALED_INPUT, Channel, Connection, Operand, Program, Step, executor_numbers, slot
from .shares import channels_per_tree, copies_to_spare, integer_weights
from .transports import transport_of

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
    builder = TreeBuilder(plan.topology, slots, any(_relays_of(tree) for tree in plan.trees))
    rates: list[Fraction] = []
    trees = [t for t in plan.trees if t.rate > 0]
    copies = _copies(trees, plan.topology, channel_gb_s, max_channels)
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
    return not trees or _budget(trees, plan.topology, max_channels)([1] * len(trees))


def _copies(trees: Sequence[Tree], topology: Topology, channel_gb_s: Fraction, max_channels: int) -> list[int]:
    """Channels of one rate for trees that share links, of another for those beside them on others (PCIe beside NVLink).

    One more for each link than it takes, as long as no rank has more than the default's number by it.
    """
    fits, few = (_budget(trees, topology, most) for most in (max_channels, min(max_channels, MAX_CHANNELS)))
    copies = [1] * len(trees)
    for together in _sharing(trees):

        def fit(these: Sequence[int], copies: Sequence[int] = copies, together: Sequence[int] = together) -> bool:
            return fits(_with(copies, together, these))

        sharing = [trees[i] for i in together]
        rates = [tree.rate for tree in sharing]
        least_used = min(tree_load(sharing).values(), default=rate_of(sharing))
        spare = copies_to_spare(rates, channel_gb_s, least_used)
        if not few(_with(copies, together, spare)):
            spare = channels_per_tree(rates, channel_gb_s, fit)
        copies = _with(copies, together, spare)
    return copies


def _with(copies: Sequence[int], together: Sequence[int], these: Sequence[int]) -> list[int]:
    """The numbers of copies with those of some trees changed."""
    changed = dict(zip(together, these, strict=True))
    return [changed.get(i, n) for i, n in enumerate(copies)]


def _sharing(trees: Sequence[Tree]) -> list[list[int]]:
    """The trees, by number, in groups that have no link in common; the fastest group first."""
    groups: list[tuple[set[tuple[int | str, int | str]], list[int]]] = []
    for i, tree in enumerate(trees):
        hops = set(tree_uses(tree))
        mine, others = (hops, [i]), []
        for group in groups:
            if group[0].isdisjoint(hops):
                others.append(group)
            else:
                mine = (mine[0] | group[0], sorted([*mine[1], *group[1]]))
        groups = [*others, mine]
    return sorted((numbers for _, numbers in groups), key=lambda numbers: (-sum(trees[i].rate for i in numbers), numbers))


def _budget(trees: Sequence[Tree], topology: Topology, max_channels: int) -> Callable[[Sequence[int]], bool]:
    """Whether copies of trees keep every executor within ``max_channels``: a half each, and one at the root."""
    needed = []  # per tree, the channels of each device that has any
    for tree in trees:
        both = (tree.up is not None) + (tree.down is not None)
        devices: dict[int | str, int] = {rank: both - (rank == tree.root and both == 2) for rank in range(topology.nranks)}
        for half in (tree.up or (), tree.down or ()):
            for relay in _relays_in(half):
                devices[relay] = devices.get(relay, 0) + 1
        needed.append(devices)

    def fits(copies: Sequence[int]) -> bool:
        total: Counter[int | str] = Counter()
        for devices, n in zip(needed, copies, strict=True):
            for device, channels in devices.items():
                total[device] += n * channels
        return max(total.values()) <= max_channels

    return fits


def _relays_in(half: Sequence[Path]) -> set[str]:
    return {v for path in half for v in (path[0], path[-1]) if isinstance(v, str)}


def _relays_of(tree: Tree) -> set[str]:
    return _relays_in((*(tree.up or ()), *(tree.down or ())))


def _alone(plan: Plan) -> tuple[tuple[Channel, ...], ...]:
    """One rank has nobody to talk to: its output is its input."""
    if plan.topology.nranks != 1:
        raise ScheduleError(f"a plan of {plan.topology.nranks} ranks without trees cannot be lowered")
    reduces = plan.collective in REDUCING
    return ((Channel((Step("copy", 0, (SCALED_INPUT if reduces else INPUT,), (OUTPUT,), postscaled=reduces),)),),)


class TreeBuilder:
    """Connections and channels as trees are added."""

    def __init__(self, topology: Topology, slots: int, relays: bool = False) -> None:
        self.topology, self.slots = topology, slots
        self.numbers = executor_numbers(topology)
        self.connections: list[Connection] = []
        self.channels: list[list[Channel]] = [[] for _ in range(len(self.numbers) if relays else topology.nranks)]

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
        for relay in range(self.topology.nranks, len(self.channels)):
            self._relay(relay, share, below[relay], to_parent.get(relay), from_parent.get(relay), above[relay])
        for rank in range(self.topology.nranks):
            if rank == tree.root:
                self._step(rank, share, (own, *map(slot, below[rank])), (OUTPUT, *map(slot, above[rank])), below[rank], above[rank], tree.up is not None)
                continue
            if tree.up is not None:
                self._step(rank, share, (own, *map(slot, below[rank])), (slot(to_parent[rank]),), below[rank], [to_parent[rank]])
            if tree.down is not None:
                arrives = from_parent[rank]
                self._step(rank, share, (slot(arrives),), (OUTPUT, *map(slot, above[rank])), [arrives], above[rank])

    def _relay(self, relay: int, share: int, below: list[int], to_parent: int | None, from_parent: int | None, above: list[int]) -> None:
        """A relay has nothing of its own: it adds up what comes from below, and copies what comes from above."""
        if to_parent is not None:
            self._step(relay, share, tuple(map(slot, below)), (slot(to_parent),), below, [to_parent])
        if from_parent is not None:
            self._step(relay, share, (slot(from_parent),), tuple(map(slot, above)), [from_parent], above)

    def _connect(self, paths: Sequence[Path], child: int) -> dict[int, int]:
        """A connection per path, keyed by the child of that edge: the executor at the path's end ``child``."""
        made: dict[int, int] = {}
        for path in sorted(paths, key=str):
            src, dst = self.numbers.get(path[0]), self.numbers.get(path[-1])
            if src is None or dst is None:
                raise ScheduleError(f"a tree's path must join ranks or relays, got {path}")
            made[self.numbers[path[child]]] = len(self.connections)
            self.connections.append(Connection(src, dst, path, self.slots, transport=transport_of(self.topology, path)))
        return made

    def _step(
        self, rank: int, share: int, srcs: tuple[Operand, ...], dsts: tuple[Operand, ...], arriving: list[int], leaving: list[int],
        complete: bool = False,
    ) -> None:  # fmt: skip
        touched = (*arriving, *leaving)
        op = "copy" if len(srcs) == 1 else "reduce"
        self.channels[rank].append(Channel((Step(op, share, srcs, dsts, wait=touched, signal=touched, postscaled=complete),)))
