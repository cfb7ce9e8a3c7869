"""NCCL's rings and trees across servers."""

from __future__ import annotations

from collections import Counter

import pytest

from blinkcoll.errors import SimulationError
from blinkcoll.schedules import verify
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import baseline_program
from blinkcoll.simulator.baselines.nccl import nccl_program, servers
from blinkcoll.simulator.baselines.nccl.servers import plan_servers
from blinkcoll.topology import load_topology

TWO = load_topology("dgx1-v100*2@12.5")


def test_rings_visit_a_server_at_a_time_and_share_the_nics():
    plan = plan_servers(TWO)
    assert plan.path_type == "NET" and len(plan.rings) == 4, "a NIC for two GPUs"
    for ring in plan.rings:
        assert sorted(ring) == list(range(16))
        homes = [TWO.devices[rank].server for rank in ring]
        assert homes == [0] * 8 + [1] * 8
    assert max(Counter(ring[0] for ring in plan.rings).values()) == 1


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "reducescatter", "broadcast", "reduce", "alltoall", "gather", "scatter"])
@pytest.mark.parametrize("nbytes", [1024, 1 << 28])
def test_programs_across_two_servers_are_proved_and_run(collective, nbytes):
    root = 5 if collective in ("broadcast", "reduce", "gather", "scatter") else None
    program = baseline_program("nccl", TWO, collective, root, nbytes)
    verify(program)
    assert run(program, nbytes).time_us > 0


@pytest.mark.parametrize("nservers", [2, 3, 4, 5])
def test_trees_across_servers_are_proved(nservers):
    cluster = load_topology(f"dgx-a100*{nservers}@25").subset([s * 8 + i for s in range(nservers) for i in range(2)])
    program = nccl_program(cluster, "allreduce", None, 1 << 20, algorithm="tree")
    verify(program)
    assert program.algorithm == "nccl-2.30-tree"


def test_a_large_all_reduce_runs_at_the_rate_of_the_nics():
    program = nccl_program(TWO, "allreduce", None, 1 << 30, algorithm="ring")
    assert run(program, 1 << 30).busbw == pytest.approx(4 * 12.5, rel=0.06)


def test_servers_of_one_gpu_each():
    cluster = load_topology("dgx-a100*3@25").subset([0, 8, 16])
    verify(nccl_program(cluster, "allreduce", None, 1 << 26))


def test_too_many_ranks_are_refused_with_what_to_try(monkeypatch):
    monkeypatch.setattr(servers, "MOST_RING_STEPS", 1000)
    monkeypatch.setattr(servers, "MOST_TREE_RANKS", 15)
    three = load_topology("dgx1-v100*3@12.5")  # no other test has built its programs
    with pytest.raises(SimulationError, match="algorithm='tree'"):
        nccl_program(three, "allgather", None, 1 << 30)
    with pytest.raises(SimulationError, match="at most 15 ranks"):
        nccl_program(three, "allreduce", None, 1 << 30, algorithm="tree")


@pytest.mark.parametrize("collective", ["allgather", "reducescatter", "alltoall"])
def test_what_no_plan_can_run_is_refused_before_one_is_searched_for(collective, monkeypatch):
    monkeypatch.setattr(servers, "plan_servers", lambda topology: pytest.fail("NCCL's plan was searched for"))
    with pytest.raises(SimulationError, match=r"1440 ranks.* run_baseline"):
        nccl_program(load_topology("hgx-h100*180@50"), collective, None, 1 << 30)


def test_nvlink_between_servers_is_a_gap_that_says_so():
    with pytest.raises(SimulationError, match="MNNVL"):
        nccl_program(load_topology("gb200-nvl72"), "allreduce", None, 1 << 20)
