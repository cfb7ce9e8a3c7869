"""Five hundred mutants a kind: what the verifier accepts, full unrolling accepts, and what it refuses, unrolling refuses.

The two share no code. A mutant that both accept is right, though it differs: it survives because the change does not
matter (two steps that nothing orders, sources of a sum in another order on the one rank that adds them up). A mutant that
only the verifier refuses breaks a rule that keeps programs uniform, not a promise; those rules are named here.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from random import Random

import pytest
from schedules import unrolled
from schedules.mutants import KINDS

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.schedules import lower_halving_doubling, lower_nvls, lower_one_shot, lower_rings, lower_two_shot
from blinkcoll.topology import Device, Link, Switch, Topology

MUTANTS = 500
#: What the verifier refuses by rule, and an execution may get away with.
RULES = (
    "has no output of rank", "has no input of rank", "own shard only", "writes one place twice", "a reduce of", "a copy of", "a nop", "lists a connection twice",
    "scaling in a", "writes a slot of", "reads a slot of", "does not end at rank", "is used by another channel", "carries share", "must join two different ranks",
    "without having waited", "again before signalling", "ends without signalling", "are published in an iteration", "does not lead through switches", "there is no link",
    "what a switch adds", "a malformed operand",
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


def _programs():
    machine = bc.load_topology("dgx1-v100")
    rooted = {"broadcast", "reduce", "gather", "scatter"}
    for collective in ("allreduce", "broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter", "alltoall"):
        yield bc.plan(machine.subset([0, 1, 4]), collective, root=1 if collective in rooted else None).schedule(nbytes=1 << 10, max_channels=4)
    for lower in (lower_one_shot, lower_two_shot, lower_halving_doubling):
        yield lower(_complete(3), slots=2)
    for collective in ("allreduce", "broadcast", "reduce", "allgather", "reducescatter"):
        plan = bc.plan(_star(3), collective, root=1 if collective in rooted else None, method="nvls")
        yield lower_nvls(plan, max_channels=3, slots=2)
        yield lower_nvls(plan, max_channels=1, slots=2, registered=True)
    yield lower_rings(_complete(3), [[0, 1, 2]], slots=2)


PROGRAMS = list(_programs())


@pytest.mark.parametrize("kind", KINDS)
def test_no_mutant_survives_that_unrolling_refuses(kind, record_property):
    random = Random(kind)  # the seed is the kind's name
    counts: Counter[str] = Counter()
    while sum(counts.values()) < MUTANTS:
        program = random.choice(PROGRAMS)
        mutant = KINDS[kind](program, random)
        if mutant is None or mutant == program:
            continue
        complaint = _complaint(bc.verify, mutant)
        if complaint is None:
            wrong = _complaint(_unroll, mutant)
            assert wrong is None, f"the verifier accepts a mutant ({kind}, {program.collective} by {program.algorithm}) of which unrolling says: {wrong}"
            counts["equivalent"] += 1
        elif any(rule in complaint for rule in RULES):
            counts["refused by rule"] += 1
        else:
            assert _complaint(_unroll, mutant) is not None, f"unrolling finds nothing wrong with a mutant ({kind}, {program.collective} by {program.algorithm}): {complaint}"
            counts["refused, and unrolling agrees"] += 1
    record_property("mutants", dict(counts))
    assert counts["refused by rule"] + counts["refused, and unrolling agrees"] > 0 or kind in ("slots fewer", "sources swapped")


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
    return None
