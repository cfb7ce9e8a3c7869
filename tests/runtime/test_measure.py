"""Measured runs: the oracle, what it catches, and processes that are watched."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from runtime.oracle import expected_outputs
from runtime.ranks import as_threads

import blinkcoll as bc
from blinkcoll.runtime import rankprocesses
from blinkcoll.runtime.knownanswers import Case, expected_output, make_input
from blinkcoll.runtime.measure import measure, placements
from blinkcoll.runtime.rankprocesses import RankProcesses

COLLECTIVES = ("allreduce", "reduce", "broadcast", "allgather", "reducescatter", "gather", "scatter", "alltoall")
ROOTED = ("broadcast", "reduce", "gather", "scatter")
METHODS = {"allreduce": "all_reduce", "allgather": "all_gather", "reducescatter": "reduce_scatter", "alltoall": "all_to_all"}


def a_case(collective, count=600, dtype="float32", op="sum"):
    return Case(collective, count, dtype, op, 1 if collective in ROOTED else None)


@pytest.mark.parametrize("op", ["sum", "prod", "min", "max", "avg"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint8", "int64"])
@pytest.mark.parametrize("n", [2, 5, 16])
def test_the_oracle_agrees_with_the_tests_own(n, dtype, op):
    table = {"sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}

    def reduce(arrays):
        total = table[op].reduce([a.astype(np.float64) for a in arrays])
        total = np.trunc(total / n) if op == "avg" and "int" in dtype else total / n if op == "avg" else total
        assert op == "avg" or (total.astype(dtype) == total).all(), "sums of such inputs are exact"
        return total.astype(dtype)

    for collective in COLLECTIVES:
        case = a_case(collective, 240, dtype, op)
        inputs = [make_input(case, rank, n) for rank in range(n)]
        assert len({i.tobytes() for i in inputs if i.size}) == sum(i.size > 0 for i in inputs), "every rank's input is another"
        for rank, want in enumerate(expected_outputs(collective, case.root, inputs, reduce)):
            got = expected_output(case, rank, n)
            assert got.tobytes() == (b"" if want is None else want.tobytes()), (collective, rank)


class Corrupting:
    """A communicator that gets one element of one rank's result wrong."""

    def __init__(self, comm, collective, element):
        self.comm, self.rank, self.world_size, self.barrier = comm, comm.rank, comm.world_size, comm.barrier
        name = METHODS.get(collective, collective)
        setattr(self, name, lambda *args, **options: self._spoiled(getattr(comm, name)(*args, **options), element))

    def _spoiled(self, result, element):
        if self.rank == 1:
            result[element] += 1
        return result


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_planted_error_is_counted_once_and_where_it_is(collective, tmp_path):
    """Rank 1 is the root, and element 250 is in its own part of three."""
    case = a_case(collective)

    def body(comm):
        right = [measure(comm, case, in_place, 0, 1).wrong for in_place in placements(collective)]
        outside = [Corrupting(comm, collective, 250 if in_place or collective not in ("reducescatter", "scatter") else 50) for in_place in placements(collective)]
        return right, [measure(spoiled, case, in_place, 0, 1).wrong for spoiled, in_place in zip(outside, placements(collective), strict=True)]

    for rank, (right, wrong) in enumerate(as_threads(3, tmp_path, body)):
        assert not any(right)
        assert wrong == [int(rank == 1)] * len(wrong)


def test_a_call_that_does_nothing_is_all_wrong(tmp_path):
    class Idle:
        def __init__(self, comm):
            self.rank, self.world_size, self.barrier = comm.rank, comm.world_size, comm.barrier

        def all_to_all(self, array, out=None):
            pass

    case = a_case("alltoall", dtype="int32")
    for measured in as_threads(3, tmp_path, lambda comm: measure(Idle(comm), case, False, 0, 1)):
        assert measured.wrong == case.count


def fails(rank, nranks, store, job, say):
    if rank == 1:
        raise bc.ExecutionError("no such luck")
    time.sleep(60)


def sleeps(rank, nranks, store, job, say):
    say({"here": os.getpid()})
    time.sleep(60)


def body(name):
    """Of this file, which ranks' processes import by its path."""
    return f"test_measure:{name}"


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    monkeypatch.syspath_prepend(os.path.dirname(os.path.dirname(__file__)))


@pytest.mark.usefixtures("importable")
def test_a_ranks_error_ends_all():
    with RankProcesses(3, body("fails"), None) as ranks:
        pids = ranks.pids
        with pytest.raises(bc.ExecutionError, match="rank 1: no such luck"):
            list(ranks.messages())
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def follows(rank, nranks, store, job, say):
    if rank == 0:
        raise bc.RankFailed("rank 2 failed")
    if rank == 2:
        time.sleep(0.1)
        raise ValueError("the cause")
    time.sleep(60)


@pytest.mark.usefixtures("importable")
def test_the_cause_is_told_and_not_what_follows_from_it():
    with RankProcesses(3, body("follows"), None) as ranks, pytest.raises(bc.ExecutionError, match="rank 2: ValueError: the cause"):
        list(ranks.messages())


@pytest.mark.usefixtures("importable")
def test_a_process_that_cannot_begin_is_a_death_not_a_broken_pipe(monkeypatch):
    monkeypatch.setattr(rankprocesses, "_BOOT", "import sys; sys.exit(7)")
    with RankProcesses(2, body("sleeps"), "x" * 1_000_000) as ranks, pytest.raises(bc.RankFailed, match="died: exit code 7"):
        list(ranks.messages())


@pytest.mark.usefixtures("importable")
def test_a_stopped_process_is_noticed_by_its_silence(monkeypatch):
    monkeypatch.setattr(rankprocesses, "_SILENCE_S", 6.0)
    with RankProcesses(2, body("sleeps"), None) as ranks:
        heard = ranks.messages()
        seen = {rank for rank, _ in (next(heard), next(heard))}
        os.kill(ranks.pids[1], signal.SIGSTOP)
        with pytest.raises(bc.RankFailed, match="rank 1 has said nothing for 6 s"):
            list(heard)
    assert seen == {0, 1}
