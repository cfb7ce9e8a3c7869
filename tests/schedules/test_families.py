"""The classic families: proven, unrolled, and run, for 1 to 16 ranks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from emulator import EmulatedDevices, load_ptxrun
from runtime.oracle import assert_outputs, make_inputs
from schedules import unrolled

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.runtime.cuda.executor import CudaExecutor
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import (
    Channel,
    lower_barrier,
    lower_double_trees,
    lower_halving_doubling,
    lower_one_shot,
    lower_rings,
    lower_sendrecv,
    lower_two_shot,
)  # fmt: skip
from blinkcoll.schedules.doubletrees import parent
from blinkcoll.topology import Device, Link, Topology

ALLREDUCES = {
    "one-shot": lower_one_shot,
    "two-shot": lower_two_shot,
    "halving-doubling": lower_halving_doubling,
    "double-trees": lower_double_trees,
    "ring": lambda topology, **options: lower_rings(topology, [range(topology.nranks)], **options),
}


def complete(n: int) -> Topology:
    """Every pair joined."""
    devices = tuple(Device(f"gpu{i}") for i in range(n))
    links = tuple(Link(a.name, b.name, "NVLINK", Fraction(20)) for a in devices for b in devices if a is not b)
    return Topology(f"complete{n}", devices, (), links)


def inputs_of(program, count, seed=0):
    def numbers(rank, size):
        return np.random.default_rng([seed, rank]).integers(-(1 << 15), 1 << 15, size).astype(np.float32)

    return make_inputs(program.collective, program.root, program.nranks, count, numbers)


def exact_sum(arrays):
    return np.sum(arrays, axis=0, dtype=np.float64).astype(np.float32)


@pytest.mark.parametrize("nranks", range(1, 17))
@pytest.mark.parametrize("family", ALLREDUCES)
def test_allreduces_of_every_world_size(family, nranks):
    program = ALLREDUCES[family](complete(nranks))
    bc.verify(program, repeated=True)
    with ThreadExecutor(program, max_count=1021, chunk_bytes=64, timeout_s=30) as executor:
        for count in (0, 1021) if nranks % 2 else (1, nranks - 1, 1021):
            for in_place in (False, True):
                inputs = inputs_of(program, count, seed=count)
                assert_outputs("allreduce", None, inputs, executor.run(inputs, in_place=in_place), exact_sum, f"count {count}")


@pytest.mark.parametrize(("nranks", "slots"), [*((n, slots) for n in (1, 2, 3, 5) for slots in (1, 2, 5)), (8, 1), (8, 2), pytest.param(8, 5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", ALLREDUCES)
def test_the_proof_and_the_unrolled_oracle_agree(family, slots, nranks):
    program = ALLREDUCES[family](complete(nranks), slots=slots)
    verdicts = []
    for check in (bc.verify, unrolled.verify):
        try:
            check(program)
            verdicts.append("right")
        except ScheduleError:
            verdicts.append("wrong")
    assert verdicts[0] == verdicts[1]
    if family != "ring":
        assert verdicts[0] == "right", "none of these needs more than one slot"


@pytest.mark.parametrize("mode", ["weak", "race"])
@pytest.mark.parametrize("family", ALLREDUCES)
def test_families_on_the_emulator(family, mode):
    load_ptxrun()
    program = ALLREDUCES[family](complete(5))
    inputs = inputs_of(program, 203)
    with CudaExecutor(program, layer=EmulatedDevices(3, mode), arch="sm_80", threads=32, max_count=203, chunk_bytes=64) as executor:
        assert_outputs("allreduce", None, inputs, executor.run(inputs), exact_sum)


@pytest.mark.parametrize("family", ALLREDUCES)
def test_averages_come_out_the_same_on_every_rank(family):
    program = ALLREDUCES[family](complete(6))
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal(501).astype(np.float32) for _ in range(6)]
    with ThreadExecutor(program, max_count=501, chunk_bytes=64, op="avg") as executor:
        outputs = executor.run(inputs)
    assert all(np.array_equal(o.view(np.uint32), outputs[0].view(np.uint32)) for o in outputs)
    assert np.allclose(outputs[0], np.mean(inputs, axis=0, dtype=np.float64), atol=1e-6)


@pytest.mark.parametrize("nranks", range(1, 17))
def test_barriers_of_every_world_size(nranks):
    program = lower_barrier(complete(nranks))
    bc.verify(program, repeated=True)
    unrolled.verify(program)
    with ThreadExecutor(program, max_count=1, timeout_s=30) as executor:
        for _ in range(3):
            assert all(output.size == 0 for output in executor.run([None] * nranks))


def test_a_barrier_that_leaves_a_rank_out_is_refused():
    """Two rounds tell three ranks further on; of five ranks there is a fourth."""
    five = lower_barrier(complete(5))
    short = tuple((Channel(channel.steps[:4]),) for (channel,) in five.ranks)
    with pytest.raises(ScheduleError, match="barrier: rank 0 may leave before rank 1 has come"):
        bc.verify(replace(five, ranks=short, connections=five.connections[:10]))


@pytest.mark.parametrize("root", [0, 1])
def test_sends_arrive(root):
    program = lower_sendrecv(bc.load_topology("dgx1-v100").subset([1, 4]), root, shares=2)
    bc.verify(program, repeated=True)
    unrolled.verify(program)
    data = np.arange(1001, dtype=np.float32)
    with ThreadExecutor(program, max_count=1001, chunk_bytes=64) as executor:
        outputs = executor.run([data if rank == root else None for rank in range(2)])
    assert np.array_equal(outputs[1 - root], data) and outputs[root].size == 0


@pytest.mark.parametrize("n", range(2, 40))
def test_the_binary_tree_is_one_and_shallow(n):
    depth = {0: 0}
    for place in sorted(range(1, n), key=lambda p: -(p & -p)):
        chain, at = 0, place
        while at:
            at, chain = parent(at, n), chain + 1
            assert chain <= n, "a cycle"
        depth[place] = chain
    children = [sum(parent(p, n) == q for p in range(1, n)) for q in range(n)]
    assert max(children) <= 2 and children[0] == 1
    assert max(depth.values()) <= n.bit_length() + 1


@pytest.mark.parametrize("collective", ["allgather", "reducescatter", "broadcast"])
@pytest.mark.parametrize("nranks", [1, 2, 3, 6, 7, 16])
def test_other_rings(collective, nranks):
    root = nranks // 2 if collective == "broadcast" else None
    order = list(np.random.default_rng(nranks).permutation(nranks))
    program = lower_rings(complete(nranks), [[int(r) for r in order], range(nranks)], collective=collective, root=root)
    bc.verify(program, repeated=True)
    with ThreadExecutor(program, max_count=101 * nranks, chunk_bytes=64, timeout_s=30) as executor:
        for count in (0, nranks, 101 * nranks):
            inputs = inputs_of(program, count)
            for in_place in (False, True):
                assert_outputs(collective, root, inputs, executor.run(inputs, in_place=in_place), exact_sum, f"count {count}")


def test_what_a_family_cannot_do_is_refused():
    with pytest.raises(ScheduleError, match="no ring for gather"):
        lower_rings(complete(3), [range(3)], collective="gather")
    with pytest.raises(ScheduleError, match="got 3 ranks"):
        lower_sendrecv(complete(3), 0)
