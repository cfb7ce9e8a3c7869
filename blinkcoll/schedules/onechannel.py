"""A program with each rank's channels joined into one: for small calls, where setting a channel up costs more than it moves.

What waits for nobody's data comes first, so that a rank has told the others before it begins to look for what they tell; a look
at a counter takes its line away from the rank that is about to raise it.
"""

from __future__ import annotations

from dataclasses import replace
from graphlib import TopologicalSorter

from ..errors import ScheduleError
from .program import Channel, Program, Step


def in_one_channel(program: Program) -> Program:
    """The same steps in one channel a rank: as far as their order allows those first that read no slot.

    Steps keep the order of their channels, and of channels that wait for each other. Where ranks pass on what they get, ranks may
    then wait for each other in a circle: the verifier, which every program has to pass, finds out.

    Raises
    ------
    ScheduleError
        Where it has several shares: a channel carries one.
    """
    if len(program.weights) != 1:
        raise ScheduleError(f"{program.algorithm}: a channel carries one share, the program has {len(program.weights)}")
    return replace(program, ranks=tuple((Channel(_joined(channels)),) if channels else () for channels in program.ranks))


def _joined(channels: tuple[Channel, ...]) -> tuple[Step, ...]:
    earlier: TopologicalSorter[tuple[int, int]] = TopologicalSorter()
    for c, channel in enumerate(channels):
        for s, step in enumerate(channel.steps):
            earlier.add((c, s), *[(c, s - 1)] * (s > 0), *((a.channel, a.step) for a in step.after if a.lag == 0))
    earlier.prepare()
    ready, steps = list(earlier.get_ready()), list[Step]()
    while ready:
        at = min(ready, key=lambda at: (_reads_a_slot(channels[at[0]].steps[at[1]]), at))
        steps.append(replace(channels[at[0]].steps[at[1]], after=()))
        earlier.done(at)
        ready.remove(at)
        ready += earlier.get_ready()
    return tuple(steps)


def _reads_a_slot(step: Step) -> bool:
    return any(operand.buffer == "slot" for operand in step.srcs)
