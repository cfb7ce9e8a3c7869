"""Steps of many trees or paths, to few channels.

Where a program has more trees than a rank may run channels, a channel runs steps of several, one after the other. While a
step stores over a link, which others use too, the other links that its channel serves may stand idle; a step that only
keeps what has arrived is quick. So steps without stores share channels first, then those that store over the same links.

No order of the steps within a channel can deadlock that follows the data: a step that gets a chunk after d hops comes
after all steps of its channel that get theirs after fewer.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations

from ..errors import ScheduleError
from ..topology import Path, Topology
from .program import After, Channel, Connection, Step, executor_numbers
from .transports import transport_of


@dataclass(frozen=True, eq=False)
class Placed:
    """A step, and its place among those of its channel: hops of its data so far, then whose data.

    ``behind``: another step of the rank, share and iteration that must be complete before.
    """

    hops: int
    turn: int
    step: Step
    behind: Placed | None = None


@dataclass(eq=False)
class _Bundle:
    """What runs in one channel: steps, the links out of the rank that they store over, and how many chunks they store.

    A step that stores nothing over links counts as one.
    """

    placed: list[Placed] = field(default_factory=list)
    links: frozenset[int | str] = frozenset()
    load: int = 0

    def ordered(self) -> list[Placed]:
        return sorted(self.placed, key=lambda p: (p.hops, p.turn, p.step.shard))


class _Group:
    """The bundles of one share and lane; those over the same links side by side, the smallest first."""

    def __init__(self, bundles: Iterable[_Bundle], room: int) -> None:
        self.room = room
        self.by_links: dict[frozenset[int | str], list[_Bundle]] = defaultdict(list)
        for bundle in bundles:
            insort(self.by_links[bundle.links], bundle, key=lambda bundle: bundle.load)

    def __len__(self) -> int:
        return sum(map(len, self.by_links.values()))

    def cheapest(self) -> tuple[tuple[int, int, int], _Bundle, _Bundle]:
        """Which two to put together next, after the cost: load beyond what a channel moves, links that they then serve, load."""
        first = [held[0] for held in self.by_links.values() if held]
        pairs = [*combinations(first, 2), *((held[0], held[1]) for held in self.by_links.values() if len(held) > 1)]
        costs = (((max(0, a.load + b.load - self.room), len(a.links | b.links), a.load + b.load), a, b) for a, b in pairs)
        return min(costs, key=lambda pair: pair[0])

    def merge(self, a: _Bundle, b: _Bundle) -> None:
        for bundle in (a, b):
            self.by_links[bundle.links].remove(bundle)
        merged = _Bundle(a.placed + b.placed, a.links | b.links, a.load + b.load)
        insort(self.by_links[merged.links], merged, key=lambda bundle: bundle.load)

    def channels(self) -> list[list[Placed]]:
        return [bundle.ordered() for held in self.by_links.values() for bundle in held]


class ChannelBuilder:
    """Connections, and the steps of every executor (the ranks, then the relays), as trees and paths are added."""

    def __init__(self, topology: Topology, slots: int) -> None:
        self.topology, self.slots = topology, slots
        self.numbers = executor_numbers(topology)
        self.connections: list[Connection] = []
        self._bundles: list[dict[tuple[int, int], dict[Hashable, _Bundle]]] = [defaultdict(dict) for _ in self.numbers]

    def connect(self, path: Path) -> int:
        """A connection along a path, by number."""
        src, dst = self.numbers.get(path[0]), self.numbers.get(path[-1])
        if src is None or dst is None:
            raise ScheduleError(f"a connection must join ranks or relays, got {path}")
        self.connections.append(Connection(src, dst, path, self.slots, transport=transport_of(self.topology, path)))
        return len(self.connections) - 1

    def relay(self, executor: int) -> bool:
        """Whether it has no input and no output: it forwards, copies and adds up what others have."""
        return executor >= self.topology.nranks

    def connect_all(self, paths: Iterable[Path]) -> list[int]:
        """Connections along the paths of a tree, nearest number first.

        The order does not depend on theirs, and it differs from rank to rank: where a wide step is split, not all ranks store
        to the same ones at a time.
        """
        return [self.connect(path) for path in sorted(paths, key=self._distance)]

    def _distance(self, path: Path) -> tuple[int, str]:
        src, dst = path[0], path[-1]
        return ((dst - src) % self.topology.nranks if isinstance(src, int) and isinstance(dst, int) else 0), str(path)

    def add(self, rank: int, step: Step, *, together: Hashable, hops: int, turn: int, lane: int = 0, behind: Placed | None = None) -> Placed:
        """A step of ``rank``; steps with the same ``together`` are in one channel, those of different lanes never are.

        ``hops``: how far the data has come; of two steps at equal distance the one with the lower ``turn`` comes first.
        ``behind``: a step of this rank and share whose data has come less far, to be complete before.
        """
        bundle = self._bundles[rank][step.share, lane].setdefault(together, _Bundle())
        placed = Placed(hops, turn, step, behind)
        bundle.placed.append(placed)
        bundle.load += max(1, sum(o.connection is not None for o in step.dsts))
        bundle.links |= {self.connections[o.connection].path[1] for o in step.dsts if o.connection is not None}
        return placed

    def channels(self, most: int, room: Fraction) -> tuple[tuple[Channel, ...], ...]:
        """Every executor's channels, at most ``most`` of them, each with no more than ``room`` steps at once where that can be.

        Relays are left out where none has work.

        Raises
        ------
        ScheduleError
            Where there are more shares and lanes than that.
        """
        idle = not any(self._bundles[self.topology.nranks :])
        count = self.topology.nranks if idle else len(self.numbers)
        return tuple(self._of_rank(executor, most, max(1, int(room))) for executor in range(count))

    def _of_rank(self, rank: int, most: int, room: int) -> tuple[Channel, ...]:
        groups = [_Group(self._in_turn(of_key.values()), room) for _, of_key in sorted(self._bundles[rank].items())]
        if len(groups) > most:
            raise ScheduleError(f"max_channels={most}: {len(groups)} shares need a channel each; raise it or ask for a plan with fewer trees")
        best = {i: group.cheapest() for i, group in enumerate(groups) if len(group) > 1}
        for _ in range(sum(map(len, groups)) - most):
            i = min(best, key=lambda i: (best[i][0], -len(groups[i]), i))
            groups[i].merge(*best.pop(i)[1:])
            if len(groups[i]) > 1:
                best[i] = groups[i].cheapest()
        channels = [channel for group in groups for channel in group.channels()]
        place = {id(placed): (c, s) for c, channel in enumerate(channels) for s, placed in enumerate(channel)}
        return tuple(Channel(tuple(_ordered_step(placed, c, place) for placed in channel)) for c, channel in enumerate(channels))

    @staticmethod
    def _in_turn(bundles: Iterable[_Bundle]) -> Iterable[_Bundle]:
        """Behind switches by turn: what shares a channel then differs from rank to rank, and not all store to the same at a time."""
        made = list(bundles)
        switched = any(isinstance(vertex, str) for bundle in made for vertex in bundle.links)
        return sorted(made, key=lambda bundle: bundle.placed[0].turn) if switched else made


def _ordered_step(placed: Placed, channel: int, place: dict[int, tuple[int, int]]) -> Step:
    """The step, made to wait for the one that it must follow where that is in another channel."""
    if placed.behind is None:
        return placed.step
    other, step = place[id(placed.behind)]
    return placed.step if other == channel else replace(placed.step, after=(After(other, step),))
