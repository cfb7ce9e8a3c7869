"""Programs over switches that copy and add, on every executor: what the switch adds is added in the order of ranks."""

from __future__ import annotations

import ctypes
import re
import shutil
from fractions import Fraction

import numpy as np
import pytest
from emulator import EmulatedDevices, load_ptxrun
from runtime.arithmetic import FACTORS, PAIRS, make_input, reduce_as
from runtime.oracle import assert_outputs, make_inputs

import blinkcoll as bc
from blinkcoll._core import can_reduce_in_switch
from blinkcoll.errors import ExecutionError
from blinkcoll.runtime.cuda import nvrtc
from blinkcoll.runtime.cuda.executor import CudaExecutor
from blinkcoll.runtime.cuda.kernel import SOURCE, kernel_ptx
from blinkcoll.runtime.launch import DTYPES, OPS, LaunchRecord
from blinkcoll.runtime.processes import ProcessExecutor
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import lower_nvls
from blinkcoll.simulator.baselines.nccl import nccl_program
from blinkcoll.topology import Device, Link, Switch, Topology

COLLECTIVES = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter")
H100 = bc.load_topology("hgx-h100")
#: PTX ISA, multimem.ld_reduce: the operations of each type.
IN_SWITCH = {
    "float32": {"sum"}, "float64": {"sum"}, "float16": {"sum", "min", "max"}, "bfloat16": {"sum", "min", "max"},
    "int32": {"sum", "min", "max", "band", "bor", "bxor"}, "int64": {"sum", "min", "max", "band", "bor", "bxor"},
    "int16": {"band", "bor", "bxor"}, "int8": {"band", "bor", "bxor"}, "uint8": {"band", "bor", "bxor"},
}  # fmt: skip


def star(n, ports=()) -> Topology:
    devices = tuple(Device(f"gpu{i}", arch="sm_90") for i in range(n))
    rates = ports or [20] * n
    links = [Link(a, b, "NVLINK", Fraction(c)) for d, c in zip(devices, rates, strict=True) for a, b in ((d.name, "switch"), ("switch", d.name))]
    return Topology(f"star{n}", devices, (Switch("switch", "nvswitch", multicast=True, reduce=True),), tuple(links))


def made(topology, collective, **options):
    root = topology.nranks // 2 if collective in ("broadcast", "reduce") else None
    return lower_nvls(bc.plan(topology, collective, root=root, method="nvls"), **options)


def uneven_floats(seed):
    return lambda rank, size: (np.random.default_rng([seed, rank]).standard_normal(size) * 10.0**rank).astype(np.float32)


def sum_in_rank_order(arrays):
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def check(executor, counts, seed=0, calls=1):
    program = executor.program
    for count in counts:
        for in_place in (False, True):
            inputs = make_inputs(program.collective, program.root, program.nranks, count, uneven_floats(seed + count))
            for _ in range(calls):
                outputs = executor.run(inputs, in_place=in_place)
            assert_outputs(program.collective, program.root, inputs, outputs, sum_in_rank_order, f"{program.algorithm}, count {count}, in place {in_place}")


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 8])
def test_threads_equal_numpy_bit_for_bit(n, collective, registered):
    """Sums of floats of very different sizes: another order would give other bits."""
    program = made(H100.subset(list(range(n))), collective, registered=registered)
    with ThreadExecutor(program, max_count=1021 * n, chunk_bytes=256, timeout_s=30) as executor:
        check(executor, [0, n, 5 * n, 1021 * n], calls=2)


@pytest.mark.parametrize("registered", [False, True])
def test_heads_of_unequal_rates(registered):
    """One narrow port: heads at 1 and three times 6 nineteenths, a rank that is the head of six shards in a row."""
    program = made(star(4, [24, 30, 30, 30]), "allreduce", max_channels=3, registered=registered)
    with ThreadExecutor(program, max_count=1021, chunk_bytes=64, timeout_s=30) as executor:
        check(executor, [0, 5, 1021], calls=2)


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "reducescatter"])
def test_nccls_own_nvls_program_is_right_too(collective):
    program = nccl_program(H100.subset([0, 1, 2, 3]), collective, None, 1 << 20, algorithm="nvls")
    with ThreadExecutor(program, max_count=4 * 301, chunk_bytes=128, timeout_s=30) as executor:
        check(executor, [0, 4 * 301])


def test_another_order_would_give_other_bits():
    arrays = [uneven_floats(7)(rank, 1021) for rank in range(5)]
    assert (sum_in_rank_order(arrays) != sum_in_rank_order(arrays[::-1])).any()


@pytest.mark.parametrize("collective", ["allreduce", "allgather"])
def test_processes_equal_numpy_bit_for_bit(collective):
    program = made(H100.subset([0, 1, 2]), collective, max_channels=6)
    with ProcessExecutor(program, max_count=999, chunk_bytes=256, timeout_s=30) as executor:
        check(executor, [0, 3, 999])


@pytest.mark.parametrize("dtype", [*IN_SWITCH, "bool"])
@pytest.mark.parametrize("op", ["sum", "prod", "min", "max", "band", "bor", "bxor", "avg", "premul_sum"])
def test_every_dtype_and_operation_is_as_the_hardware_has_it_or_refused(dtype, op):
    """16-bit floats are added in float32 and round once; a factor rounds when its product is stored into scratch."""
    inside = "sum" if op in ("avg", "premul_sum") else op
    program = made(star(3), "allreduce", max_channels=3)
    options = {"max_count": 301, "chunk_bytes": 64, "dtype": dtype, "op": op, "timeout_s": 30}
    assert can_reduce_in_switch(DTYPES[dtype], OPS[inside]) == (inside in IN_SWITCH.get(dtype, ()))
    if (dtype, op) not in PAIRS or inside not in IN_SWITCH.get(dtype, ()):
        with pytest.raises(ExecutionError, match=r"cannot be computed in a switch|not supported"):
            ThreadExecutor(program, **options)
        return
    inputs = [make_input(dtype, rank, 301, seed=1) for rank in range(3)]
    expected = reduce_as(((0,), (1,), (2,)), dtype, op, inputs)
    with ThreadExecutor(program, **options) as executor:
        for rank, output in enumerate(executor.run(inputs, factors=list(FACTORS[:3]) if op == "premul_sum" else None)):
            assert np.array_equal(output.view(np.uint8), expected.view(np.uint8)), f"rank {rank}"


def test_a_registered_program_cannot_scale_and_says_so():
    with pytest.raises(ExecutionError, match="does not mark where inputs and results are scaled"):
        ThreadExecutor(made(star(2), "allreduce", registered=True), max_count=4, op="avg")


def test_a_sum_of_bytes_is_copied_by_switches_but_not_added():
    with ThreadExecutor(made(star(2), "allgather", registered=True), max_count=6, dtype=np.int8) as executor:
        outputs = executor.run([np.arange(3, dtype=np.int8), np.arange(3, 6, dtype=np.int8)])
    assert all(np.array_equal(output, np.arange(6)) for output in outputs)


# -- the kernel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sc", "weak", "race"])
@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_the_kernel_without_mappings_reads_and_writes_each_rank(collective, registered, mode):
    """What runs the same programs where nothing is mapped: the synchronisation is the same, and checked for races."""
    load_ptxrun()
    program = made(star(3), collective, max_channels=3, registered=registered)
    layer = EmulatedDevices(seed=3, mode=mode)
    with CudaExecutor(program, layer=layer, arch="sm_80", threads=32, max_count=201, chunk_bytes=128, timeout_s=100) as executor:
        check(executor, [0, 201], calls=2)


ADDED = {
    ("float32", "sum"): "add.v4.f32", ("bfloat16", "sum"): "add.acc::f32.v4.bf16x2", ("int64", "min"): "min.s64",
    ("float64", "sum"): "add.f64", ("float16", "sum"): "add.acc::f32.v4.f16x2", ("bfloat16", "max"): "max.v4.bf16x2",
    ("int32", "sum"): "add.s32", ("uint8", "bxor"): "xor.b32",
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "op"), [*list(ADDED)[:3], *(pytest.param(*pair, marks=pytest.mark.slow) for pair in list(ADDED)[3:])])
def test_the_kernel_of_sm_90_has_the_instruction_of_its_dtype_and_operation(dtype, op):
    ptx = kernel_ptx("sm_90", dtype, op, multicast=True)
    assert set(re.findall(r"multimem\.ld_reduce\.(\S+)", ptx)) == {f"relaxed.sys.global.{ADDED[dtype, op]}"}
    assert set(re.findall(r"multimem\.st\.(\S+)", ptx)) == {"relaxed.sys.global.v4.f32"}
    # Heads fence the aliases on both sides; the text follows the program's order.
    assert ptx.index("fence.proxy.alias") < ptx.index("multimem.") < ptx.rindex("multimem.") < ptx.rindex("fence.proxy.alias")


@pytest.mark.parametrize("arch", [pytest.param("sm_100", marks=pytest.mark.slow), "sm_120"])
def test_newer_architectures_have_them_too(arch):
    assert "multimem.ld_reduce.relaxed.sys.global.add.v4.f32" in kernel_ptx(arch, multicast=True)


@pytest.mark.parametrize("arch", ["sm_80", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("sm_60", "sm_70", "sm_89"))])
def test_older_architectures_stop_at_a_mapping(arch):
    ptx = kernel_ptx(arch, multicast=True)
    assert "multimem" not in ptx and "trap;" in ptx


def assembled(arch, dtype, op, source=SOURCE) -> str:
    """The log of assembling the kernel to machine code, empty where nothing is wrong with it."""
    library, program = nvrtc._library(), ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), (source / "cuda" / "run.cu").read_bytes(), b"run.cu", 0, None, None)
    options = [f"--gpu-architecture={arch}", "--std=c++17", f"--include-path={source}", f"-DBC_DTYPE={DTYPES[dtype]}", f"-DBC_OP={OPS[op]}", "-DBC_MULTICAST"]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))
    log = nvrtc._text(program, "ProgramLog")
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return log if status else ""


@pytest.mark.parametrize(("arch", "dtype", "op"), [
    ("sm_90", "float32", "sum"),
    *(pytest.param("sm_90", dtype, op, marks=pytest.mark.slow) for dtype in IN_SWITCH for op in sorted(IN_SWITCH[dtype])),
    *(pytest.param(arch, "bfloat16", "sum", marks=pytest.mark.slow) for arch in ("sm_100", "sm_120")),
])  # fmt: skip
def test_the_assembler_takes_the_instructions(arch, dtype, op):
    assert assembled(arch, dtype, op) == ""


def test_the_assembler_would_refuse_wrong_ones(tmp_path):
    shutil.copytree(SOURCE, tmp_path / "csrc")
    changed = tmp_path / "csrc" / "cuda" / "multimem.h"
    changed.write_text(changed.read_text().replace("add.v4.f32", "max.v4.f32"))
    assert "multimem.ld_reduce" in assembled("sm_90", "float32", "sum", tmp_path / "csrc")


class Recording:
    """A device layer that runs nothing: what would be launched."""

    whole_lines = False

    def __init__(self):
        self.mapped, self.records, self._next = [], [], 1 << 20

    def allocate(self, nbytes, device, name):
        self._next += -(-nbytes // 256) * 256
        return self._next - -(-nbytes // 256) * 256

    def multicast(self, addresses, nbytes):
        self.mapped.append((tuple(addresses), nbytes))
        return 0x7000_0000_0000 + len(self.mapped)

    def free(self, address): ...
    def write(self, address, data): ...
    def load(self, ptx): ...
    def synchronize(self): ...

    def read(self, address, nbytes):
        return bytes(nbytes)

    def launch(self, module, kernel, *, device, grid, block, argument):
        self.records.append(LaunchRecord.from_buffer_copy(argument))


@pytest.mark.parametrize(("registered", "in_place", "expected"), [(False, False, (0, 0, 1)), (False, True, (0, 0, 1)), (True, False, (1, 2, 0)), (True, True, (2, 2, 0))])
def test_launches_carry_the_mappings_of_what_the_program_names(registered, in_place, expected):
    layer = Recording()
    program = made(star(3), "allreduce", max_channels=3, registered=registered)
    with CudaExecutor(program, layer=layer, arch="sm_90", in_switch=True, max_count=64) as executor:
        executor.run([np.ones(64, dtype=np.float32)] * 3, in_place=in_place)
    assert [len(addresses) for addresses, _ in layer.mapped] == [3] * (2 if registered else 1)
    base = 0x7000_0000_0000
    assert {tuple(record.multicast) for record in layer.records} == {tuple(at and base + at for at in expected)}


def test_inputs_that_no_object_joins_are_refused():
    """In place, the root of a reduce has its input in its output's memory, the others have no output."""
    program = made(star(3), "reduce", registered=True)
    with CudaExecutor(program, layer=Recording(), arch="sm_90", in_switch=True, max_count=64) as executor:
        executor.run([np.ones(64, dtype=np.float32)] * 3)
        with pytest.raises(ExecutionError, match="called in place: the inputs of all ranks lie in regions of different kinds"):
            executor.run([np.ones(64, dtype=np.float32)] * 3, in_place=True)


def test_switches_are_refused_where_there_are_none():
    program = made(star(2), "allreduce", max_channels=3)
    with pytest.raises(ExecutionError, match="sm_80 has no multimem instructions, sm_90 and newer have"):
        CudaExecutor(program, layer=Recording(), arch="sm_80", in_switch=True, max_count=4)
    with pytest.raises(ExecutionError, match="nothing for a switch to do"):
        CudaExecutor(bc.plan(star(2), "allreduce").schedule(nbytes=64), layer=Recording(), arch="sm_90", in_switch=True, max_count=4)


def test_signals_take_no_memory_for_slots():
    program = made(H100, "allreduce")
    with ThreadExecutor(program, max_count=1 << 20, chunk_bytes=1 << 20) as executor:
        assert max(arena.nbytes for arena in executor.arenas) < 4 << 20


def test_more_than_sixty_four_ranks_are_stored_to_at_once():
    """A step of a switch's program stores to all ranks' memory, by host threads to each."""
    rack = bc.load_topology("gb200-nvl72")
    for collective in ("broadcast", "allgather"):
        program = made(rack, collective, max_channels=3)
        inputs = make_inputs(collective, program.root, 72, 72 * 3000, lambda rank, size: np.arange(size, dtype=np.float32) + rank)
        with ThreadExecutor(program, max_count=72 * 3000, chunk_bytes=32 << 10, timeout_s=60) as executor:
            assert_outputs(collective, program.root, inputs, executor.run(inputs), sum_in_rank_order)
