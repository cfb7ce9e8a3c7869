"""Executor (c): the kernel's PTX in an emulator, all ranks at once, in sequentially consistent, weak and race mode."""

from __future__ import annotations

import numpy as np
import pytest
from allocations import classes, diagonals, name_of, spread
from emulator import EmulatedDevices, load_ptxrun
from runtime.handmade import HANDMADE
from runtime.inputs import assert_result, integers

import blinkcoll as bc
from blinkcoll.runtime.cuda.executor import CudaExecutor
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import lower_rings

ARCHES = ("sm_70", "sm_80")
MODES = ("sc", "weak", "race")


@pytest.fixture(scope="module", autouse=True)
def _emulator():
    load_ptxrun()


def run(program, inputs, *, arch, mode, seed, threads=32, in_place=False, chunk_bytes=256, calls=2, **machine):
    """The outputs of the last of some calls on the same counters."""
    layer = EmulatedDevices(seed, mode, **machine)
    with CudaExecutor(program, layer=layer, arch=arch, threads=threads, max_count=inputs[0].size, chunk_bytes=chunk_bytes, timeout_s=100) as executor:
        for _ in range(calls):
            outputs = executor.run(inputs, in_place=in_place)
    return outputs


@pytest.mark.parametrize(("topology", "mode", "arch", "collective"), diagonals(3, spread(7), MODES, ARCHES, ("allreduce", "broadcast")))
def test_a_spread_of_allocations_equals_numpy_bit_for_bit(topology, collective, arch, mode):
    root = topology.nranks // 2 if collective == "broadcast" else None
    program = bc.plan(topology, collective, root=root).schedule(nbytes=1 << 20, protocol="simple")
    for seed in range(3):
        inputs = integers(topology.nranks, count := 1021, seed)
        outputs = run(program, inputs, arch=arch, mode=mode, seed=seed, in_place=seed % 2 == 1)
        assert_result(collective, root, inputs, outputs, f"seed {seed}, count {count}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 127, 128, 129])
def test_ragged_counts(count, mode):
    topology = bc.load_topology("dgx1-v100").subset([0, 2, 3])
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20, protocol="simple")
    inputs = integers(3, count, seed=count)
    assert_result("allreduce", None, inputs, run(program, inputs, arch="sm_80", mode=mode, seed=count, chunk_bytes=64), f"count {count}")


@pytest.mark.parametrize("threads", [1, 7, 32, 64, 256])
@pytest.mark.parametrize("mode", ["weak", "race"])
def test_any_number_of_threads_a_block(threads, mode):
    topology = bc.load_topology("dgx1-p100").subset([0, 1, 2, 3])
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20, protocol="simple")
    inputs = integers(4, 515, seed=threads)
    assert_result("allreduce", None, inputs, run(program, inputs, arch="sm_70", mode=mode, seed=threads, threads=threads), f"{threads} threads")


@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_rings_with_few_slots(slots, mode):
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 2, 3, 4])
    program = lower_rings(topology, [[0, 1, 2, 3, 4], [4, 2, 0, 3, 1]], slots=slots)
    inputs = integers(5, 1003, seed=slots)
    assert_result("allreduce", None, inputs, run(program, inputs, arch="sm_80", mode=mode, seed=slots, chunk_bytes=64), f"{slots} slots")


@pytest.mark.parametrize(("name", "mode", "arch"), diagonals(3, tuple(HANDMADE), MODES, ("sm_60", *ARCHES)))
def test_handmade_programs(name, arch, mode):
    program = HANDMADE[name]
    for seed, (count, threads, chunk_bytes) in enumerate(((301, 32, 64), (130, 3, 16), (77, 33, 48), (0, 1, 16))):
        inputs = integers(program.nranks, count, seed)
        outputs = run(program, inputs, arch=arch, mode=mode, seed=seed, threads=threads, chunk_bytes=chunk_bytes, in_place=seed % 2 == 1, calls=3)
        assert_result(program.collective, program.root, inputs, outputs, f"seed {seed}, count {count}")


@pytest.mark.parametrize("options", [{"atomicity": 1}, {"drain": 1}, {"skew": 1}, {"skew": 3}, {"stale": 1}], ids=str)
def test_hostile_machines(options):
    """Vector stores that tear, stores that hardly drain, slow devices and threads."""
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20, protocol="simple")
    for seed in range(5):
        inputs = integers(3, 301, seed)
        outputs = run(program, inputs, arch="sm_80", mode="weak", seed=seed, chunk_bytes=128, **options)
        assert_result("allreduce", None, inputs, outputs, f"seed {seed}, {options}")


def test_the_three_executors_give_the_same_bits_where_sums_are_inexact():
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 2, 3, 4])
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20, protocol="simple")
    rng = np.random.default_rng(11)
    inputs = [(rng.standard_normal(777) * 10.0 ** rng.integers(-30, 30, 777)).astype(np.float32) for _ in range(5)]
    inputs[0][:3] = [1e-45, -0.0, np.inf]  # a denormal is no zero
    inputs[1][:3] = [1e-45, 0.0, 1.0]
    on_gpu = run(program, inputs, arch="sm_70", mode="weak", seed=0)
    with ThreadExecutor(program, max_count=777) as executor:
        on_host = executor.run(inputs)
    for a, b in zip(on_gpu, on_host, strict=True):
        assert np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.slow
@pytest.mark.parametrize("topology", classes(), ids=name_of)
@pytest.mark.parametrize("arch", ("sm_60", *ARCHES))
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
def test_every_allocation_on_the_emulator(topology, collective, arch):
    root = topology.nranks - 1 if collective == "broadcast" else None
    program = bc.plan(topology, collective, root=root).schedule(nbytes=1 << 20, protocol="simple")
    for seed, mode in enumerate((*MODES, "weak", "weak")):
        inputs = integers(topology.nranks, count := 700 + seed, seed)
        outputs = run(program, inputs, arch=arch, mode=mode, seed=seed, in_place=seed % 2 == 1, chunk_bytes=128)
        assert_result(collective, root, inputs, outputs, f"seed {seed}, {mode}, count {count}")
