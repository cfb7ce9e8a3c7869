"""Ways to damage a program by one change, by kind; each takes a random generator and returns another program or None."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from blinkcoll.schedules import OUTPUT, SCRATCH, Channel, Operand, Program, Step, multicast
from blinkcoll.schedules.program import REGIONS

Spot = tuple[int, int, int]


def spots(program: Program, wanted=lambda step: True) -> list[Spot]:
    return [(r, c, s) for r, cs in enumerate(program.ranks) for c, ch in enumerate(cs) for s, step in enumerate(ch.steps) if wanted(step)]


def step_at(program: Program, spot: Spot) -> Step:
    rank, channel, step = spot
    return program.ranks[rank][channel].steps[step]


def with_steps(program: Program, rank: int, channel: int, steps) -> Program:
    channels = [list(cs) for cs in program.ranks]
    channels[rank][channel] = Channel(tuple(steps))
    return replace(program, ranks=tuple(map(tuple, channels)))


def with_step(program: Program, spot: Spot, **changes) -> Program:
    rank, channel, index = spot
    steps = list(program.ranks[rank][channel].steps)
    steps[index] = replace(steps[index], **changes)
    return with_steps(program, rank, channel, steps)


def _without(items, index):
    return (*items[:index], *items[index + 1 :])


def drop_step(program: Program, random: Random):
    rank, channel, index = random.choice(spots(program))
    return with_steps(program, rank, channel, _without(program.ranks[rank][channel].steps, index))


def duplicate_step(program: Program, random: Random):
    rank, channel, index = random.choice(spots(program))
    steps = program.ranks[rank][channel].steps
    return with_steps(program, rank, channel, (*steps[: index + 1], *steps[index:]))


def swap_steps(program: Program, random: Random):
    places = [(r, c) for r, cs in enumerate(program.ranks) for c, ch in enumerate(cs) if len(ch.steps) > 1]
    if not places:
        return None
    rank, channel = random.choice(places)
    steps = list(program.ranks[rank][channel].steps)
    a, b = random.sample(range(len(steps)), 2)
    steps[a], steps[b] = steps[b], steps[a]
    return with_steps(program, rank, channel, steps)


def _drop_sync(name):
    def mutate(program: Program, random: Random):
        places = spots(program, lambda step: getattr(step, name))
        if not places:
            return None
        spot = random.choice(places)
        listed = getattr(step_at(program, spot), name)
        return with_step(program, spot, **{name: _without(listed, random.randrange(len(listed)))})

    return mutate


def rename_connection(program: Program, random: Random):
    """One step waits for, signals and touches another connection than it should."""
    if len(program.connections) < 2:
        return None
    spot = random.choice(spots(program, lambda step: step.wait))
    step = step_at(program, spot)
    old, new = random.choice(step.wait), random.randrange(len(program.connections))
    named = lambda listed: tuple(new if c == old else c for c in listed)  # noqa: E731
    operands = lambda listed: tuple(replace(o, connection=new) if o.connection == old else o for o in listed)  # noqa: E731
    return with_step(program, spot, wait=named(step.wait), signal=named(step.signal), srcs=operands(step.srcs), dsts=operands(step.dsts))


def swap_peers(program: Program, random: Random):
    """A connection's data goes to somebody else: two connections' far ends change places."""
    if len(program.connections) < 2:
        return None
    a, b = random.sample(range(len(program.connections)), 2)
    first, second = program.connections[a], program.connections[b]
    connections = list(program.connections)
    connections[a] = replace(first, dst=second.dst, path=(first.src, second.dst))
    connections[b] = replace(second, dst=first.dst, path=(second.src, first.dst))
    return replace(program, connections=tuple(connections))


def change_shard(program: Program, random: Random):
    if program.nshards < 2:
        return None
    return with_step(program, random.choice(spots(program)), shard=random.randrange(program.nshards))


def change_source(program: Program, random: Random):
    spot = random.choice(spots(program, lambda step: step.srcs))
    srcs = list(step_at(program, spot).srcs)
    srcs[random.randrange(len(srcs))] = random.choice([OUTPUT, SCRATCH, random.choice(srcs)])
    return with_step(program, spot, srcs=tuple(srcs))


def drop_source(program: Program, random: Random):
    places = spots(program, lambda step: len(step.srcs) > 1)
    if not places:
        return None
    spot = random.choice(places)
    srcs = step_at(program, spot).srcs
    left = _without(srcs, random.randrange(len(srcs)))
    return with_step(program, spot, srcs=left, op="copy" if len(left) == 1 else "reduce")


def swap_sources(program: Program, random: Random):
    places = spots(program, lambda step: len(step.srcs) > 1)
    if not places:
        return None
    spot = random.choice(places)
    srcs = list(step_at(program, spot).srcs)
    a, b = random.sample(range(len(srcs)), 2)
    srcs[a], srcs[b] = srcs[b], srcs[a]
    return with_step(program, spot, srcs=tuple(srcs))


def change_destination(program: Program, random: Random):
    spot = random.choice(spots(program, lambda step: step.dsts))
    dsts = list(step_at(program, spot).dsts)
    index = random.randrange(len(dsts))
    if len(dsts) > 1 and random.random() < 0.5:
        return with_step(program, spot, dsts=_without(dsts, index))
    dsts[index] = SCRATCH
    return with_step(program, spot, dsts=tuple(dsts))


def change_scale(program: Program, random: Random):
    spot = random.choice(spots(program, lambda step: step.srcs))
    step = step_at(program, spot)
    if random.random() < 0.5:
        return with_step(program, spot, postscaled=not step.postscaled)
    srcs = list(step.srcs)
    index = random.randrange(len(srcs))
    srcs[index] = replace(srcs[index], prescaled=not srcs[index].prescaled)
    return with_step(program, spot, srcs=tuple(srcs))


def fewer_slots(program: Program, random: Random):
    if not program.connections:
        return None
    index = random.randrange(len(program.connections))
    slots = random.randrange(1, program.connections[index].slots + 1)
    return replace(program, connections=tuple(replace(c, slots=slots) if i == index else c for i, c in enumerate(program.connections)))


def swap_shards(program: Program, random: Random):
    """Two steps work on each other's chunk."""
    places = spots(program)
    a, b = random.choice(places), random.choice(places)
    first, second = step_at(program, a).shard, step_at(program, b).shard
    return None if first == second else with_step(with_step(program, a, shard=second), b, shard=first)


def swap_buffers(program: Program, random: Random):
    """Two steps read from each other's first source, or write to each other's last destination."""
    side, at = random.choice([("srcs", 0), ("dsts", -1)])
    places = spots(program, lambda step: getattr(step, side))
    a, b = random.choice(places), random.choice(places)
    if a == b:
        return None
    first, second = list(getattr(step_at(program, a), side)), list(getattr(step_at(program, b), side))
    first[at], second[at] = second[at], first[at]
    return with_step(with_step(program, a, **{side: tuple(first)}), b, **{side: tuple(second)})


def change_op(program: Program, random: Random):
    """A copy instead of a sum, a sum instead of a copy, or nothing at all."""
    spot = random.choice(spots(program, lambda step: step.op != "nop"))
    step = step_at(program, spot)
    if random.random() < 0.3:
        return with_step(program, spot, op="nop", srcs=(), dsts=(), postscaled=False)
    if step.op == "reduce":
        return with_step(program, spot, op="copy", srcs=(random.choice(step.srcs),))
    return with_step(program, spot, op="reduce", srcs=step.srcs * 2)


def change_group_operand(program: Program, random: Random):
    """An operand of all ranks becomes one of a single rank's, or of another buffer; or one of a rank's becomes all ranks'."""
    side = random.choice(["srcs", "dsts"])
    of_all = lambda o: o.buffer == "multicast"  # noqa: E731
    wanted = of_all if random.random() < 0.7 else (lambda o: o.buffer in REGIONS)
    places = spots(program, lambda step: any(wanted(o) for o in getattr(step, side))) if program.multicasts else []
    if not places:
        return None
    spot = random.choice(places)
    operands = list(getattr(step_at(program, spot), side))
    index = random.choice([i for i, o in enumerate(operands) if wanted(o)])
    old = operands[index]
    if of_all(old):
        others = [multicast(region) for region in REGIONS if region != old.region]
        operands[index] = random.choice([Operand(str(old.region)), Operand(str(old.region), rank=random.randrange(program.nranks)), *others])
    else:
        operands[index] = multicast(old.buffer)
    return with_step(program, spot, **{side: tuple(operands)})


def change_operand_shard(program: Program, random: Random):
    """An operand in a rank's buffer is of another shard than its step, or no longer."""
    side = random.choice(["srcs", "dsts"])
    wanted = lambda o: o.buffer in REGIONS  # noqa: E731
    places = spots(program, lambda step: any(wanted(o) for o in getattr(step, side)))
    if not places:
        return None
    spot = random.choice(places)
    operands = list(getattr(step_at(program, spot), side))
    index = random.choice([i for i, o in enumerate(operands) if wanted(o)])
    operands[index] = replace(operands[index], shard=random.choice([None, *range(program.nshards)]))
    return with_step(program, spot, **{side: tuple(operands)})


def change_protocol(program: Program, random: Random):
    """One connection's data comes in lines, or no longer does."""
    if not program.connections:
        return None
    index = random.randrange(len(program.connections))
    other = random.choice([name for name in ("simple", "LL") if name != program.connections[index].protocol])
    return replace(program, connections=tuple(replace(c, protocol=other) if i == index else c for i, c in enumerate(program.connections)))


def _add_sync(name):
    """One more wait or signal, on a connection of the step's rank."""

    def mutate(program: Program, random: Random):
        spot = random.choice(spots(program))
        ends = [i for i, c in enumerate(program.connections) if spot[0] in (c.src, c.dst)]
        if not ends:
            return None
        return with_step(program, spot, **{name: (*getattr(step_at(program, spot), name), random.choice(ends))})

    return mutate


KINDS = {
    "step dropped": drop_step,
    "step duplicated": duplicate_step,
    "steps swapped": swap_steps,
    "wait dropped": _drop_sync("wait"),
    "signal dropped": _drop_sync("signal"),
    "connection renamed": rename_connection,
    "peers swapped": swap_peers,
    "shard changed": change_shard,
    "source changed": change_source,
    "source dropped": drop_source,
    "sources swapped": swap_sources,
    "destination changed": change_destination,
    "scale changed": change_scale,
    "slots fewer": fewer_slots,
    "shards swapped": swap_shards,
    "buffers swapped": swap_buffers,
    "operation changed": change_op,
    "wait added": _add_sync("wait"),
    "signal added": _add_sync("signal"),
    "operand of all ranks changed": change_group_operand,
    "protocol changed": change_protocol,
    "operand's shard changed": change_operand_shard,
}
