"""Steps of many operands, split: proven, run bit for bit, and for all collectives of 72 GPUs behind one switch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from runtime.oracle import assert_outputs, make_inputs
from schedules import unrolled
from schedules.test_families import complete, exact_sum, inputs_of

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import SCRATCH, After, Channel, Program, Step, lower_one_shot, lower_two_shot, split_wide_steps
from blinkcoll.topology import load_topology

ROOTED = ("broadcast", "reduce", "gather", "scatter")
COLLECTIVES = (*ROOTED, "allreduce", "allgather", "reducescatter", "alltoall")


def widest(program: Program) -> int:
    return max(len(step.srcs) + len(step.dsts) for channels in program.ranks for channel in channels for step in channel.steps)


@pytest.mark.parametrize("most", [3, 4, 5])
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_split_programs_compute_the_same(collective, most):
    root = 2 if collective in ROOTED else None
    whole = bc.plan(load_topology("hgx-h100").subset(range(6)), collective, root=root).schedule(nbytes=1 << 10, max_channels=12)
    program = split_wide_steps(whole, most)
    assert widest(program) == min(most, widest(whole))
    bc.verify(program, repeated=True)
    with ThreadExecutor(program, max_count=606, chunk_bytes=64, timeout_s=30) as executor:
        for in_place in (False, True):
            inputs = inputs_of(program, 606)
            assert_outputs(collective, root, inputs, executor.run(inputs, in_place=in_place), exact_sum)


@pytest.mark.parametrize("most", [3, 4, 6])
@pytest.mark.parametrize("lowering", [lower_one_shot, lower_two_shot])
def test_split_families_agree_with_unrolling(lowering, most):
    """Their sums are in the order of ranks, so that a rank's own input may come last: partial sums go to scratch then."""
    program = split_wide_steps(lowering(complete(7)), most)
    assert widest(program) <= most
    assert SCRATCH in {o for cs in program.ranks for c in cs for s in c.steps for o in s.dsts}
    bc.verify(program, repeated=True)
    unrolled.verify(program)
    for op in ("sum", "avg", "premul_sum"):
        factors = [2.0**r for r in range(7)] if op == "premul_sum" else None
        with ThreadExecutor(program, max_count=301, chunk_bytes=64, op=op) as executor:
            inputs = inputs_of(program, 301)
            outputs = executor.run(inputs, in_place=True, factors=factors)
        exact = sum(np.float64(1 if factors is None else factors[r]) * i for r, i in enumerate(inputs)) / (7 if op == "avg" else 1)
        assert all(np.array_equal(o, outputs[0]) for o in outputs)
        assert np.allclose(outputs[0], exact, rtol=1e-6)


def test_a_narrow_program_stays_as_it_is():
    program = lower_one_shot(complete(4))
    assert split_wide_steps(program) is program
    with pytest.raises(ScheduleError, match="at most 2 operands cannot add"):
        split_wide_steps(program, 2)


def test_what_waits_for_a_split_step_waits_for_all_of_it():
    program = lower_one_shot(complete(4))
    ranks = tuple((*channels, Channel((Step("nop", 0, after=(After(0, 1),)),))) for channels in program.ranks)
    narrow = split_wide_steps(replace(program, ranks=ranks), 3)
    for channels in narrow.ranks:
        (after,) = channels[1].steps[0].after
        assert after.step == len(channels[0].steps) - 1


def test_a_program_that_uses_scratch_itself_is_refused():
    program = lower_two_shot(complete(5))
    held = Step("copy", 0, (SCRATCH,), (SCRATCH,))
    ranks = tuple((Channel((*channels[0].steps, held)),) for channels in program.ranks)
    with pytest.raises(ScheduleError, match="needs scratch"):
        split_wide_steps(replace(program, ranks=ranks), 3)


LARGE = [pytest.param(c, marks=[] if c in ("broadcast", "scatter", "reducescatter") else pytest.mark.slow) for c in COLLECTIVES]


@pytest.mark.parametrize("collective", LARGE)
def test_all_collectives_of_72_gpus_behind_one_switch(collective):
    topology = load_topology("gb200-nvl72")
    root = 5 if collective in ROOTED else None
    program = bc.plan(topology, collective, root=root).schedule(nbytes=1 << 26, protocol="simple")
    assert program.nchannels <= 32
    count = 72 * 29
    with ThreadExecutor(program, max_count=count, chunk_bytes=16, timeout_s=120) as executor:
        inputs = make_inputs(collective, root, 72, count, lambda rank, size: np.random.default_rng(rank).integers(-(1 << 15), 1 << 15, size).astype(np.float32))
        assert_outputs(collective, root, inputs, executor.run(inputs, in_place=True), exact_sum)


@pytest.mark.slow
@pytest.mark.parametrize("lowering", [lower_one_shot, lower_two_shot])
def test_families_of_72_ranks(lowering):
    program = lowering(load_topology("gb200-nvl72"))
    bc.verify(program, repeated=True)
    assert widest(program) == 64
    with ThreadExecutor(program, max_count=501, chunk_bytes=4096, timeout_s=120) as executor:
        inputs = inputs_of(program, 501)
        assert_outputs("allreduce", None, inputs, executor.run(inputs), exact_sum)
