"""Communicators of ranks on several memory nodes (made up: this machine may have one), against numpy."""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import pytest
from runtime.ranks import as_threads

from blinkcoll.runtime import nodes
from blinkcoll.runtime.knownanswers import Case
from blinkcoll.runtime.measure import measure, placements
from blinkcoll.topology import HostNodes, host_topology

COLLECTIVES = ("allreduce", "reduce", "broadcast", "allgather", "reducescatter", "gather", "scatter", "alltoall")
ROOTED = ("broadcast", "reduce", "gather", "scatter")


@pytest.fixture
def placed(monkeypatch):
    """Ranks are where the table says; this machine's CPUs and distances are another's."""

    def place(table):
        monkeypatch.setattr(nodes, "own_node", lambda: table[int(threading.current_thread().name.removeprefix("rank "))])
        monkeypatch.setattr(nodes, "nodes_here", lambda of_rank: HostNodes(tuple(of_rank), {}, Fraction(16)))

    return place


@pytest.mark.parametrize("table", [(0, 1), (0, 0, 1), (1, 0, 0, 1, 4), (0, 1, 0, 1, 2, 2, 3, 3)])
def test_every_collective_is_right_across_nodes(table, placed, tmp_path):
    placed(table)
    n = len(table)
    cases = [Case(c, count, "float32", "sum", n - 1 if c in ROOTED else None) for c in COLLECTIVES for count in (n, 40_000 // n * n)]

    def body(comm):
        assert comm._host.topology == host_topology(n, HostNodes(table, {}, Fraction(16)))
        return {(case.collective, case.count, in_place): measure(comm, case, in_place, 0, 1).wrong for case in cases for in_place in placements(case.collective)}

    for wrong in as_threads(n, tmp_path, body):
        assert len(wrong) == 30 and not any(wrong.values()), wrong


def test_large_all_reduces_across_nodes_run_packed_trees_and_are_right(placed, tmp_path):
    placed((0, 0, 1))
    case = Case("allreduce", 2_000_003, "float32", "sum", None)

    def body(comm):
        wrong = [measure(comm, case, in_place, 0, 1).wrong for in_place in placements("allreduce")]
        return wrong, comm._host.program(comm._host.calls.last).algorithm

    assert as_threads(3, tmp_path, body) == [([0, 0], "trees")] * 3


@pytest.mark.parametrize("table", [(2, 2, 2), (0, None, 1)])
def test_one_node_or_an_unknown_one_is_one_memory(table, placed, tmp_path):
    placed(table)
    for topology in as_threads(3, tmp_path, lambda comm: comm._host.topology):
        assert topology == host_topology(3)


def test_a_split_by_nodes_has_one_memory_again(placed, tmp_path):
    placed((0, 1, 0, 1))

    def body(comm):
        with comm.split(comm.rank % 2) as part:
            summed = part.all_reduce(np.full(2_000_000, float(comm.rank)))
            return float(summed[0]), part._host.program(part._host.calls.last).algorithm

    assert as_threads(4, tmp_path, body) == [(2.0, "two-shot"), (4.0, "two-shot")] * 2
