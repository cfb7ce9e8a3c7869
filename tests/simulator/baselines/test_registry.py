from __future__ import annotations

import pytest

from blinkcoll.cost import default_chunk_bytes
from blinkcoll.errors import SimulationError
from blinkcoll.packing.collectives import ROOTED
from blinkcoll.schedules import lower_rings, verify
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import BASELINES, baseline_program
from blinkcoll.simulator.baselines.ring import chain_broadcasts, store_directly
from blinkcoll.topology import load_topology

V100 = load_topology("dgx1-v100")


@pytest.mark.parametrize("gpus", [(0, 1), (0, 1, 4), (0, 1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_is_proved_and_runs(name, gpus):
    topology = (load_topology("mi300x") if name == "rccl" else V100).subset(gpus)
    for collective in BASELINES[name].collectives:
        for nbytes in (64, 1 << 20, 1 << 26):
            if name == "nccl-2.4" and collective in ("alltoall", "gather", "scatter"):
                continue  # it has no sends and receives
            program = baseline_program(name, topology, collective, 1 if collective in ROOTED else None, nbytes)
            verify(program)
            assert run(program, nbytes).time_us > 0


def test_unknown_baselines_and_collectives_are_refused():
    with pytest.raises(SimulationError, match="baidu-ring"):
        baseline_program("magic", V100, "allreduce", None, 1 << 20)
    with pytest.raises(SimulationError, match="has no reduce"):
        baseline_program("baidu-ring", V100, "reduce", 0, 1 << 20)
    with pytest.raises(SimulationError, match="root"):
        baseline_program("baidu-ring", V100, "broadcast", None, 1 << 20)


def test_a_topology_that_a_baseline_cannot_take_is_a_gap():
    with pytest.raises(SimulationError, match="one server"):
        baseline_program("nccl-2.7", load_topology("dgx1-v100*2@12"), "allreduce", None, 1 << 20)
    with pytest.raises(SimulationError, match="of several"):
        baseline_program("nccl", load_topology("mi300x*2@50"), "allreduce", None, 1 << 20)
    with pytest.raises(SimulationError, match="nccl is for NVIDIA"):
        baseline_program("rccl", V100, "allreduce", None, 1 << 20)


def test_nccl_on_amd_gpus_is_rccl_and_says_so():
    assert baseline_program("nccl", load_topology("mi300x"), "allreduce", None, 1 << 20).algorithm.startswith("rccl")


@pytest.mark.parametrize("collective", ["allreduce", "allgather"])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_direct_stores_prove_correct_and_never_take_longer(n, collective):
    topology = V100.subset(range(n))
    ring = lower_rings(topology, [range(n), [0, *range(n - 1, 0, -1)]], collective=collective)
    direct = store_directly(ring)
    verify(direct)
    for nbytes in (4096, 1 << 20, 1 << 26):
        chunk_bytes = default_chunk_bytes(ring, nbytes)
        slots, stores = run(ring, nbytes, chunk_bytes=chunk_bytes), run(direct, nbytes, chunk_bytes=chunk_bytes)
        assert stores.time_us <= slots.time_us * (1 + 1e-9)
        assert stores.link_bytes == pytest.approx(slots.link_bytes), "the same bytes over the same links"


def test_only_rings_store_directly():
    chain = chain_broadcasts(V100, [range(8)], "chain")
    with pytest.raises(SimulationError, match="ring all-reduce"):
        store_directly(chain)
    with pytest.raises(SimulationError, match="reducescatter"):
        store_directly(lower_rings(V100, [range(8)], collective="reducescatter"))


def test_chains_must_start_at_one_root():
    with pytest.raises(SimulationError, match="start at its root"):
        chain_broadcasts(V100.subset([0, 1, 2]), [[0, 1, 2], [1, 2, 0]], "chain")


def test_a_long_chain_of_nccl_is_cut_as_its_buffer_is():
    assert baseline_program("nccl", V100, "broadcast", 0, 1 << 26).chunk_bytes == 1 << 19
