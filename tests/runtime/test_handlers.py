"""Calls in the middle of calls: what signals' handlers may do, who closes while others wait, and barriers made in both ways."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest
from runtime.ranks import as_processes, as_threads

import blinkcoll as bc
from blinkcoll import _core
from blinkcoll.errors import ExecutionError

COUNT = 100_000


class Alarm:
    """Runs ``body`` once, as a signal's handler of the main thread, after so many seconds."""

    def __init__(self, after_s, body):
        self.after_s, self.body, self.ran = after_s, body, []

    def __enter__(self):
        signal.signal(signal.SIGALRM, lambda *_: self.ran.append(self.body()))
        signal.setitimer(signal.ITIMER_REAL, self.after_s)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def told(call):
    """What a call raises, as text."""
    try:
        call()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def delayed_sums(comm, body, dtype):
    """Rank 0's handler runs ``body`` while it waits for rank 1 in an all-reduce; then one more."""
    data = np.full(COUNT, comm.rank + 1, dtype)
    comm.all_reduce(data.copy())
    comm.barrier()
    if comm.rank == 1:
        time.sleep(0.6)
        return comm.all_reduce(data.copy()).tolist()[::COUNT - 1], comm.all_reduce(data.copy())[0], []
    with Alarm(0.2, body) as alarm:
        summed = comm.all_reduce(data.copy())
    return summed.tolist()[::COUNT - 1], comm.all_reduce(data.copy())[0], alarm.ran


@pytest.mark.parametrize("dtype", [np.float32, ">f4"], ids=["quick", "refused first"])
def test_a_handler_may_call_another_communicator(dtype, tmp_path):
    def body(comm):
        if dtype == ">f4":
            assert "cannot be moved" in told(lambda: comm.all_reduce(np.zeros(3, dtype)))
        alone = bc.Communicator(0, 1, None)
        mine = np.arange(7.0)
        return delayed_sums(comm, lambda: (alone.all_reduce(mine.copy()).tolist(), alone.all_gather(mine.copy()).tolist()), np.float32)

    for rank, (ends, again, ran) in enumerate(as_processes(2, tmp_path, body)):
        assert ends == [3.0, 3.0] and again == 3.0
        assert ran == ([([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],) * 2] if rank == 0 else [])


@pytest.mark.parametrize("what", ["all_reduce", "new collective", "close", "shrink"])
def test_a_handler_that_needs_the_communicator_that_waits_is_told(what, tmp_path):
    def body(comm):
        calls = {
            "all_reduce": lambda: comm.all_reduce(np.zeros(3, np.float32)), "new collective": lambda: comm.all_gather(np.zeros(4, np.float32)),
            "close": comm.close, "shrink": comm.shrink,
        }  # fmt: skip
        return delayed_sums(comm, lambda: told(calls[what]), np.float32)

    (ends, again, ran), others = as_processes(2, tmp_path, body)
    assert ends == others[0] == [3.0, 3.0] and again == others[1] == 3.0  # the call that was under way is none the worse
    assert len(ran) == 1 and "ExecutionError" in ran[0] and "in the middle of another call" in ran[0]


def test_a_handler_may_abort(tmp_path):
    def body(comm):
        data = np.ones(COUNT, np.float32)
        comm.all_reduce(data)
        if comm.rank == 1:
            time.sleep(0.6)
            return told(lambda: comm.all_reduce(data))
        with Alarm(0.2, lambda: comm.abort("enough")):
            return told(lambda: comm.all_reduce(data))

    assert all("Aborted" in said and "enough" in said for said in as_processes(2, tmp_path, body))


def test_two_handlers_that_raise_leave_a_communicator_that_has_failed(tmp_path):
    """The second one raises as the method in Python is entered, before that has taken what the first left."""

    def body(comm):
        data = np.ones(COUNT, np.float32)
        comm.all_reduce(data)
        comm.barrier()
        if comm.rank == 1:
            time.sleep(0.8)
            return told(lambda: comm.all_reduce(data)), told(lambda: comm.all_reduce(data))

        def raising(number, _):
            raise KeyError(f"signal {number}")

        signal.signal(signal.SIGUSR1, raising)
        signal.signal(signal.SIGUSR2, raising)
        main = threading.main_thread().ident

        def send():  # both while it sleeps: they are found together
            time.sleep(0.25)
            signal.pthread_kill(main, signal.SIGUSR1)
            signal.pthread_kill(main, signal.SIGUSR2)

        threading.Thread(target=send, daemon=True).start()
        first, second = told(lambda: comm.all_reduce(data)), told(lambda: comm.all_reduce(data))
        with bc.Communicator(0, 1, None) as other:
            assert other.all_reduce(np.ones(3), async_op=True).result(5).tolist() == [1.0] * 3
        return first, second

    (first, second), others = as_processes(2, tmp_path, body)
    assert "KeyError" in first
    assert "failed in an earlier call" in second or "KeyError" in second  # where the second signal came late, it ends that call
    assert all("RankFailed" in said or "rank 0" in said for said in others)


def test_a_barrier_in_the_background_meets_one_that_is_not(tmp_path):
    def body(comm):
        comm.barrier()
        for turn in range(20):
            if (comm.rank + turn) % 2:
                comm.barrier(async_op=True).wait(10)
            else:
                comm.barrier()
        return True

    assert as_threads(2, tmp_path / "2", body) == [True] * 2
    assert as_threads(3, tmp_path / "3", body) == [True] * 3


def test_who_waits_for_a_turn_while_another_thread_closes_is_told(tmp_path):
    """Rank 0: one thread in a call, one behind it, a third closes the communicator under both."""
    gone = threading.Event()

    def body(comm):
        data = np.ones(COUNT, np.float32)
        comm.all_reduce(data.copy())
        comm.barrier()
        if comm.rank == 1:
            gone.wait(20)
            return []
        said = []
        threads = [threading.Thread(target=lambda: said.append(told(lambda: comm.all_reduce(data.copy())))) for _ in range(4)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        comm.close()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        gone.set()
        return said

    said, _ = as_threads(2, tmp_path, body)
    assert len(said) == 4 and all("closed" in s for s in said), said


def test_a_quick_method_without_a_function_cannot_be_made():
    with pytest.raises(TypeError):
        type(vars(bc.Communicator)["all_reduce"])()
    with pytest.raises((TypeError, ValueError)):
        _core.quick_method(0, ["nonsense"], lambda self: None)


def test_arrays_that_do_not_lie_as_their_type_asks_are_reduced(tmp_path):
    def body(comm):
        results = []
        for size in (5, 3000, 50_000):
            raw = bytearray(4 * size + 1)
            array = np.frombuffer(raw, np.float32, size, offset=1)
            for _ in range(2):
                array[:] = np.arange(size) + comm.rank
                comm.all_reduce(array)
            results.append(bool((array == 2 * np.arange(size, dtype=np.float32) + 1).all()))
            view = memoryview(raw)[1:].cast("f")
            array[:] = comm.rank
            comm.all_reduce(view, "max")
            results.append(set(view) == {1.0})
        return results

    assert as_threads(2, tmp_path, body) == [[True] * 6] * 2


def test_what_is_no_refusal_is_passed_on(tmp_path):
    class Interrupting:
        """Python 3.12 and later ask it for its buffer; before that it is no array at all."""

        def __buffer__(self, flags):
            raise KeyboardInterrupt

    def body(comm):
        comm.all_reduce(np.zeros(1, np.float32))
        try:
            comm.all_reduce(Interrupting())
        except (KeyboardInterrupt, ExecutionError) as error:
            return type(error).__name__

    import sys

    assert set(as_threads(2, tmp_path, body)) == {"KeyboardInterrupt" if sys.version_info >= (3, 12) else "ExecutionError"}
