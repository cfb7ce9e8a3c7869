"""Plain calls that run no Python: the same results however the arguments are given, and other threads get on meanwhile."""

from __future__ import annotations

import inspect
import threading
import time

import numpy as np
import pytest
from runtime.ranks import as_processes, as_threads

import blinkcoll as bc
from blinkcoll import _core


def everything(comm):
    """Each method, called twice (the first call sets it up, the second is quick), by place and by name, in and out of place."""
    n, r = comm.world_size, comm.rank
    mine = lambda size: np.arange(size, dtype=np.float32) + 10 * r  # noqa: E731
    results = {}
    for turn in range(2):
        out = np.zeros(4, np.float32)
        results["all_reduce", turn] = comm.all_reduce(mine(4)), comm.all_reduce(array=mine(4), op="max", out=out), comm.all_reduce(mine(4), out=np.zeros(4, np.float32))
        assert results["all_reduce", turn][1] is out
        results["reduce", turn] = comm.reduce(mine(4), 1), comm.reduce(mine(4), root=1, op="min", out=np.zeros(4, np.float32))
        results["broadcast", turn] = comm.broadcast(mine(3), 1), comm.broadcast(mine(3), root=1)
        results["all_gather", turn] = comm.all_gather(mine(2), np.zeros(2 * n, np.float32)), comm.all_gather(mine(2), out=np.zeros(2 * n, np.float32))
        results["reduce_scatter", turn] = comm.reduce_scatter(mine(2 * n), "sum", np.zeros(2, np.float32)), comm.reduce_scatter(mine(2 * n), op="avg", out=np.zeros(2, np.float32))
        results["gather", turn] = comm.gather(mine(2), 1, np.zeros(2 * n, np.float32)), comm.gather(mine(2), out=np.zeros(2 * n, np.float32), root=1)
        results["scatter", turn] = comm.scatter(mine(2 * n), 1, np.zeros(2, np.float32)), comm.scatter(mine(2 * n), root=1, out=np.zeros(2, np.float32))
        results["all_to_all", turn] = comm.all_to_all(mine(n), np.zeros(n, np.float32)), comm.all_to_all(mine(n), out=np.zeros(n, np.float32))
        assert comm.barrier() is None
    return results


@pytest.mark.parametrize("world", [1, 2, 3])
def test_arguments_may_be_given_by_place_or_by_name(world, tmp_path):
    if world == 1:
        comm = bc.Communicator(0, 1, None)
        for call in (lambda: comm.all_reduce(array=np.arange(3.0), op="max"), lambda: comm.all_reduce(np.arange(3.0))):
            assert [call().tolist() for _ in range(3)] == [[0.0, 1.0, 2.0]] * 3
        return
    ranks = as_processes(world, tmp_path, everything)
    inputs = lambda size: [np.arange(size, dtype=np.float32) + 10 * r for r in range(world)]  # noqa: E731
    four, many = inputs(4), inputs(2 * world)
    for r, results in enumerate(ranks):
        mine = slice(2 * r, 2 * r + 2)
        for turn in range(2):
            expected = {
                "all_reduce": (sum(four), np.max(four, 0), sum(four)),
                "broadcast": (inputs(3)[1],) * 2,
                "all_gather": (np.concatenate(inputs(2)),) * 2,
                "reduce_scatter": (sum(many)[mine], sum(many)[mine] / np.float32(world)),
                "scatter": (many[1][mine],) * 2,
                "all_to_all": (np.array([a[r] for a in inputs(world)]),) * 2,
            }
            if r == 1:
                expected |= {"reduce": (sum(four), np.min(four, 0)), "gather": (np.concatenate(inputs(2)),) * 2}
            for name, arrays in expected.items():
                for got, wanted in zip(results[name, turn], arrays, strict=True):
                    np.testing.assert_array_equal(got, wanted, err_msg=f"{name} at rank {r}")


def refusals(comm):
    """What is wrong is said the second time, too, and the communicator goes on."""
    comm.all_reduce(np.ones(2))
    comm.broadcast(np.ones(2), 0)
    said = []
    for call in (
        lambda: comm.all_reduce(),
        lambda: comm.all_reduce(np.ones(2), "sum", None, 1.0),
        lambda: comm.all_reduce(np.ones(2), array=np.ones(2)),
        lambda: comm.all_reduce(np.ones(2), colour=3),
        lambda: comm.all_reduce(np.ones(2), "most"),
        lambda: comm.all_reduce(np.ones(2), out=np.ones(3)),
        lambda: comm.broadcast(np.ones(2)),
        lambda: comm.broadcast(np.ones(2), 1 << 80),
        lambda: comm.broadcast(np.ones(2), -1),
        lambda: comm.barrier(3),
    ):
        try:
            call()
            said.append(None)
        except (TypeError, bc.ExecutionError) as error:
            said.append(f"{type(error).__name__}: {error}")
    return said, comm.all_reduce(np.ones(2), "".join(["su", "m"])).tolist()  # equal, but not the same object


def test_wrong_arguments_are_told_as_by_the_method_in_python(tmp_path):
    for said, result in as_processes(2, tmp_path, refusals):
        assert result == [2.0, 2.0]
        for text, part in zip(said, ["missing 1 required", "takes from 2 to 4", "multiple values", "unexpected keyword", "'most' is not known", "do not fit", "missing 1 required", "no rank", "no rank -1", "takes 1 positional"], strict=True):
            assert part in text


def test_a_thread_gets_on_while_a_call_waits(tmp_path):
    def late(comm):
        comm.barrier()
        comm.barrier()
        if comm.rank == 0:
            time.sleep(0.4)
            comm.barrier()
            return None
        turns, over = [0], threading.Event()

        def count():
            while not over.is_set():
                turns[0] += 1
                time.sleep(0.001)

        counter = threading.Thread(target=count)
        counter.start()
        comm.barrier()
        over.set()
        counter.join()
        return turns[0]

    assert as_processes(2, tmp_path, late)[1] > 50


def test_ranks_that_are_threads_of_one_interpreter_take_turns(tmp_path):
    def body(comm):
        for i in range(200):
            assert comm.all_reduce(np.full(3, i)).tolist() == [3 * i] * 3
        return True

    assert as_threads(3, tmp_path, body) == [True] * 3


def test_methods_show_what_they_are():
    method = bc.Communicator.all_reduce
    assert isinstance(method, type(bc.Communicator.barrier)) and type(method).__name__ == "QuickMethod"
    assert list(inspect.signature(method).parameters) == ["self", "array", "op", "out", "factor", "async_op"]
    assert method.__name__ == "all_reduce" and method.__qualname__ == "Communicator.all_reduce" and "same bits everywhere" in method.__doc__
    comm = bc.Communicator(0, 1, None)
    bound = comm.all_reduce
    assert list(inspect.signature(bound).parameters) == ["array", "op", "out", "factor", "async_op"]
    array = np.arange(2.0)
    assert bound(array) is array and method(comm, array) is array
    comm.close()
    with pytest.raises(bc.ExecutionError, match="closed"):
        bound(array)
    with pytest.raises(TypeError):
        method()


def test_a_method_without_a_communicator_is_the_function():
    twice = _core.quick_method(0, ["array"], lambda self, array: [array, array])
    assert type("Other", (), {"twice": twice})().twice(4) == [4, 4]
    with pytest.raises(ValueError, match="no parameter colour"):
        _core.quick_method(0, ["colour"], print)
