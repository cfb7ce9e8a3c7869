"""Every dtype and operation against numpy, bit for bit, and the same bits from all executors."""

from __future__ import annotations

import numpy as np
import pytest
from emulator import EmulatedDevices, load_ptxrun
from runtime.arithmetic import FACTORS, PAIRS, bfloat16_bits, make_input, reduce_as

import blinkcoll as bc
from blinkcoll.runtime.cuda.executor import CudaExecutor
from blinkcoll.runtime.processes import ProcessExecutor
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import Program, lower_rings
from blinkcoll.schedules.protocols import with_protocol

COUNT = 301  # vectors, and a ragged end


@pytest.fixture(scope="module")
def star() -> Program:
    """GPUs 0, 1, 4: rank 0 adds its own input, and what ranks 1 and 2 have stored, in one step."""
    return bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce").schedule(nbytes=64, protocol="simple", max_channels=2)


def _options(dtype, op):
    return {"max_count": COUNT, "chunk_bytes": 256, "dtype": dtype, "op": op}


def _factors(op, n):
    return list(FACTORS[:n]) if op == "premul_sum" else None


@pytest.mark.parametrize(("dtype", "op"), PAIRS)
def test_host_movers_equal_numpy(star, dtype, op):
    inputs = [make_input(dtype, rank, COUNT, seed=1) for rank in range(3)]
    expected = reduce_as((0, (1,), (2,)), dtype, op, inputs)
    with ThreadExecutor(star, **_options(dtype, op)) as executor:
        for in_place in (False, True):
            for rank, output in enumerate(executor.run(inputs, in_place=in_place, factors=_factors(op, 3))):
                assert np.array_equal(output.view(np.uint8), expected.view(np.uint8)), f"rank {rank}, in place {in_place}"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("op", ["sum", "avg", "premul_sum"])
def test_every_step_of_a_ring_rounds_once(dtype, op):
    """Shard s starts at rank s + 1 and is added to at each hop: ((s+1) + (s+2)) + s, own part first in every step."""
    if dtype == "int8" and op == "premul_sum":
        pytest.skip("integers have no factors")
    program = lower_rings(bc.load_topology("dgx1-v100").subset([0, 1, 2]), [[0, 1, 2]], collective="reducescatter")
    inputs = [make_input(dtype, rank, 3 * 64, seed=2) for rank in range(3)]
    with ThreadExecutor(program, max_count=192, dtype=dtype, op=op, chunk_bytes=64) as executor:
        outputs = executor.run(inputs, factors=_factors(op, 3))
    for shard, output in enumerate(outputs):
        tree = (shard, ((shard + 2) % 3, ((shard + 1) % 3,)))
        expected = reduce_as(tree, dtype, op, inputs)[shard * 64 : shard * 64 + 64]
        assert np.array_equal(output.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize(("dtype", "op"), [pytest.param(*pair, marks=() if i % 3 == 0 else pytest.mark.slow) for i, pair in enumerate(PAIRS)])
def test_the_kernel_gives_the_same_bits_as_the_host(star, dtype, op):
    """By counters and in lines: each has movers of its own."""
    load_ptxrun()
    inputs = [make_input(dtype, rank, COUNT, seed=3) for rank in range(3)]
    with ThreadExecutor(star, **_options(dtype, op)) as executor:
        on_host = executor.run(inputs, factors=_factors(op, 3))
    for program in (star, with_protocol(star, "LL"), with_protocol(star, "LL128")):
        layer = EmulatedDevices(seed=len(op), mode="weak")
        with CudaExecutor(program, layer=layer, arch="sm_80", threads=32, **_options(dtype, op)) as executor:
            on_gpu = executor.run(inputs, factors=_factors(op, 3))
        for a, b in zip(on_host, on_gpu, strict=True):
            assert np.array_equal(a.view(np.uint8), b.view(np.uint8)), program.connections[0].protocol


@pytest.mark.parametrize(("dtype", "op"), [("bfloat16", "premul_sum"), ("int16", "avg"), ("bool", "bxor")])
def test_processes_give_the_same_bits_as_threads(star, dtype, op):
    inputs = [make_input(dtype, rank, COUNT, seed=4) for rank in range(3)]
    with ThreadExecutor(star, **_options(dtype, op)) as threads, ProcessExecutor(star, **_options(dtype, op)) as processes:
        for a, b in zip(threads.run(inputs, factors=_factors(op, 3)), processes.run(inputs, factors=_factors(op, 3)), strict=True):
            assert np.array_equal(a.view(np.uint8), b.view(np.uint8))


def _alone(dtype: str, arrays: list[np.ndarray], op: str = "sum") -> np.ndarray:
    program = bc.plan(bc.load_topology("dgx1-v100").subset([0, 1]), "allreduce").schedule(nbytes=64)
    with ThreadExecutor(program, max_count=arrays[0].size, dtype=dtype, op=op) as executor:
        return executor.run(arrays)[0]


def test_every_half_survives_and_every_float_between_two_rounds_to_nearest():
    """All 65536 bit patterns plus zero; then sums that lie between two halves, at and beside the ties."""
    halves = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    numbers = halves[~np.isnan(halves)]
    zeros = np.full(numbers.size, -0.0, dtype=np.float16)
    assert np.array_equal(_alone("float16", [numbers, zeros]).view(np.uint16), (numbers.astype(np.float32) + np.float32(-0.0)).astype(np.float16).view(np.uint16))
    rng = np.random.default_rng(5)
    a, b = (numbers[rng.integers(0, numbers.size, 200_000)] for _ in range(2))
    with np.errstate(all="ignore"):
        expected = (a.astype(np.float32) + b.astype(np.float32)).astype(np.float16)
    known = ~np.isnan(expected)
    got = _alone("float16", [a, b])
    assert np.array_equal(got[known].view(np.uint16), expected[known].view(np.uint16))
    assert np.isnan(got[~known]).all()


def test_bfloat16_rounds_to_nearest_and_keeps_what_is_no_number():
    rng = np.random.default_rng(6)
    bits = rng.integers(0, 1 << 16, (2, 100_000)).astype(np.uint16)
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(all="ignore"):
        exact = wide[0] + wide[1]
    finite = np.isfinite(exact) & (np.abs(exact) < 3e38)
    got = _alone("bfloat16", list(bits))
    assert np.array_equal(got[finite], bfloat16_bits(exact[finite]))
    assert np.isnan((got[np.isnan(exact)].astype(np.uint32) << 16).view(np.float32)).all()


@pytest.mark.parametrize("op", ["min", "max"])
def test_the_least_and_greatest_pass_on_what_is_no_number(op):
    a = np.array([1.0, np.nan, 2.0, np.nan, -np.inf], dtype=np.float32)
    b = np.array([np.nan, 1.0, 3.0, np.nan, np.inf], dtype=np.float32)
    expected = (np.minimum if op == "min" else np.maximum)(a, b)
    assert np.array_equal(_alone("float32", [a, b], op), expected, equal_nan=True)


def test_eight_bit_floats_are_copied_as_they_are():
    """What no executor reduces is still broadcast: bytes are bytes."""
    program = bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "broadcast", root=0).schedule(nbytes=64)
    data = np.arange(256, dtype=np.uint8).view("V1")
    with ThreadExecutor(program, max_count=256, dtype="V1") as executor:
        for output in executor.run([data, None, None]):
            assert output.tobytes() == data.tobytes()
