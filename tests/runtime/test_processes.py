"""Executor (b): ranks as processes over one mapping, a spread of allocations, and ranks that die."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from allocations import name_of, spread
from runtime.inputs import assert_result, integers

import blinkcoll as bc
from blinkcoll.errors import ExecutionError, RankFailed, WaitTimeout
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
    pids = [worker.process.pid for worker in executor._workers]
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
    victim = executor._workers[2].process.pid
    os.kill(victim, signal.SIGSTOP)  # so that the others are inside the call when it dies
    threading.Timer(0.5, os.kill, (victim, signal.SIGKILL)).start()
    with pytest.raises(RankFailed, match="rank 2 died"):
        executor.run(integers(3, 1000, 0))
    executor.close()


def test_close_gives_back_descriptors():
    before = len(os.listdir("/proc/self/fd"))
    with _three() as executor:
        executor.run(integers(3, 10, 0))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_job_stopped_as_a_whole_goes_on():
    """Longer than its timeout: time in which nobody could look does not count as waiting."""
    with _three(timeout_s=0.4) as executor:
        inputs = integers(3, 1000, 0)
        pids = [worker.process.pid for worker in executor._workers]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        threading.Timer(1.2, lambda: [os.kill(pid, signal.SIGCONT) for pid in pids]).start()
        assert_result("allreduce", None, inputs, executor.run(inputs), "after a pause")


def test_a_long_call_that_makes_progress_is_not_cut_off(monkeypatch):
    monkeypatch.setattr("blinkcoll.runtime.processes._GRACE_S", 0.1)
    topology = bc.load_topology("dgx1-v100").subset([0, 1, 4])
    program = bc.plan(topology, "allreduce").schedule(nbytes=64)
    with ProcessExecutor(program, max_count=6_000_000, chunk_bytes=64, timeout_s=0.2) as executor:
        inputs = integers(3, 6_000_000, 0)
        began = time.monotonic()
        assert_result("allreduce", None, inputs, executor.run(inputs), "long")
        assert time.monotonic() - began > 0.3, "the call was too short to show anything"
        monkeypatch.setattr("blinkcoll.runtime.processes._GRACE_S", 10.0)


def test_one_stopped_rank_is_waited_for_and_named(monkeypatch):
    monkeypatch.setattr("blinkcoll.runtime.processes._GRACE_S", 2.0)
    executor = _three(timeout_s=0.3)
    os.kill(executor._workers[1].process.pid, signal.SIGSTOP)
    with pytest.raises(WaitTimeout, match=r"ranks 1 did not run(.|\n)*rank 1 \(gpu1\): waited for, and left no word"):
        executor.run(integers(3, 1000, 0))
    os.kill(executor._workers[1].process.pid, signal.SIGCONT)
    executor.close()


def test_an_executor_that_nobody_closes_leaves_nothing():
    before = len(os.listdir("/proc/self/fd"))
    executor = _three()
    pids = [worker.process.pid for worker in executor._workers]
    del executor
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_closing_does_not_wait_for_a_fork_of_this_process():
    executor = _three()
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    began = time.monotonic()
    executor.close()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert time.monotonic() - began < 8


def test_closed_standard_streams_do_not_matter():
    """As in a daemon: the segment's descriptor must not be one of the three."""
    code = """
import os, numpy as np, blinkcoll as bc
os.close(0)
from blinkcoll.runtime.processes import ProcessExecutor
program = bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce").schedule(nbytes=64)
with ProcessExecutor(program, max_count=8) as executor:
    print(executor.run([np.ones(8, "f4")] * 3)[2][0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd="/")
    assert done.stdout == "3.0\n", done.stderr
