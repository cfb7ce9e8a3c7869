"""Steps with more operands than an executor holds, as several steps of the same channel.

A switch joins a rank to as many others as it has ports: on 72 GPUs a star's root has 71 children. A copy to many is
made of copies of the same source; a sum of many is continued from a partial sum. Only the rank that adds up changes how it
does, so every rank still gets the same expression; in half precision a partial sum is rounded when it is stored.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import ScheduleError
from .program import OUTPUT, SCRATCH, After, Channel, Operand, Program, Step

#: The most sources and destinations of a step: kMostOperands of csrc/blinkcoll/dispatch.h.
MOST_OPERANDS = 64


def split_wide_steps(program: Program, most: int = MOST_OPERANDS) -> Program:
    """The same program with steps of at most ``most`` operands, but for exchanges, which no executor runs as they are.

    Partial sums are kept in the rank's output where the step writes it and no later source may lie there, else in
    scratch. Connections of steps that are split are simple: lines want one step a use.

    Raises
    ------
    ScheduleError
        Where ``most`` leaves no room for two sources and a destination, or a partial sum needs scratch that the program
        uses itself.
    """
    if most < 3:
        raise ScheduleError(f"steps of at most {most} operands cannot add: expected at least 3")
    steps = [step for channels in program.ranks for channel in channels for step in channel.steps]
    if all(step.op == "exchange" or _width(step) <= most for step in steps):
        return program
    scratch_is_free = all("scratch" not in (o.buffer, o.region) for step in steps for o in (*step.srcs, *step.dsts))
    ranks = []
    for channels in program.ranks:
        pieces = [[_split(step, most, scratch_is_free) for step in channel.steps] for channel in channels]
        ends = [_ends(of_channel) for of_channel in pieces]
        ranks.append(tuple(Channel(tuple(_moved(step, ends) for of_step in of_channel for step in of_step)) for of_channel in pieces))
    wide = [step for step in steps if step.op != "exchange" and _width(step) > most]
    split = {c for step in wide for c in (*step.wait, *step.signal, *(o.connection for o in (*step.srcs, *step.dsts)))}
    connections = tuple(replace(c, protocol="simple") if i in split else c for i, c in enumerate(program.connections))
    return replace(program, connections=connections, ranks=tuple(ranks))


def _width(step: Step) -> int:
    return len(step.srcs) + len(step.dsts)


def _ends(pieces: list[list[Step]]) -> list[int]:
    """Where each former step is complete now."""
    ends, at = [], -1
    for of_step in pieces:
        at += len(of_step)
        ends.append(at)
    return ends


def _moved(step: Step, ends: list[list[int]]) -> Step:
    """The step with its ``after`` in the new numbers."""
    return replace(step, after=tuple(After(a.channel, ends[a.channel][a.step], a.lag) for a in step.after)) if step.after else step


def _split(step: Step, most: int, scratch_is_free: bool) -> list[Step]:
    if step.op == "exchange" or _width(step) <= most:
        return [step]
    if step.op == "copy":
        # The output last: in place it is where the source may lie.
        dsts = tuple(sorted(step.dsts, key=lambda o: o.connection is None))
        return _synchronised(step, [replace(step, dsts=part) for part in _in_parts(dsts, most - 1)])
    partial = _place_for_partial_sums(step, most)
    if partial == SCRATCH and not scratch_is_free:
        raise ScheduleError(f"a step of {_width(step)} operands, where {most} are supported, needs scratch for its partial sum, which the program uses itself")
    *first, last = _sums(step.srcs, partial, most - 1)
    made = [Step("reduce", step.share, srcs, (partial,), shard=step.shard) for srcs in first]
    # The last sum also goes where there is room; what remains is copied from the partial sum's place.
    dsts = (partial, *(o for o in step.dsts if o != partial)) if len(last) + len(step.dsts) > most else step.dsts
    now, rest = dsts[: most - len(last)], dsts[most - len(last) :]
    made.append(Step("reduce", step.share, last, now, shard=step.shard, postscaled=step.postscaled))
    made += [Step("copy", step.share, (partial,), part, shard=step.shard) for part in _in_parts(rest, most - 1)]
    return _synchronised(step, made)


def _sums(srcs: tuple[Operand, ...], partial: Operand, most: int) -> list[tuple[Operand, ...]]:
    """Sources of each sum, in order; all but the first begin with the sum so far."""
    made, rest = [srcs[:most]], srcs[most:]
    while rest:
        made.append((partial, *rest[: most - 1]))
        rest = rest[most - 1 :]
    return made


def _place_for_partial_sums(step: Step, most: int) -> Operand:
    """The output, unless a source that is read later may lie there (in place the input does)."""
    later = step.srcs[most - 1 :]
    return OUTPUT if OUTPUT in step.dsts and all(o.connection is not None for o in later) else SCRATCH


def _in_parts(operands: tuple[Operand, ...], size: int) -> list[tuple[Operand, ...]]:
    return [operands[i : i + size] for i in range(0, len(operands), size)]


def _synchronised(step: Step, made: list[Step]) -> list[Step]:
    """The steps in a row, each waiting for what it is the first to use and signalling what it is the last to."""
    used = [{o.connection for o in (*part.srcs, *part.dsts)} for part in made]
    first = {c: next((i for i, of_part in enumerate(used) if c in of_part), 0) for c in step.wait}
    last = {c: next((i for i in reversed(range(len(made))) if c in used[i]), len(made) - 1) for c in step.signal}
    return [
        replace(
            part,
            wait=tuple(c for c in step.wait if first[c] == i),
            signal=tuple(c for c in step.signal if last[c] == i),
            after=step.after if i == 0 else (),
        )
        for i, part in enumerate(made)
    ]
