"""What ranks tell each other and end with, in a form that does not depend on how they come to it.

For one iteration: the values published on each connection, in order, and each output's. A sum of sums is the bag of its
terms, and a chunk goes by what it holds, not by what it is called. Programs with one normal form cannot be told apart by
any rank but the one that does something otherwise.
"""

from __future__ import annotations

from schedules import unrolled

from blinkcoll.schedules.program import Program


class _Recorder(unrolled._Memory):
    def __init__(self, program: Program) -> None:
        super().__init__(program, in_place=False)
        self.published = {}

    def write(self, place, event, value) -> None:
        super().write(place, event, value)
        if place[0] == "slot":
            self.published[place[1], event.slots[place[1]]] = _flat(value[1])


def normal_form(program: Program):
    """Published values by connection and use, and final outputs by rank and cell."""
    tracks = unrolled._unroll(program, [1] * len(program.weights))
    unrolled._connect(program, tracks)
    memory = _Recorder(program)
    for event in unrolled._topological(tracks, unrolled._meet(tracks)):
        unrolled._execute(program, event, memory)
    outputs = {place[1:]: _flat(value) for place, value in memory.value.items() if place[0] == "output"}
    return memory.published, outputs


def _flat(value):
    if value[0] == "sum":
        terms = [term for part in value[1:] for term in (lambda f: f[1] if f[0] == "sum" else (f,))(_flat(part))]
        return "sum", tuple(sorted(terms, key=repr))
    if value[0] == "switched":  # which of a switch's sums it is, unrolling has checked; its terms are in no order
        return "switched", tuple(sorted(map(_flat, value[2:]), key=repr))
    if value[0] in ("prescaled", "postscaled"):
        return value[0], _flat(value[1])
    return value
