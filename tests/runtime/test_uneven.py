"""Shards of unequal size: all five sharded collectives, all executors, bit for bit against numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from allocations import classes, name_of, spread
from emulator import EmulatedDevices, load_ptxrun
from runtime.test_collectives import exact_sum
from schedules import unrolled

import blinkcoll as bc
from blinkcoll.errors import ExecutionError, ScheduleError
from blinkcoll.runtime.buffers import region_elements
from blinkcoll.runtime.cuda.executor import CudaExecutor
from blinkcoll.runtime.processes import ProcessExecutor
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import lower_rings
from blinkcoll.schedules.contract import view
from blinkcoll.topology import load_topology

COLLECTIVES = ("allgather", "reducescatter", "gather", "scatter", "alltoall")
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)


def program_of(topology, collective, **options):
    root = topology.nranks - 1 if collective in ("gather", "scatter") else None
    return bc.plan(topology, collective, root=root).schedule(nbytes=1 << 20, uneven=True, **options)


def tables(collective, n, seed, largest=97):
    """Counts around the corners: none at all, one shard has all, some are empty, primes, anything."""
    rng = np.random.default_rng([n, seed])
    shape = (n, n) if collective.startswith("alltoall") else (n,)
    one, sparse = np.zeros(shape, int), rng.integers(0, largest, shape) * rng.integers(0, 2, shape)
    one.flat[rng.integers(one.size)] = largest
    primes = np.resize(PRIMES, shape)
    return [np.zeros(shape, int), one, sparse, primes, rng.integers(0, largest, shape)]


def inputs_and_outputs(program, counts, seed=0):
    """Each rank's input, and what its output must be; None where it has none."""
    n, root, name = program.nranks, program.root, program.collective
    rng = np.random.default_rng([seed, 1])
    make = lambda size: rng.integers(-(1 << 15), 1 << 15, int(size)).astype(np.float32)  # noqa: E731
    if name == "alltoallv":
        pieces = [[make(counts[a][b]) for b in range(n)] for a in range(n)]
        return [np.concatenate(row) for row in pieces], [np.concatenate([pieces[a][b] for a in range(n)]) for b in range(n)]
    if name in ("allgather", "gather"):
        shards = [make(c) for c in counts]
        return shards, [np.concatenate(shards) if name == "allgather" or r == root else None for r in range(n)]
    whole = [make(sum(counts)) if name == "reducescatter" or r == root else None for r in range(n)]
    total = exact_sum(whole) if name == "reducescatter" else whole[root]
    return whole, np.split(total, np.cumsum(counts)[:-1])


def check(executor, counts, in_place):
    program = executor.program
    inputs, expected = inputs_and_outputs(program, counts)
    outputs = executor.run(inputs, in_place=in_place, counts=counts.tolist())
    for rank, want in enumerate(expected):
        got, want = outputs[rank], np.zeros(0, np.float32) if want is None else want
        assert got.size == want.size and np.array_equal(got.view(np.uint32), want.view(np.uint32)), f"{program.collective}, counts {counts.tolist()}, rank {rank}"


def check_all(executor, in_place=(False, True), seed=0):
    for counts in tables(executor.program.collective, executor.program.nranks, seed):
        for apart in in_place if executor.program.in_place else (False,):
            check(executor, counts, apart)


@pytest.mark.parametrize("topology", classes()[::3], ids=name_of)
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_third_of_the_allocations_on_threads(topology, collective):
    with ThreadExecutor(program_of(topology, collective), max_count=97 * topology.nranks**2, chunk_bytes=64, timeout_s=30, uneven=True) as executor:
        check_all(executor)


@pytest.mark.slow
@pytest.mark.parametrize("topology", classes(), ids=name_of)
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_every_allocation_on_threads(topology, collective):
    with ThreadExecutor(program_of(topology, collective), max_count=97 * topology.nranks**2, chunk_bytes=64, timeout_s=30, uneven=True) as executor:
        for seed in range(3):
            check_all(executor, seed=seed)


@pytest.mark.parametrize("kind", [ThreadExecutor, ProcessExecutor])
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_fewer_elements_than_ranks_may_all_be_one_ranks(collective, kind):
    """Memory is that of the largest call: each rank's part may be all of it."""
    program = program_of(load_topology("dgx1-v100").subset([0, 1, 2, 3]), collective, max_channels=8)
    for rank in range(4):
        for buffer, size in zip(("input", "output"), region_elements(program, rank, 2, uneven=True)[:2], strict=True):
            assert size == (0 if view(program.collective, buffer, rank, program.root) == "none" else 2)
    with kind(program, max_count=2, dtype="float32", chunk_bytes=64, timeout_s=60, uneven=True) as executor:
        for rank in range(4):
            counts = np.zeros((4, 4) if collective == "alltoall" else 4, int)
            counts.flat[rank * counts.size // 4] = 2
            for in_place in (False, *[True] * program.in_place):
                check(executor, counts, in_place)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_processes(collective):
    topology = load_topology("dgx1-v100").subset([0, 1, 2, 3, 5])
    with ProcessExecutor(program_of(topology, collective, max_channels=8), max_count=2425, chunk_bytes=64, timeout_s=60, uneven=True) as executor:
        check_all(executor)


def _in_the_emulator():
    """Each protocol on machines that have it: connections whose chunks are empty are the ones whose lines say so by flags alone."""
    small, middle, large = spread(3)
    threes = load_topology("dgx1-v100").subset([0, 1, 4])
    return [(small, "simple"), (middle, "LL"), (large, "simple"), (threes, "LL"), (threes, "LL128")]


@pytest.mark.parametrize(("topology", "protocol"), _in_the_emulator(), ids=lambda value: value if isinstance(value, str) else name_of(value))
@pytest.mark.parametrize("mode", ["weak", "race"])
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_the_kernel_in_the_emulator(topology, protocol, collective, mode):
    load_ptxrun()
    n = topology.nranks
    program = program_of(topology, collective, max_channels=4, protocol=protocol)
    assert {c.protocol for c in program.connections} == {protocol}
    counts = tables(collective, n, seed=1, largest=23)[2]
    layer = EmulatedDevices(seed=n, mode=mode)
    with CudaExecutor(program, layer=layer, arch="sm_70", threads=32, max_count=int(counts.sum()), chunk_bytes=64, timeout_s=100, uneven=True) as executor:
        check(executor, counts, in_place=program.in_place)


@pytest.mark.parametrize("collective", ["allgather", "reducescatter"])
def test_rings(collective):
    topology = load_topology("dgx1-v100").subset([0, 1, 2, 3])
    with ThreadExecutor(lower_rings(topology, [[0, 1, 3, 2]], collective=collective), max_count=1000, chunk_bytes=64, uneven=True) as executor:
        check_all(executor)


def test_equal_calls_of_an_uneven_executor_and_calls_in_turn():
    topology = load_topology("dgx1-v100").subset([0, 1, 4])
    with ThreadExecutor(program_of(topology, "allgather"), max_count=300, chunk_bytes=64, uneven=True) as executor:
        for size in (0, 7, 100):
            inputs = [np.full(size, rank, np.float32) for rank in range(3)]
            assert all(np.array_equal(out, np.concatenate(inputs)) for out in executor.run(inputs))
            check(executor, np.array([size, 0, 13]), in_place=True)


def test_the_program_of_an_uneven_all_to_all_is_proven_and_unrolled():
    program = program_of(load_topology("dgx1-v100").subset([0, 1, 4]), "alltoall", max_channels=4)
    assert (program.collective, program.nshards, program.in_place) == ("alltoallv", 9, False)
    bc.verify(program, repeated=True)
    unrolled.verify(program)
    with pytest.raises(ScheduleError, match="cannot be called in place"):
        bc.verify(replace(program, in_place=True))
    with pytest.raises(ScheduleError, match="a shard for each pair"):
        bc.verify(replace(program, nshards=3))


def test_a_program_that_takes_one_shard_for_another_is_not_proven_for_unequal_ones():
    """Rank 1 passes shard 0 on to rank 2 as if it were shard 1: the same number of elements only where all are equal."""
    program = lower_rings(load_topology("dgx1-v100").subset([0, 1, 2]), [[0, 1, 2]], collective="allgather")
    (channel,) = program.ranks[1]
    moved = [replace(step, shard=1, dsts=tuple(o for o in step.dsts if o.connection is not None)) if step.shard == 0 else step for step in channel.steps]
    with pytest.raises(ScheduleError, match="was filled as one of shard 0"):
        bc.verify(replace(program, ranks=(program.ranks[0], (replace(channel, steps=tuple(moved)),), program.ranks[2])))


def test_what_cannot_be_uneven_says_so():
    topology = load_topology("dgx1-v100").subset([0, 1, 4])
    allgather, even = program_of(topology, "allgather"), bc.plan(topology, "alltoall").schedule(nbytes=64)
    with pytest.raises(ScheduleError, match="broadcast has no shards"):
        bc.plan(topology, "broadcast", root=0).schedule(nbytes=64, uneven=True)
    with pytest.raises(ExecutionError, match=r"alltoall does not take counts: .* uneven=True"):
        ThreadExecutor(even, max_count=9, uneven=True)
    with pytest.raises(ExecutionError, match="allreduce does not take counts"):
        ThreadExecutor(bc.plan(topology, "allreduce").schedule(nbytes=64), max_count=9, uneven=True)
    with ThreadExecutor(allgather, max_count=9) as executor, pytest.raises(ExecutionError, match="made for equal shards"):
        executor.run([np.zeros(1, np.float32)] * 3, counts=[1, 1, 1])
    with ThreadExecutor(program_of(topology, "alltoall"), max_count=9, uneven=True) as executor, pytest.raises(ExecutionError, match="alltoallv needs counts"):
        executor.run([np.zeros(3, np.float32)] * 3)
    with ThreadExecutor(allgather, max_count=9, uneven=True) as executor:
        for counts, message in (([1, 2], "takes 3 counts"), ([1, -1, 2], "none negative"), ([4, 4, 4], "at most 9"), ([1, 2, 3], "rank 1: input has 1 elements, counts say 2"), ([1.0, 1, 1], "takes 3 counts")):
            with pytest.raises(ExecutionError, match=message):
                executor.run([np.zeros(1, np.float32)] * 3, counts=counts)
        check(executor, np.array([0, 9, 0]), in_place=False)
