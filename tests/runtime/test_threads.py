"""Executor (a): ranks as threads, all 60 allocations, against numpy bit for bit."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from allocations import classes, diagonals
from runtime.handmade import HANDMADE, split_root
from runtime.inputs import assert_result, integers

import blinkcoll as bc
from blinkcoll._core import Partition
from blinkcoll.errors import ExecutionError, WaitTimeout
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import Channel, Program, Step, lower_rings

SIZES = (0, 1, 2, 1021, 10007)


@pytest.mark.parametrize(("topology", "collective"), diagonals(2, classes(), ("allreduce", "broadcast")))
def test_every_allocation_equals_numpy_bit_for_bit(topology, collective):
    roots = range(topology.nranks) if collective == "broadcast" else [None]
    for root in roots:
        program = bc.plan(topology, collective, root=root).schedule(nbytes=1 << 20)
        with ThreadExecutor(program, max_count=max(SIZES), chunk_bytes=1024, timeout_s=30) as executor:
            for count in SIZES if root in (None, 0) else SIZES[-1:]:
                inputs = integers(topology.nranks, count, seed=count)
                for in_place in (False, True):
                    outputs = executor.run(inputs, in_place=in_place)
                    assert_result(collective, root, inputs, outputs, f"root {root}, count {count}, in place {in_place}")


@pytest.mark.parametrize("nranks", range(1, 9))
@pytest.mark.parametrize("slots", [2, 3])
def test_rings_of_every_size_with_few_slots(nranks, slots):
    topology = bc.load_topology("dgx1-v100").subset(range(nranks))
    program = lower_rings(topology, [list(range(nranks)), list(reversed(range(nranks)))], slots=slots)
    with ThreadExecutor(program, max_count=5003, chunk_bytes=64, timeout_s=30) as executor:
        for count in (0, 1, nranks - 1, nranks, 5003):
            inputs = integers(nranks, count, seed=count)
            for _ in range(2):
                assert_result("allreduce", None, inputs, executor.run(inputs), f"count {count}")


@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
def test_shares_of_many_chunks_whose_sizes_differ(collective):
    topology = bc.load_topology("dgx1-v100").subset(range(4))
    program = bc.plan(topology, collective, root=0 if collective == "broadcast" else None).schedule(nbytes=1 << 20)
    count = 400_003
    cut = Partition(count, 4, program.nshards, program.weights, 1024, program.equal_shards)
    assert len({cut.chunk_range(0, share, 0)[1] for share in range(len(program.weights))}) > 1
    with ThreadExecutor(program, max_count=count, chunk_bytes=1024, timeout_s=30) as executor:
        inputs = integers(4, count, seed=3)
        assert_result(collective, program.root, inputs, executor.run(inputs), collective)


def test_results_do_not_depend_on_the_chunk_size():
    topology = bc.load_topology("dgx1-v100")
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20)
    rng = np.random.default_rng(7)
    inputs = [(rng.standard_normal(4099) * 10.0 ** rng.integers(-3, 4)).astype(np.float32) for _ in range(8)]
    results = []
    for chunk_bytes in (16, 100, 4096, 1 << 20):
        with ThreadExecutor(program, max_count=4099, chunk_bytes=chunk_bytes) as executor:
            outputs = executor.run(inputs)
        assert all(np.array_equal(o.view(np.uint32), outputs[0].view(np.uint32)) for o in outputs), "ranks differ in their bits"
        results.append(outputs[0])
    assert all(np.array_equal(r.view(np.uint32), results[0].view(np.uint32)) for r in results)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64", "int64", "complex128"])
def test_broadcast_copies_any_dtype(dtype):
    topology = bc.load_topology("dgx1-p100").subset([0, 1, 2, 3, 5])
    program = bc.plan(topology, "broadcast", root=2).schedule(nbytes=1 << 20)
    data = np.random.default_rng(0).integers(0, 255, 1003).astype(dtype)
    with ThreadExecutor(program, max_count=1003, dtype=dtype, chunk_bytes=100) as executor:
        outputs = executor.run([data if rank == 2 else np.zeros_like(data) for rank in range(5)])
    assert all(o.dtype == data.dtype and (o == data).all() for o in outputs)


@pytest.mark.parametrize("name", HANDMADE)
def test_handmade_programs(name):
    program = HANDMADE[name]
    with ThreadExecutor(program, max_count=3001, chunk_bytes=32, timeout_s=30) as executor:
        for seed, count in enumerate((0, 1, 5, 301, 3001) * 2):
            inputs = integers(program.nranks, count, seed)
            outputs = executor.run(inputs, in_place=seed % 2 == 1)
            assert_result(program.collective, program.root, inputs, outputs, f"{name}, count {count}")


def test_a_timeout_says_who_waited_for_whom(monkeypatch):
    """A program whose rank 1 never sends: the verifier would refuse it, so it is switched off here."""
    broken = silent_program()
    with pytest.raises(bc.ScheduleError):
        bc.verify(broken)
    monkeypatch.setattr("blinkcoll.runtime.executor.verify", lambda program: None)
    monkeypatch.setattr("blinkcoll.runtime.executor.encode", _encode_unbalanced)
    executor = ThreadExecutor(broken, max_count=8, timeout_s=0.3)
    inputs = integers(2, 8, 0)
    with pytest.raises(WaitTimeout, match=r"rank 0 \(gpu0\), channel 0, step 0, iteration 0: no progress for 0.3 s, waiting for chunk 1 of c0 from rank 1, which has published 0"):
        executor.run(inputs)
    with pytest.raises(ExecutionError, match="make a new one"):
        executor.run(inputs)


def silent_program() -> Program:
    """`split_root`, where rank 1 never sends."""
    good = split_root()
    silent = (Channel((Step("nop", 0),)), good.ranks[1][1])
    return Program("by hand", "allreduce", good.topology, 1, (1,), good.connections, (good.ranks[0], silent))


def _encode_unbalanced(program: Program) -> bytes:
    """Encode although the two ends of c0 disagree: the bytes of the good program, with rank 1's send made a nop."""
    from blinkcoll.schedules import encode

    good = bytearray(encode(split_root()))
    header = np.frombuffer(good, dtype=np.uint32, count=21)
    first_of_rank_1 = 2  # steps are stored rank by rank
    at = int(header[16]) + 28 * first_of_rank_1
    good[at : at + 12] = bytes(12)  # op, sources, destinations, waits, signals, afters: none
    return bytes(good)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([np.zeros(3, np.float32)] * 2, "2 inputs for a program of 3 ranks"),
        ([np.zeros(3, np.float64)] * 3, "rank 0: input is float64"),
        ([np.zeros(3, np.float32), np.zeros(4, np.float32), np.zeros(3, np.float32)], "rank 1: input has 4 elements, rank 0's has 3"),
        ([np.zeros(99, np.float32)] * 3, "at most 10"),
    ],
)
def test_bad_input_is_refused_and_the_executor_stays_usable(inputs, message):
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    with ThreadExecutor(bc.plan(topology, "allreduce").schedule(nbytes=64), max_count=10) as executor:
        with pytest.raises(ExecutionError, match=message):
            executor.run(inputs)
        assert_result("allreduce", None, good := integers(3, 10, 0), executor.run(good), "after a refusal")


def test_what_the_movers_cannot_reduce_is_refused():
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    program = bc.plan(topology, "allreduce").schedule(nbytes=64)
    for dtype, op, message in (
        (np.complex128, "sum", "complex128 is not supported"), (np.float32, "median", "operation 'median'"), (np.float32, "band", "band of float32 is not supported"),
        (np.bool_, "avg", "avg of bool"), (np.int32, "premul_sum", "premul_sum of int32"),
    ):  # fmt: skip
        with pytest.raises(ExecutionError, match=message):
            ThreadExecutor(program, max_count=10, dtype=dtype, op=op)
    with pytest.raises(ExecutionError, match="chunk_bytes is 0"):
        ThreadExecutor(program, max_count=10, chunk_bytes=0)
    with pytest.raises(ExecutionError, match="does not mark where inputs and results are scaled"):
        ThreadExecutor(split_root(), max_count=10, op="avg")
    with ThreadExecutor(program, max_count=10, op="premul_sum") as executor, pytest.raises(ExecutionError, match="takes one a rank"):
        executor.run(integers(3, 4, 0))


def test_counts_and_calls_that_the_contract_does_not_allow_are_refused():
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    program = bc.plan(topology, "alltoall").schedule(nbytes=64)
    with ThreadExecutor(program, max_count=12) as executor, pytest.raises(ExecutionError, match="alltoall of 10 elements: not a multiple of 3 ranks"):
        executor.run(integers(3, 10, 0))
    program = bc.plan(topology, "broadcast", root=1).schedule(nbytes=64)
    with ThreadExecutor(program, max_count=12) as executor, pytest.raises(ExecutionError, match="rank 1: input is None"):
        executor.run([None] * 3)
    apart = replace(program, in_place=False)
    with ThreadExecutor(apart, max_count=12) as executor, pytest.raises(ExecutionError, match="not made to be called in place"):
        executor.run(integers(3, 10, 0), in_place=True)


@pytest.mark.parametrize("dtype", [">f4", object, "S0", "V0"])
def test_elements_that_are_no_plain_data_are_refused(dtype):
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    for collective, root in (("allreduce", None), ("broadcast", 0)):
        program = bc.plan(topology, collective, root=root).schedule(nbytes=64)
        with pytest.raises(ExecutionError, match="cannot be moved"):
            ThreadExecutor(program, max_count=10, dtype=dtype)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 1e10])
def test_a_timeout_that_is_none_is_refused(timeout_s):
    program = bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce").schedule(nbytes=64)
    with pytest.raises(ExecutionError, match="timeout_s"):
        ThreadExecutor(program, max_count=10, timeout_s=timeout_s)


def test_slots_are_no_larger_than_the_data():
    program = bc.plan(bc.load_topology("dgx1-v100"), "allreduce").schedule(nbytes=1 << 30)
    with ThreadExecutor(program, max_count=10, chunk_bytes=1 << 40) as executor:
        assert sum(arena.nbytes for arena in executor.arenas) < 1 << 20
        inputs = integers(8, 10, 0)
        assert_result("allreduce", None, inputs, executor.run(inputs), "few elements")


def test_a_closed_executor_says_so():
    executor = ThreadExecutor(HANDMADE["one-shot"], max_count=4)
    executor.close()
    executor.close()
    with pytest.raises(ExecutionError, match="was closed"):
        executor.run(integers(2, 4, 0))


def test_too_few_threads_are_an_error_not_a_crash():
    """With no memory left for thread stacks, the ranks that did start are told to leave."""
    code = """
import resource, numpy as np, blinkcoll as bc
from blinkcoll.runtime.threads import ThreadExecutor
program = bc.plan(bc.load_topology("dgx1-v100"), "allreduce").schedule(nbytes=64)
executor = ThreadExecutor(program, max_count=8)
inputs = [np.ones(8, "f4")] * 8
executor.run(inputs)
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20),) * 2)
try:
    executor.run(inputs)
except (RuntimeError, OSError, MemoryError) as error:
    print("raised", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0 and done.stdout.startswith("raised"), done.stdout + done.stderr


def test_an_interrupt_ends_a_call():
    """Ctrl-C while ranks wait for one that never comes."""
    code = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parents[1])]!r}
import signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
from runtime import test_threads
import blinkcoll.runtime.executor as executor
executor.verify = lambda program: None
executor.encode = test_threads._encode_unbalanced
threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
silent = test_threads.silent_program()
try:
    test_threads.ThreadExecutor(silent, max_count=8, timeout_s=60).run(test_threads.integers(2, 8, 0))
except KeyboardInterrupt:
    print("interrupted")
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd="/")
    assert done.stdout == "interrupted\n", done.stdout + done.stderr
    assert time.monotonic() - began < 30
