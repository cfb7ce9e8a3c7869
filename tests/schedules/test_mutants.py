"""Mutants by kind: what the verifier accepts, unrolling accepts, and what it refuses, unrolling or an execution shows wrong.

Verifier, unrolling and interpreter share no code. An accepted mutant differs from its program and yet is right: it has the
same normal form, so all that ranks tell each other and end with is the same. A mutant that unrolling lets pass but the
verifier refuses breaks a rule that keeps programs uniform, not a promise; such are counted, and executed in unkind orders
with as few slots as the program allows, to tell how many of them nothing shows wrong.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import cache, lru_cache, partial
from random import Random

import numpy as np
import pytest
from schedules import exchangemutants, unrolled
from schedules.interpreter import Interpreter
from schedules.mutants import KINDS
from schedules.normalform import normal_form
from schedules.test_covering import expected_outputs, inputs_of, same_bits
from servers import boxes

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.schedules import (
    Channel,
    Program,
    expand_exchanges,
    has_exchanges,
    lower_both_ways,
    lower_direct,
    lower_halving_doubling,
    lower_nvls,
    lower_one_shot,
    lower_rings,
    lower_two_shot,
)  # fmt: skip
from blinkcoll.schedules.contract import SHARDED
from blinkcoll.schedules.protocols import with_protocol
from blinkcoll.topology import Device, Link, Switch, Topology

ALL_KINDS = {**KINDS, **exchangemutants.KINDS}
MUTANTS = 500
#: Of each kind, as many are judged by default, and as many that a rule refuses executed.
JUDGED, EXECUTED = 200, 25
ORDERS = 6
#: What the verifier refuses by rule, and an execution may get away with.
RULES = (
    "has no output of rank", "has no input of rank", "own shard only", "writes one place twice", "a reduce of", "a copy of", "a nop", "lists a connection twice",
    "a reduce in a", "scaling in a", "writes a slot of", "reads a slot of", "does not end at rank", "is used by another channel", "carries share", "must join two different ranks",
    "without having waited", "again before signalling", "ends without signalling", "are published in an iteration", "does not lead through switches", "there is no link",
    "writes an input", "what a switch adds", "a malformed operand", "at most one destination of a step is of all ranks",
    "scales an input of", "there is no shard", "in a step of another", "is in lines", "is lines in the reader's memory", "lies beside the NVLink", "crosses no CPU",
    "exchange: ", "an exchange of", "a exchange of", "only exchanges go over it", "goes over nothing of an engine's", "the exchange cannot go over", "not named by one exchange",
)  # fmt: skip


def _complete(n: int) -> Topology:
    devices = tuple(Device(f"gpu{i}") for i in range(n))
    links = tuple(Link(a.name, b.name, "NVLINK", Fraction(20)) for a in devices for b in devices if a is not b)
    return Topology(f"complete{n}", devices, (), links)


def _star(n: int) -> Topology:
    """Ranks around a switch that copies and adds."""
    devices = tuple(Device(f"gpu{i}") for i in range(n))
    ports = [(d.name, "switch") for d in devices]
    links = tuple(Link(a, b, "NVLINK", Fraction(20)) for port in ports for a, b in (port, port[::-1]))
    return Topology(f"star{n}", devices, (Switch("switch", "nvswitch", multicast=True, reduce=True),), links)


def _plan(topology: Topology, collective: str, root: int | None, **options) -> Program:
    return bc.plan(topology, collective, root=root).schedule(nbytes=1 << 10, max_channels=4, slots=2, **options)


def _programs():
    """All families on three ranks, by counters and in lines, over host memory and over a switch that adds."""
    rooted = {"broadcast", "reduce", "gather", "scatter"}
    for collective in ("allreduce", "broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter", "alltoall"):
        root = 1 if collective in rooted else None
        yield _plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), collective, root, protocol="simple")
        yield _plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), collective, root, protocol="LL")
    for lower in (lower_one_shot, lower_two_shot, lower_halving_doubling):
        yield lower(_complete(3), slots=2)
        yield with_protocol(lower(_complete(3), slots=2), "LL")
    yield lower_two_shot(_complete(3), slots=2, staged=True)
    for collective in ("allreduce", "broadcast", "reduce", "allgather", "reducescatter"):
        root = 1 if collective in rooted else None
        plan = bc.plan(_star(3), collective, root=root, method="nvls")
        yield lower_nvls(plan, max_channels=3, slots=2)
        yield lower_nvls(plan, max_channels=1, slots=2, registered=True)
    yield _plan(bc.load_topology("rtx4090x8").subset([0, 1, 4]), "allreduce", None)
    yield lower_rings(_complete(3), [[0, 1, 2]], slots=2)
    yield with_protocol(lower_rings(_complete(3), [[0, 1, 2], [0, 2, 1]], slots=2), "LL")
    yield lower_one_shot(_complete(3), shares=2, slots=2)
    for collective, root in (("allreduce", None), ("broadcast", 1), ("reduce", 1)):
        yield _opaque([2, 1], collective, root)
    for collective in ("allreduce", "broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter", "alltoall"):
        yield lower_direct(_complete(3), collective, 1 if collective in rooted else None)
    for collective in ("broadcast", "gather", "scatter", "allgather"):
        yield lower_both_ways(_complete(3), collective, 1 if collective in rooted else None, pieces=1)


def _opaque(sizes: list[int], collective: str, root: int | None) -> Program:
    return bc.plan(boxes(sizes), collective, root=root, method="three-phase").schedule(nbytes=1 << 20, engine="c10d", max_channels=12, slots=2)


def _exchanging():
    """Three-phase programs with and without named ways."""
    for sizes in ([2, 2], [1, 2, 2, 1]):
        for collective, root in (("allreduce", None), ("broadcast", 0), ("broadcast", 1), ("reduce", 1)):
            program = _opaque(sizes, collective, root)
            yield program
            yield _without_ways(program)


def _without_ways(program: Program) -> Program:
    """Exchanges that name no connections: more mutants get past the rules about these."""
    number = {old: new for new, old in enumerate(i for i, c in enumerate(program.connections) if c.transport == "peer")}

    def renamed(step):
        srcs, dsts = (tuple(o if o.connection is None else replace(o, connection=number[o.connection]) for o in side) for side in (step.srcs, step.dsts))
        return replace(step, srcs=srcs, dsts=dsts, wait=tuple(map(number.get, step.wait)), signal=tuple(map(number.get, step.signal)), over=())

    ranks = tuple(tuple(Channel(tuple(map(renamed, ch.steps))) for ch in channels) for channels in program.ranks)
    return replace(program, ranks=ranks, connections=tuple(c for c in program.connections if c.transport == "peer"))


@cache
def programs(kind: str) -> list[Program]:
    return list(_exchanging() if kind in exchangemutants.KINDS else _programs())


def mutants(kind: str):
    """Pairs of program and mutant, for ever; the seed is the kind's name."""
    random = Random(kind)
    while True:
        program = random.choice(programs(kind))
        mutant = ALL_KINDS[kind](program, random)
        if mutant is not None and mutant != program:
            yield program, mutant


def judge(kind: str, judged: int, executed: int) -> Counter[str]:
    """What becomes of so many mutants of a kind; at most so many that a rule refuses are executed."""
    counts: Counter[str] = Counter()
    for number, (program, mutant) in zip(range(judged), mutants(kind), strict=False):
        what = f"{kind}, {program.collective} by {program.algorithm}"
        # Programs whose ranks use each other's buffers are right only if these are there: unrolling looks at that always.
        complaint = _complaint(partial(bc.verify, repeated=program.reaches_buffers), mutant)
        if complaint is None:
            wrong = _unrolled(mutant)
            assert wrong is None, f"the verifier accepts a mutant ({what}) of which unrolling says: {wrong}"
            assert _form(_as_marked(mutant, program)) == _form(program), f"the verifier accepts a mutant ({what}) that is not equivalent"
            if has_exchanges(mutant):
                bc.verify(expand_exchanges(mutant))
            if number % 10 == 0:
                shown = execute(program, mutant)
                assert shown is None, f"the verifier accepts a mutant ({what}) that an execution shows wrong: {shown}"
            counts["accepted"] += 1
        elif any(rule in complaint for rule in RULES):
            counts["refused by a rule"] += 1
            if counts["executed"] < executed:
                counts["executed"] += 1
                counts["harmless"] += execute(program, mutant) is None
        else:
            assert _unrolled(mutant) is not None, f"unrolling finds nothing wrong with a mutant ({what}): {complaint}"
            counts["both refuse"] += 1
    return counts


def _as_marked(mutant, program):
    """The mutant; where it marks all of its results, and the program none, without these marks: it can average besides."""
    if program.averages or not mutant.averages:
        return mutant
    ranks = tuple(tuple(replace(channel, steps=tuple(replace(s, postscaled=False) for s in channel.steps)) for channel in channels) for channels in mutant.ranks)
    return replace(mutant, ranks=ranks)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_no_mutant_survives_that_is_wrong(kind, record_property):
    counts = judge(kind, JUDGED, EXECUTED)
    record_property("mutants", dict(counts))
    assert counts["refused by a rule"] + counts["both refuse"] > 0 or kind == "slots fewer"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_no_mutant_of_500_survives_that_is_wrong_and_all_that_a_rule_refuses_are_executed(kind):
    counts = judge(kind, MUTANTS, MUTANTS)
    print(f"| {kind} | {counts['both refuse']} | {counts['refused by a rule']} | {counts['harmless']} | {counts['accepted']} |")
    assert counts["executed"] == counts["refused by a rule"]


def test_executions_show_what_they_should():
    """The interpreter is no yes-man: of mutants that verifier and unrolling refuse, it shows most wrong."""
    shown = Counter()
    for kind in ("source changed", "source dropped", "destination changed", "wait dropped"):
        for (program, mutant), _ in zip(mutants(kind), range(20), strict=False):
            shown[execute(program, mutant) is not None] += 1
    assert shown[True] >= 60


_form = lru_cache(maxsize=512)(normal_form)  # some kinds make the same few mutants again and again


@lru_cache(maxsize=512)
def _unrolled(program) -> str | None:
    return _complaint(_unroll, program)


@lru_cache(maxsize=64)
def _fewest_slots(program) -> int:
    return next(n for n in range(1, 33) if _complaint(bc.verify, replace(program, connections=tuple(replace(c, slots=n) for c in program.connections))) is None)


def execute(program, mutant) -> str | None:
    """What an execution in some unkind order, in two calls, with the mutant's slots or as few as suit the program, shows wrong."""
    rng = np.random.default_rng(1)
    # Whole numbers: a sum in another order is the same; none is a sum of others.
    make = lambda size: rng.integers(1, 1 << 20, size).astype(np.float64)  # noqa: E731
    count = 37 if program.collective in SHARDED else 37 * program.nshards
    inputs, _ = inputs_of(program, count, None, make)
    factors = [2.0**rank for rank in range(program.nranks)]
    op = "premul_sum" if program.premultiplies else "sum"
    data = [i if i is None or op == "sum" else i * f for i, f in zip(inputs, factors, strict=True)]
    wanted = expected_outputs(program, data, None, "float64", "sum")
    for seed in range(ORDERS):
        interpreter = None
        for call in range(2):
            in_place = mutant.in_place and seed % 3 == 0
            try:
                interpreter = interpreter or Interpreter(mutant, slots=_fewest_slots(program) if seed % 2 else None)
                outputs = interpreter.run(inputs, dtype="float64", op=op, chunk_bytes=48, in_place=in_place, factors=factors, seed=seed)
            except Exception as error:
                return repr(error)
            if any(want is not None and not same_bits(got, want) for got, want in zip(outputs, wanted, strict=True)):
                return f"wrong results in order {seed}, call {call}"
    return None


def _unroll(program):
    """A few trip counts: up to those at which every slot has been used again."""
    for trips in (1, 2, max((c.slots for c in program.connections), default=1) + 2):
        for in_place in (False, True) if program.in_place else (False,):
            unrolled.verify_unrolled(program, [trips] * len(program.weights), in_place)


def _complaint(check, program):
    try:
        check(program)
    except ScheduleError as error:
        return str(error)
    except (KeyError, ValueError) as error:
        assert check is _unroll, "unrolling may stumble over a step whose group lacks its own rank, the verifier may not"
        return f"malformed: {error}"
    return None
