"""Executor (b): ranks as processes over one mapping, a spread of allocations, and ranks that die."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from allocations import name_of, spread
from runtime.inputs import assert_result, integers

import blinkcoll as bc
from blinkcoll.errors import ExecutionError, RankFailed
from blinkcoll.runtime.processes import ProcessExecutor
from blinkcoll.runtime.threads import ThreadExecutor

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="host processes need memfd, which only Linux has")


@pytest.mark.parametrize("topology", spread(7), ids=name_of)
@pytest.mark.parametrize("collective", ["allreduce", "broadcast"])
def test_a_spread_of_allocations_equals_numpy_bit_for_bit(topology, collective):
    root = topology.nranks - 1 if collective == "broadcast" else None
    program = bc.plan(topology, collective, root=root).schedule(nbytes=1 << 20)
    with ProcessExecutor(program, max_count=20011, chunk_bytes=2048, timeout_s=60) as executor:
        for count in (0, 1, 1021, 20011):
            inputs = integers(topology.nranks, count, seed=count)
            for in_place in (False, True):
                outputs = executor.run(inputs, in_place=in_place)
                assert_result(collective, root, inputs, outputs, f"count {count}, in place {in_place}")


def test_processes_and_threads_give_the_same_bits():
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 2, 4, 5, 7])
    program = bc.plan(topology, "allreduce").schedule(nbytes=1 << 20)
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal(5001).astype(np.float32) for _ in range(6)]
    with ThreadExecutor(program, max_count=5001) as threads, ProcessExecutor(program, max_count=5001) as processes:
        for a, b in zip(threads.run(inputs), processes.run(inputs), strict=True):
            assert np.array_equal(a.view(np.uint32), b.view(np.uint32))


def _three(**options) -> ProcessExecutor:
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    return ProcessExecutor(bc.plan(topology, "allreduce").schedule(nbytes=64), max_count=1000, **options)


def test_a_killed_rank_is_named_and_nothing_is_left_behind():
    executor = _three(timeout_s=20)
    inputs = integers(3, 1000, 0)
    assert_result("allreduce", None, inputs, executor.run(inputs), "before")
    pids = [worker.pid for worker in executor._workers]
    os.kill(pids[1], signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(RankFailed, match="rank 1 died while it was to run allreduce"):
        executor.run(inputs)
    assert time.monotonic() - began < 10, "the others were told to leave, they need not wait for their timeout"
    with pytest.raises(ExecutionError, match="make a new one"):
        executor.run(inputs)
    executor.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_rank_killed_in_the_middle_is_named():
    executor = _three(timeout_s=20)
    os.kill(executor._workers[2].pid, signal.SIGSTOP)  # so that the others are inside the call when it dies
    threading.Timer(0.5, os.kill, (executor._workers[2].pid, signal.SIGKILL)).start()
    with pytest.raises(RankFailed, match="rank 2 died"):
        executor.run(integers(3, 1000, 0))
    executor.close()


def test_close_gives_back_descriptors():
    before = len(os.listdir("/proc/self/fd"))
    with _three() as executor:
        executor.run(integers(3, 10, 0))
    assert len(os.listdir("/proc/self/fd")) == before
