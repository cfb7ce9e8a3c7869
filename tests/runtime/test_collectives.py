"""All eight collectives of plans, on all executors: shards that are the ranks' own, in place and apart."""

from __future__ import annotations

import numpy as np
import pytest
from allocations import classes, diagonals, name_of, spread
from emulator import EmulatedDevices, load_ptxrun
from runtime.oracle import assert_outputs, make_inputs

import blinkcoll as bc
from blinkcoll.runtime.cuda.executor import CudaExecutor
from blinkcoll.runtime.processes import ProcessExecutor
from blinkcoll.runtime.threads import ThreadExecutor

ROOTED = ("broadcast", "reduce", "gather", "scatter")
SHARDED = ("allgather", "reducescatter", "gather", "scatter", "alltoall")


def whole_numbers(seed):
    return lambda rank, size: np.random.default_rng([seed, rank]).integers(-(1 << 15), 1 << 15, size).astype(np.float32)


def exact_sum(arrays):
    return np.sum(arrays, axis=0, dtype=np.float64).astype(np.float32)


def program_of(topology, collective, **options):
    root = topology.nranks - 1 if collective in ROOTED else None
    return bc.plan(topology, collective, root=root).schedule(nbytes=1 << 20, **options), root


def check(executor, counts, seed=0):
    program = executor.program
    for count in counts:
        for in_place in (False, True):
            inputs = make_inputs(program.collective, program.root, program.nranks, count, whole_numbers(seed + count))
            outputs = executor.run(inputs, in_place=in_place)
            assert_outputs(program.collective, program.root, inputs, outputs, exact_sum, f"{program.collective}, count {count}, in place {in_place}")


@pytest.mark.parametrize(("topology", "collective"), diagonals(3, classes(), ("reduce", *SHARDED)))
def test_every_allocation_on_threads(topology, collective):
    n = topology.nranks
    program, _ = program_of(topology, collective)
    with ThreadExecutor(program, max_count=1021 * n, chunk_bytes=512, timeout_s=30) as executor:
        check(executor, [0, n, 3 * n, 1021 * n])


@pytest.mark.parametrize("layout", ["hgx-h100", "dgx2", "l40sx8", "mi300x"])
@pytest.mark.parametrize("collective", SHARDED)
def test_other_machines_on_threads(layout, collective):
    topology = bc.load_topology(layout)
    topology = topology.subset(range(min(8, topology.nranks)))
    program, _ = program_of(topology, collective)
    with ThreadExecutor(program, max_count=1021 * topology.nranks, chunk_bytes=512, timeout_s=30) as executor:
        check(executor, [1021 * topology.nranks])


@pytest.mark.parametrize("topology", spread(3), ids=name_of)
@pytest.mark.parametrize("collective", SHARDED)
def test_a_spread_on_processes(topology, collective):
    n = topology.nranks
    program, _ = program_of(topology, collective, max_channels=8)
    with ProcessExecutor(program, max_count=257 * n, chunk_bytes=256, timeout_s=60) as executor:
        check(executor, [0, n, 257 * n])


@pytest.mark.parametrize(("topology", "mode", "collective"), diagonals(3, spread(4), ("sc", "weak", "race"), ("reduce", *SHARDED)))
def test_a_spread_on_the_emulator(topology, collective, mode):
    load_ptxrun()
    n = topology.nranks
    program, _ = program_of(topology, collective, max_channels=8)
    layer = EmulatedDevices(seed=n, mode=mode)
    with CudaExecutor(program, layer=layer, arch="sm_70", threads=32, max_count=61 * n, chunk_bytes=64, timeout_s=100) as executor:
        check(executor, [61 * n])


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int64", "complex128"])
@pytest.mark.parametrize("collective", ["allgather", "gather", "scatter", "alltoall"])
def test_shards_of_any_dtype_may_start_anywhere(collective, dtype):
    """Seven elements a rank: later shards start at no multiple of 16 bytes."""
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    program, root = program_of(topology, collective)
    with ThreadExecutor(program, max_count=21, dtype=dtype, chunk_bytes=16) as executor:
        inputs = make_inputs(collective, root, 3, 21, lambda rank, size: (np.arange(size) + 40 * rank).astype(dtype))
        assert_outputs(collective, root, inputs, executor.run(inputs), None, dtype)
