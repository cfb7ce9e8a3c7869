"""Relays and slots in host memory on all executors, bit for bit."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import pytest
from allocations import diagonals, name_of
from emulator import EmulatedDevices, load_ptxrun
from runtime.oracle import assert_outputs, make_inputs
from runtime.test_collectives import check, exact_sum, whole_numbers

import blinkcoll as bc
from blinkcoll.runtime.cuda.executor import CudaExecutor
from blinkcoll.runtime.launch import lay_out, lay_out_host
from blinkcoll.runtime.processes import ProcessExecutor
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import encode

ALL = ("broadcast", "reduce", "allreduce", "allgather", "reducescatter", "gather", "scatter", "alltoall")
DGX1 = bc.load_topology("dgx1-v100")
BORROWED = [DGX1.subset([0, 1], relays=[2, 3]), DGX1.subset([5, 0, 6, 1, 4], relays=[2, 3, 7]), DGX1.subset([0, 6], relays=[2, 4])]
HYBRIDS = [DGX1.subset([0, 1]), DGX1.subset([0, 1, 4]), DGX1.subset([0, 1, 2, 3, 4]), bc.load_topology("ac922"), bc.load_topology("a6000-nvbridge").subset([3, 2])]


def program_of(topology, collective, **options):
    root = topology.nranks - 1 if collective in ("broadcast", "reduce", "gather", "scatter") else None
    return bc.plan(topology, collective, root=root, **options).schedule(nbytes=1 << 20, max_channels=64, protocol="simple")


@pytest.mark.parametrize("topology", BORROWED, ids=name_of)
@pytest.mark.parametrize("collective", ALL)
def test_relays_on_threads(topology, collective):
    n = topology.nranks
    with ThreadExecutor(program_of(topology, collective), max_count=1021 * n, chunk_bytes=512, timeout_s=30) as executor:
        check(executor, [0, n, 3 * n, 1021 * n])


@pytest.mark.parametrize("topology", HYBRIDS, ids=name_of)
@pytest.mark.parametrize("collective", ["broadcast", "reduce", "allreduce", "allgather"])
def test_hybrids_on_threads(topology, collective):
    n = topology.nranks
    with ThreadExecutor(program_of(topology, collective, method="hybrid"), max_count=1021 * n, chunk_bytes=512, timeout_s=30) as executor:
        assert executor.host_arenas
        check(executor, [0, n, 1021 * n])


def test_an_average_counts_ranks_and_not_relays():
    program = program_of(BORROWED[0], "allreduce")
    inputs = [np.full(101, 3.0, np.float32), np.full(101, 5.0, np.float32)]
    with ThreadExecutor(program, max_count=101, op="avg") as executor:
        outputs = executor.run(inputs)
        assert len(outputs) == 2 and all((o == 4.0).all() for o in outputs)
    with ThreadExecutor(program, max_count=101, op="premul_sum") as executor:
        assert all((o == 2 * 3.0 + 10 * 5.0).all() for o in executor.run(inputs, factors=[2, 10]))


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="host processes need memfd, which only Linux has")
@pytest.mark.parametrize(("topology", "method"), [(BORROWED[0], "auto"), (HYBRIDS[2], "hybrid")], ids=["relays", "hybrid"])
def test_on_processes(topology, method):
    with ProcessExecutor(program_of(topology, "allreduce", method=method), max_count=20011, chunk_bytes=2048, timeout_s=60) as executor:
        check(executor, [0, 1, 20011])
        assert executor._progress_mark().count(b"\0") < len(executor._progress_mark()), "counters in host memory show progress too"


ON_THE_EMULATOR = {"relays": (BORROWED[0], "auto"), "hybrid": (HYBRIDS[1], "hybrid"), "both": (DGX1.subset([0, 1], relays=[2]), "hybrid")}


@pytest.mark.parametrize(("collective", "machine", "arch", "mode"), diagonals(3, ("broadcast", "allreduce"), tuple(ON_THE_EMULATOR), ("sm_60", "sm_80"), ("sc", "weak", "race")))
def test_on_the_emulator(collective, machine, arch, mode):
    load_ptxrun()
    topology, method = ON_THE_EMULATOR[machine]
    program = program_of(topology, collective, method=method)
    for seed in range(2):
        inputs = make_inputs(collective, program.root, program.nranks, 1021, whole_numbers(seed))
        with CudaExecutor(program, layer=EmulatedDevices(seed, mode), arch=arch, threads=32, max_count=1021, chunk_bytes=256, timeout_s=100) as executor:
            for _ in range(2):
                outputs = executor.run(inputs, in_place=seed == 1)
        assert_outputs(collective, program.root, inputs, outputs, exact_sum, f"seed {seed}")


def test_slots_and_counters_of_a_way_through_host_memory_lie_on_its_first_cpu():
    program = program_of(DGX1.subset([0, 1, 4]), "allreduce", method="hybrid")
    staged = {i for i, c in enumerate(program.connections) if c.transport == "host"}
    arenas = lay_out_host(program, 4096)
    assert staged and staged == {i for arena in arenas for i in arena.slots}
    for arena in arenas:
        firsts = [next(v for v in program.connections[i].path if str(v).startswith("cpu")) for i in arena.slots]
        assert set(firsts) == {arena.cpu}
        places = sorted([*((at, 8) for at in (*arena.heads.values(), *arena.tails.values())), *((at, 4 * 4096) for at in arena.slots.values())])
        assert all(at + size <= after for (at, size), (after, _) in pairwise(places)) and sum(places[-1]) <= arena.nbytes
        assert all(at % 128 == 0 for at, _ in places) and all(at % 256 == 0 for at in arena.slots.values())
    code = encode(program)
    for rank in range(3):
        own = lay_out(program, code, rank, 4096)
        assert staged.isdisjoint({*own.slots, *own.heads, *own.tails})


class _Recording(EmulatedDevices):
    """Notes whose memory was asked for."""

    def __init__(self, *args):
        super().__init__(*args)
        self.host, self.device = [], []

    def allocate_host(self, nbytes, cpu, name):
        self.host.append((cpu, nbytes))
        return super().allocate_host(nbytes, cpu, name)


def test_gpus_ask_for_pinned_memory_of_that_cpu():
    load_ptxrun()
    program = program_of(DGX1.subset([0, 1, 4]), "allreduce", method="hybrid")
    layer = _Recording(0, "sc")
    with CudaExecutor(program, layer=layer, arch="sm_80", threads=32, max_count=64, chunk_bytes=256) as executor:
        assert layer.host == [(arena.cpu, arena.nbytes) for arena in executor.host_arenas]
        assert {cpu for cpu, _ in layer.host} == {lay.cpu for lay in lay_out_host(program, 256)} != set()
    assert not layer._buffers, "all memory was given back"
