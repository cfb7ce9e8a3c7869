"""How many hops follow one another in a program at least, whatever the size."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..schedules.identity import ButProtocols, once_a_program
from ..schedules.program import Program, Step


def find_least_depth(program: Program) -> int:
    """Hops that follow one another in a share's first chunk: in the share that has fewest, since the others may have no data.

    A hop is one use of a connection. It follows those that its writer has read before in the same iteration, in that step or an
    earlier one of its channel; a signal that is waited for late delays nothing that was sent before.
    """
    return _Hops(program).least()


least_depth = once_a_program(find_least_depth, ButProtocols)


@dataclass
class _Walk:
    """A channel on its way through an iteration."""

    rank: int
    steps: tuple[Step, ...]
    position: int = 0
    depth: dict[int, int] = field(default_factory=dict)  # share -> hops before the next step


class _Hops:
    """Walks every channel through one iteration, each as far as what it reads has been written."""

    def __init__(self, program: Program) -> None:
        self._starts, self._arrives = [c.src for c in program.connections], [c.dst for c in program.connections]
        self._written: list[list[int]] = [[] for _ in program.connections]  # of each use, the hops up to it
        self._read = [0] * len(program.connections)
        self._deepest = [0] * len(program.weights)
        self._blocked: dict[int, _Walk] = {}
        self._ready = [_Walk(rank, channel.steps) for rank, channels in enumerate(program.ranks) for channel in channels]

    def least(self) -> int:
        """The depth of the shallowest share."""
        while self._ready:
            walk = self._ready.pop()
            while walk.position < len(walk.steps) and self._take(walk, walk.steps[walk.position]):
                walk.position += 1
        return min(self._deepest)

    def _take(self, walk: _Walk, step: Step) -> bool:
        """Whether a channel's next step has what it reads; if so it is done."""
        depth = walk.depth.get(step.share, 0)
        for c in step.wait:
            if self._arrives[c] == walk.rank:
                if len(self._written[c]) <= self._read[c]:
                    self._blocked[c] = walk
                    return False
                depth = max(depth, self._written[c][self._read[c]])
        walk.depth[step.share] = depth
        for c in step.signal:
            if self._arrives[c] == walk.rank:
                self._read[c] += 1
            if self._starts[c] == walk.rank:
                self._written[c].append(depth + 1)
                self._deepest[step.share] = max(self._deepest[step.share], depth + 1)
                if c in self._blocked:
                    self._ready.append(self._blocked.pop(c))
        return True
