"""Ways to damage an exchange by one change, by kind, as ``mutants.py`` has them for all steps."""

from __future__ import annotations

from dataclasses import replace

from schedules.mutants import spots, step_at, with_step, with_steps

from blinkcoll.schedules import INPUT, OUTPUT, SCRATCH


def _exchange_spot(program, random):
    return random.choice(spots(program, lambda step: step.op == "exchange"))


def _another_order(program, random):
    spot = _exchange_spot(program, random)
    group = list(step_at(program, spot).group)
    random.shuffle(group)
    return with_step(program, spot, group=tuple(group))


def _another_hub(program, random):
    """All members agree on another order: right where all give and all get."""
    group = step_at(program, _exchange_spot(program, random)).group
    turned = (*group[1:], group[0])
    for spot in spots(program, lambda step: step.group == group):
        program = with_step(program, spot, group=turned)
    return program


def _missing_member(program, random):
    spot = _exchange_spot(program, random)
    group = step_at(program, spot).group
    gone = random.choice(group)
    return with_step(program, spot, group=tuple(r for r in group if r != gone))


def _wrong_member(program, random):
    spot = _exchange_spot(program, random)
    group = list(step_at(program, spot).group)
    group[random.randrange(len(group))] = random.randrange(program.nranks)
    return with_step(program, spot, group=tuple(group))


def _dropped(program, random):
    rank, channel, index = _exchange_spot(program, random)
    steps = program.ranks[rank][channel].steps
    return with_steps(program, rank, channel, (*steps[:index], *steps[index + 1 :]))


def _twice(program, random):
    rank, channel, index = _exchange_spot(program, random)
    steps = program.ranks[rank][channel].steps
    return with_steps(program, rank, channel, (*steps[: index + 1], *steps[index:]))


def _swapped(program, random):
    rank, channel, index = _exchange_spot(program, random)
    steps = list(program.ranks[rank][channel].steps)
    if len(steps) < 2:
        return None
    other = random.choice([i for i in range(len(steps)) if i != index])
    steps[index], steps[other] = steps[other], steps[index]
    return with_steps(program, rank, channel, steps)


def _source(program, random):
    spot = _exchange_spot(program, random)
    return with_step(program, spot, srcs=random.choice([(), (INPUT,), (replace(INPUT, prescaled=True),), (OUTPUT,), (SCRATCH,)]))


def _destination(program, random):
    spot = _exchange_spot(program, random)
    dsts = step_at(program, spot).dsts
    kept = tuple(o for o in dsts if random.random() < 0.5)
    return with_step(program, spot, dsts=random.choice([kept, (*kept, SCRATCH), (SCRATCH,)]))


def _scaled(program, random):
    spot = _exchange_spot(program, random)
    return with_step(program, spot, postscaled=not step_at(program, spot).postscaled)


def _another_share(program, random):
    spot = _exchange_spot(program, random)
    return with_step(program, spot, share=random.randrange(len(program.weights)))


KINDS = {
    "group's order changed at one member": _another_order,
    "group's order changed at all members": _another_hub,
    "member missing": _missing_member,
    "wrong member": _wrong_member,
    "exchange dropped": _dropped,
    "exchange made twice": _twice,
    "exchange and step swapped": _swapped,
    "exchange's source changed": _source,
    "exchange's destination changed": _destination,
    "exchange's scale changed": _scaled,
    "exchange moved to another share": _another_share,
}
