"""Connections in lines (LL, LL128) on the kernel's PTX: right in every mode, whatever lies in slots, and every part needed.

The emulator runs each thread on its own and tears stores, so LL128 is run as kernels are built where nobody vouches for
stores of 128 bytes; what differs where somebody does is two small functions (``csrc/cuda/whole_lines.h``).
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from allocations import classes, name_of, spread
from emulator import EmulatedDevices, load_ptxrun
from runtime.inputs import assert_result, integers
from runtime.oracle import assert_outputs, make_inputs

import blinkcoll as bc
from blinkcoll.errors import ExecutionError, WaitTimeout
from blinkcoll.runtime.cuda import executor as cuda
from blinkcoll.runtime.cuda.kernel import ARCHITECTURES, SOURCE, kernel_ptx
from blinkcoll.runtime.cuda.nvrtc import compile_ptx
from blinkcoll.runtime.processes import ProcessExecutor
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import Program, lower_rings
from blinkcoll.schedules.protocols import with_protocol

MODES = ("sc", "weak", "race")
LINES = ("LL", "LL128")


@pytest.fixture(scope="module", autouse=True)
def _emulator():
    load_ptxrun()


def _plan(topology, collective):
    root = topology.nranks // 2 if collective in ("broadcast", "reduce", "gather", "scatter") else None
    return bc.plan(topology, collective, root=root)


def _program(collective: str = "allreduce", gpus=(0, 1, 4), protocol: str = "LL") -> Program:
    return _plan(bc.load_topology("dgx1-v100").subset(gpus), collective).schedule(nbytes=1 << 20, protocol=protocol)


def _executor(program, seed, mode, *, arch="sm_80", threads=32, chunk_bytes=128, machine=None, **options):
    layer = EmulatedDevices(seed, mode, **(machine or {}))
    return cuda.CudaExecutor(program, layer=layer, arch=arch, threads=threads, chunk_bytes=chunk_bytes, **{"timeout_s": 100, **options})


def _check_sums(executor, count, seed, **call):
    inputs = integers(executor.program.nranks, count, seed)
    assert_result("allreduce", None, inputs, executor.run(inputs, **call), f"count {count}, seed {seed}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("topology", spread(3), ids=name_of)
def test_a_spread_of_allocations_equals_numpy_bit_for_bit(topology, mode):
    program = _plan(topology, "allreduce").schedule(nbytes=1 << 20, protocol="LL")
    for seed in range(2):
        with _executor(program, seed, mode, arch=("sm_80", "sm_60")[seed], max_count=257) as executor:
            for count in (257, 7):
                _check_sums(executor, count, seed, in_place=seed == 1)


@pytest.mark.parametrize("protocol", LINES)
@pytest.mark.parametrize("collective", ["broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter", "alltoall"])
def test_every_collective(collective, protocol):
    program = _program(collective, (0, 1, 2, 3, 4), protocol)
    for seed, mode in enumerate(("weak", "race")):
        inputs = make_inputs(collective, program.root, 5, 305, lambda rank, size: integers(1, size, rank)[0])
        with _executor(program, seed, mode, max_count=305) as executor:
            for in_place in (False, True):
                assert_outputs(collective, program.root, inputs, executor.run(inputs, in_place=in_place), sum, f"{mode}, in place {in_place}")


@pytest.mark.parametrize("protocol", LINES)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "int64", "complex128"])
def test_any_element_size_and_ragged_end(dtype, protocol):
    """Units of eight bytes hold eight elements, or half of one; 15 of them make a line of LL128."""
    program = _program("broadcast", protocol=protocol)
    for count in (0, 1, 2, 3, 7, 8, 9, 61, 121):
        data = np.arange(1, count + 1).astype(dtype)
        with _executor(program, count, "weak", dtype=dtype, max_count=max(1, count), chunk_bytes=32 if count < 100 else 512) as executor:
            for output in executor.run([data if rank == program.root else None for rank in range(3)], in_place=count % 2 == 1):
                assert output.tobytes() == data.tobytes(), count


@pytest.mark.parametrize("threads", [1, 7, 64])
def test_any_number_of_threads_and_slots(threads):
    for slots, mode in ((1, "race"), (3, "weak")):
        ring = lower_rings(bc.load_topology("dgx1-v100").subset(range(5)), [[0, 1, 2, 3, 4], [4, 2, 0, 3, 1]], slots=max(2, slots))
        with _executor(with_protocol(ring, "LL"), threads, mode, threads=threads, max_count=603, chunk_bytes=64) as executor:
            _check_sums(executor, 603, threads)


@pytest.mark.parametrize("protocols", [("simple", "LL"), ("simple", "LL128"), ("LL", "LL128"), ("LL128", "simple", "LL")], ids="+".join)
def test_connections_of_several_protocols_in_one_step(protocols):
    """Around a ring: a rank takes one kind up and stores the other."""
    ring = lower_rings(bc.load_topology("dgx1-v100").subset(range(4)), [[0, 1, 2, 3]])
    program = replace(ring, connections=tuple(replace(c, protocol=protocols[i % len(protocols)]) for i, c in enumerate(ring.connections)))
    assert {c.protocol for c in program.connections} == set(protocols)
    for seed, mode in enumerate(MODES):
        with _executor(program, seed, mode, max_count=301) as executor:
            for in_place in (False, True):
                _check_sums(executor, 301, seed, in_place=in_place)


@pytest.mark.parametrize("machine", [{"atomicity": 8}, {"atomicity": 1}, {"drain": 1}, {"skew": 3}, {"stale": 1}], ids=str)
def test_hostile_machines(machine):
    """Pairs of lines that tear between the two, and within what PTX lets tear; stores that hardly drain; slow threads."""
    for seed in range(2):
        with _executor(_program(), seed, "weak", machine=machine, max_count=301) as executor:
            _check_sums(executor, 301, seed, in_place=seed % 2 == 1)


# -- what lies in the slots --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", LINES)
def test_flags_of_earlier_calls_are_not_taken_for_new(protocol):
    """Long and short calls in turn: behind a short chunk's end the lines of a long one stay."""
    for mode in ("weak", "race"):
        with _executor(_program(protocol=protocol), 3, mode, max_count=601, chunk_bytes=64) as executor:
            for seed, count in enumerate((601, 3, 600, 0, 1, 599, 7, 601)):
                _check_sums(executor, count, seed)


def _start_at(executor, sequence: int) -> None:
    """As if so many chunks had gone through every connection."""
    word = sequence.to_bytes(8, "little")
    for base, arena in zip(executor._bases, executor.arenas, strict=True):
        executor._layer.write(base + arena.cursors, word * len(executor.program.connections))
        for at in (*arena.heads.values(), *arena.tails.values()):
            executor._layer.write(base + at, word)


@pytest.mark.parametrize("start", [(1 << 32) - 3, (1 << 32) - 1, (1 << 40) - 2])
def test_sequence_numbers_wrap_in_the_flag(start):
    for mode, protocol in (("weak", "LL"), ("race", "LL"), ("weak", "LL128")):
        with _executor(_program(protocol=protocol), 1, mode, max_count=301, chunk_bytes=64) as executor:
            _start_at(executor, (1 << 31) - 3)  # memory starts as zeros, the flag of chunk 2^32 - 1: swept by then
            _check_sums(executor, 301, 0)
            _start_at(executor, start)
            for count in (301, 5, 301):
                _check_sums(executor, count, count)


def _after_2_to_the_32(sweep: bool) -> None:
    """A long call, then 2^32 chunks later another; `sweep`: short calls halfway, where slots are swept."""
    with _executor(_plan(bc.load_topology("dgx1-v100").subset((0, 1, 4)), "allreduce").schedule(nbytes=1 << 20, protocol="LL", max_channels=2), 2, "weak", threads=8, max_count=256, chunk_bytes=1 << 10, machine={"skew": 3}) as executor:
        _start_at(executor, 0)
        for call in range(4):  # one chunk a call: each slot once
            _check_sums(executor, 256, call)
        if sweep:
            _start_at(executor, (1 << 31) - 4)
            for call in range(4):
                _check_sums(executor, 1, call)
        _start_at(executor, 1 << 32)
        for call in range(4):
            _check_sums(executor, 256, 10 + call)


def test_lines_that_nobody_rewrote_for_2_to_the_32_chunks_are_swept():
    with pytest.raises(AssertionError, match="elements wrong"):
        _after_2_to_the_32(sweep=False)  # the danger is real
    _after_2_to_the_32(sweep=True)


# -- every part is needed ----------------------------------------------------------------------------------------------


def _mutant(folder, file: str, old: str, new: str):
    """The kernel's PTX from a source that differs in one place."""
    csrc = folder / "csrc"
    shutil.copytree(SOURCE, csrc)
    text = (csrc / file).read_text()
    assert old in text, f"{file} has no {old!r}"
    (csrc / file).write_text(text.replace(old, new))
    run = csrc / "cuda" / "run.cu"
    return lambda arch, *variant: compile_ptx(run.read_text(), arch, include=[str(csrc)], options=["--fmad=false"])


_BOTH_FLAGS = "return u32(first >> 32) == u32(flag) && u32(second >> 32) == u32(flag);"
MUTANTS = {
    "one flag for all chunks": ("blinkcoll/protocol.h", "return sequence + 1;", "return 1;", "weak"),
    "only the first line's flag is looked at": ("cuda/lines.h", _BOTH_FLAGS, "return u32(first >> 32) == u32(flag);", "weak"),
    "flags are not looked at": ("cuda/lines.h", _BOTH_FLAGS, "return true;", "weak"),
    "lines by weak stores": ("cuda/memory.h", '"st." BC_STRENGTH ".global.v2.b64', '"st.global.v2.b64', "race"),
    "lines by weak loads": ("cuda/memory.h", '"ld." BC_STRENGTH ".global.v2.b64', '"ld.global.v2.b64', "race"),
    "lines at the scope of one GPU": ("cuda/memory.h", '"relaxed.sys"', '"relaxed.gpu"', "race"),
    "data and flag by accesses of their own": (
        "cuda/memory.h",
        'asm volatile("st." BC_STRENGTH ".global.v2.b64 [%0], {%1, %2};" ::"l"(at), "l"(first), "l"(second) : "memory");',
        'asm volatile("st.relaxed.sys.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(u32(first)), "r"(u32(first >> 32)), "r"(u32(second)), "r"(u32(second >> 32)) : "memory");',
        "weak",
    ),
    "the input by weak loads, in place": ("cuda/lines.h", "return load_relaxed_system(reinterpret_cast<const u64*>(at));", "return *reinterpret_cast<const u64*>(at);", "race"),
    "the output by weak stores, in place": ("cuda/lines.h", "store_relaxed_system(reinterpret_cast<u64*>(at), payload);", "*reinterpret_cast<u64*>(at) = payload;", "race"),
    "LL128: a flag by a relaxed store": ("cuda/whole_lines.h", "store_release_system(at + 1, flag)", "store_relaxed_system(at + 1, flag)", "race"),
    "LL128: a flag by a relaxed load": ("cuda/whole_lines.h", "reached_acquire_system(at + 1, flag)", "load_relaxed_system(at + 1) >= flag", "race"),
    "LL128: a team that does not meet": ("cuda/whole_lines.h", "  __syncwarp(mask);  // a vote orders no memory\n", "", "race"),
    "LL128 that relies on whole stores": ("cuda/whole_lines.h", "#define BC_WHOLE_LINES 0", "#define BC_WHOLE_LINES 1", "weak"),
    "no wait for credit": ("blinkcoll/dispatch.h", "needed > c.slots ? needed - c.slots : 0, 0}", "0}", "weak"),
    "credit before all threads have loaded": ("blinkcoll/dispatch.h", "return p.all(move_lines(p, step, operands, range));", "return move_lines(p, step, operands, range);", "weak"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_kernel_that_lacks_one_thing_is_caught(name, monkeypatch, tmp_path):
    file, old, new, mode = MUTANTS[name]
    made = _mutant(tmp_path, file, old, new)("sm_80")
    monkeypatch.setattr(cuda, "kernel_ptx", lambda *variant, **options: made)
    caught = 0
    # In race mode every run shows it; in weak mode a seed does or does not.
    seeds, least = (2, 2) if mode == "race" else (6, 2)
    for seed in range(seeds):
        try:
            program = _program(protocol="LL128" if "LL128" in name else "LL")
            with _executor(program, seed, mode, machine={"atomicity": 1}, max_count=259, chunk_bytes=64, timeout_s=2e-3) as executor:
                for call in range(2):
                    _check_sums(executor, 259, seed + 10 * call, in_place=call == 1)
        except (AssertionError, load_ptxrun().PtxError, WaitTimeout):
            caught += 1
    assert caught >= least, f"only {caught} of {seeds} runs noticed"


def test_the_unchanged_kernel_passes_the_same_runs():
    for seed in range(6):
        for mode in ("weak", "race"):
            with _executor(_program(protocol=LINES[seed % 2]), seed, mode, machine={"atomicity": 1}, max_count=259, chunk_bytes=64) as executor:
                for call in range(2):
                    _check_sums(executor, 259, seed + 10 * call, in_place=call == 1)


# -- waits, architectures, other executors --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", LINES)
def test_a_wait_for_lines_ends_and_says_who_was_missing(protocol, monkeypatch):
    launch = cuda.CudaExecutor._launch
    monkeypatch.setattr(cuda.CudaExecutor, "_launch", lambda self, record, rank: None if rank == 2 else launch(self, record, rank))
    missing = r"rank 2 \(gpu4\): waited for, and left no word(.|\n)*rank 0 \(gpu0\), channel 0.*waiting for chunk 1 of c1 from rank 2, which has published 0"
    with _executor(_program(protocol=protocol), 0, "sc", max_count=99, timeout_s=5e-4) as executor, pytest.raises(WaitTimeout, match=missing):
        executor.run(integers(3, 99, 0))


@pytest.mark.parametrize("arch", [pytest.param(arch, marks=() if arch in ("sm_60", "sm_70", "sm_90") else pytest.mark.slow) for arch in ARCHITECTURES])
def test_every_architecture_has_lines(arch):
    ptx = kernel_ptx(arch)
    strength = "volatile" if arch == "sm_60" else "relaxed.sys"
    for access in ("ld", "st"):
        assert f"{access}.{strength}.global.v2.b64" in ptx
        assert f"{access}.{strength}.global.v4" not in ptx, "a vector of four may tear between data and flag"
    with _executor(_program(), 1, "race", arch=arch, max_count=203) as executor:
        _check_sums(executor, 203, 1, in_place=True)


def test_where_stores_arrive_whole_a_line_is_one_access_of_the_team():
    """What no emulator here can run: one vector store after the team has met, one vector load before its vote."""
    ptx = kernel_ptx("sm_80", whole_lines=True)
    assert re.search(r"bar\.warp\.sync[^\n]*\n(?:(?!bar\.warp)[^\n]*\n){0,12}?[^\n]*st\.relaxed\.sys\.global\.v2\.b64", ptx)
    assert re.search(r"ld\.relaxed\.sys\.global\.v2\.b64(?:[^\n]*\n){1,16}?[^\n]*vote\.sync\.all", ptx)
    assert ptx.count("st.release.sys") < kernel_ptx("sm_80").count("st.release.sys")


def test_what_lines_of_128_bytes_need_is_refused_where_it_is_missing():
    program = _program(protocol="LL128")
    with pytest.raises(ExecutionError, match="c0 has protocol LL128, which sm_60 does not have"):
        _executor(program, 0, "sc", arch="sm_60", max_count=4)
    with pytest.raises(ExecutionError, match="moved by eight threads; 12 threads a block"):
        _executor(program, 0, "sc", threads=12, max_count=4)
    layer = EmulatedDevices(0, "sc")
    layer.whole_lines = True
    plan = bc.plan(bc.load_topology("l40sx8").subset([0, 1]), "broadcast", root=0)
    simple = plan.schedule(nbytes=64, protocol="simple")
    over_pcie = replace(simple, connections=tuple(replace(c, protocol="LL128") for c in simple.connections))
    with pytest.raises(ExecutionError, match="its way is not NVLink alone"):
        cuda.CudaExecutor(over_pcie, layer=layer, arch="sm_80", max_count=4)


@pytest.mark.parametrize(("make", "protocol"), [(ThreadExecutor, "LL"), (ThreadExecutor, "LL128"), (ProcessExecutor, "LL")])
def test_host_executors_run_the_same_program(make, protocol):
    program = _program("allreduce", (0, 1, 2, 3, 4), protocol)
    with make(program, max_count=3001, chunk_bytes=64) as executor:
        for count in (0, 1, 3001, 5):
            _check_sums(executor, count, count, in_place=count == 5)


@pytest.mark.slow
@pytest.mark.parametrize("topology", classes(), ids=name_of)
@pytest.mark.parametrize("collective", ["allreduce", "broadcast", "alltoall"])
@pytest.mark.parametrize("protocol", LINES)
def test_every_allocation_in_lines(protocol, topology, collective):
    program = _plan(topology, collective).schedule(nbytes=1 << 20, protocol=protocol)
    count = 72 * topology.nranks
    for seed, mode in enumerate((*MODES, "weak", "race", "weak", "weak")):
        inputs = make_inputs(collective, program.root, topology.nranks, count, lambda rank, size: integers(1, size, rank)[0])
        with _executor(program, seed, mode, arch=("sm_90" if protocol == "LL128" else "sm_60", "sm_70", "sm_80")[seed % 3], max_count=count) as executor:
            assert_outputs(collective, program.root, inputs, executor.run(inputs, in_place=seed % 2 == 1), sum, f"seed {seed}, {mode}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_many_seeds(seed):
    for mode in ("weak", "race"):
        with _executor(_program("allreduce", (0, 2, 3, 5), LINES[seed % 2]), seed, mode, machine={"atomicity": 1}, max_count=601, chunk_bytes=48) as executor:
            for count in (601, 3, 601):
                _check_sums(executor, count, seed, in_place=seed % 2 == 1)
