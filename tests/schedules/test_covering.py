"""Every program of every family, interpreted by numpy and run by the host's threads, against numpy's own answer.

A covering array chooses the cases: any two of collective, family, world size (1 to 16), dtype, operation, size, in place and
root that can go together do so in one of them.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from allocations import classes, name_of
from hypothesis import given
from hypothesis import strategies as st
from runtime.arithmetic import INTEGERS, _narrow, _wide, bfloat16_bits, reduce_as
from schedules import zoo
from schedules.covering import COLLECTIVES, Case, covering_array, feasible_pairs, most_of
from schedules.interpreter import Cut, Interpreter
from servers import boxes

import blinkcoll as bc
from blinkcoll._core import Partition
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules import (
    OUTPUT,
    SCALED_INPUT,
    Channel,
    Program,
    Step,
    expand_exchanges,
    lower_nvls,
    split_wide_steps,
)
from blinkcoll.schedules.contract import REDUCING, SHARDED, view

SEED = 1
CASES = covering_array(SEED)
SAMPLE = most_of(CASES)
CHUNK_BYTES = 64


# -- inputs of which every order of adding up makes the same bits -------------------------------------------------------


def numbers(dtype: str, op: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Small whole numbers, of which few are not 1 where they are multiplied; any bits where they wrap or are copied."""
    if dtype == "bool":
        return rng.integers(0, 2, size).astype(np.bool_)
    if dtype in INTEGERS and op != "avg":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, size, dtype=dtype, endpoint=True)
    small = rng.integers(0 if dtype == "uint8" else -7, 8, size)  # 16 of them add up to what int8 and half precision hold
    if op == "prod":
        small = rng.choice([-1, 1], size)
    values = small.astype(np.float32)
    return bfloat16_bits(values) if dtype == "bfloat16" else values.astype(dtype)


def counts_of(case: Case, rng: np.random.Generator) -> np.ndarray:
    shape = (case.nranks,) * (2 if case.collective == "alltoallv" else 1)
    if case.size == "uneven":
        return rng.integers(0, 60, shape) * rng.integers(0, 2, shape)
    counts = np.zeros(shape, int)
    counts.flat[rng.integers(counts.size)] = 331
    return counts


def count_of(case: Case, program: Program, elem_size: int) -> int:
    """Elements in all; where shards are equal, of a shard."""
    n, chunk = case.nranks, max(1, CHUNK_BYTES // elem_size)
    slots = max((c.slots for c in program.connections), default=1)
    full = chunk * program.nshards * len(program.weights)  # about one chunk of every share
    count = {
        "nothing": 0, "one": 1, "fewer than ranks": n - 1, "prime": 1009,
        "one chunk less than the slots": full * slots - chunk, "one chunk more than the slots": full * slots + chunk, "hundred thousand": 100_000,
    }[case.size]  # fmt: skip
    if program.collective not in SHARDED:
        return count
    return count if case.size in ("nothing", "one", "fewer than ranks") else -(-count // n)


def inputs_of(program: Program, count: int, counts: np.ndarray | None, make):
    """Each rank's input as the collective has it, and the elements in all."""
    n, name = program.nranks, program.collective
    if counts is None:
        counts = np.full((n, n) if name == "alltoallv" else n, count) if name in SHARDED else None
    total = count if counts is None else int(counts.sum())
    inputs = []
    for rank in range(n):
        held = view(name, "input", rank, program.root)
        size = {"none": None, "whole": total, "own": 0, "row": 0}[held]
        if held in ("own", "row"):
            size = int(counts[rank].sum())
        inputs.append(None if size is None else make(size))
    return inputs, total


def expected_outputs(program: Program, inputs, counts: np.ndarray | None, dtype: str, op: str):
    """By the collective's definition, without a program: None where a rank has no output."""
    n, root, name = program.nranks, program.root, program.collective
    sizes = counts if counts is not None else None
    total = reduce_as(tuple(range(n)), dtype, op, inputs) if name in REDUCING else None
    whole = total if total is not None else inputs[root] if root is not None else None
    shard = lambda array, s: np.split(array, np.cumsum(sizes)[:-1] if sizes is not None else n)[s]  # noqa: E731
    outputs = []
    for rank in range(n):
        held = view(name, "output", rank, root)
        if held == "none":
            outputs.append(None)
        elif name in ("allgather", "gather"):
            outputs.append(np.concatenate(inputs))
        elif name == "alltoall":
            outputs.append(np.concatenate([np.split(inputs[a], n)[rank] for a in range(n)]))
        elif name == "alltoallv":
            pieces = [np.split(inputs[a], np.cumsum(sizes[a])[:-1]) for a in range(n)]
            outputs.append(np.concatenate([pieces[a][rank] for a in range(n)]))
        else:
            outputs.append(shard(whole, rank) if held == "own" else whole)
    return outputs


def same_bits(a, b) -> bool:
    return a.dtype == b.dtype and np.array_equal(np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8))


def factors_of(op: str, n: int):
    """Powers of two: products are exact."""
    return [2.0 ** (r % 3 - 1) for r in range(n)] if op == "premul_sum" else None


def run_both(program: Program, inputs, total: int, *, dtype: str, op: str, chunk_bytes: int, in_place: bool, counts, seed: int):
    """What the interpreter and the threads make of it; for every third seed in a second call on the same counters.

    The interpreter takes exchanges as their contract has them, threads the connections that stand for them.
    """
    uneven = counts is not None
    factors = factors_of(op, program.nranks)
    interpreter = Interpreter(program)
    with ThreadExecutor(expand_exchanges(program), max_count=max(total, 1) if uneven or program.collective not in SHARDED else total, dtype=dtype, op=op, chunk_bytes=chunk_bytes, timeout_s=60, uneven=uneven) as executor:
        for call in range(1 + (seed % 3 == 0)):
            table = None if counts is None else counts.tolist()
            mine = interpreter.run(inputs, dtype=dtype, op=op, chunk_bytes=chunk_bytes, in_place=in_place, factors=factors, counts=table, seed=seed + call)
            theirs = executor.run(inputs, in_place=in_place, factors=factors, counts=table)
    return mine, theirs


def check(case: Case, seed: int) -> None:
    root = {"none": None, "first": 0, "middle": case.nranks // 2, "last": case.nranks - 1}[case.root]
    program = zoo.program(case.family, case.collective, case.nranks, root)
    rng = np.random.default_rng(seed)
    if case.collective == "barrier":
        mine, theirs = run_both(program, [None] * case.nranks, 1, dtype="float32", op="sum", chunk_bytes=64, in_place=False, counts=None, seed=seed)
        assert all(out is None for out in mine) and all(out.size == 0 for out in theirs)
        return
    elem_size = 2 if case.dtype == "bfloat16" else np.dtype(case.dtype).itemsize
    counts = counts_of(case, rng) if case.size.startswith("uneven") else None
    count = 0 if counts is not None else count_of(case, program, elem_size)
    inputs, total = inputs_of(program, count, counts, lambda size: numbers(case.dtype, case.op, rng, size))
    # A few iterations for the largest, and for the others as small chunks as there are.
    chunk_bytes = CHUNK_BYTES if total < 100_000 else max(16, total * elem_size // (3 * program.nshards * len(program.weights)))
    options = {"dtype": case.dtype, "op": case.op, "chunk_bytes": chunk_bytes, "in_place": case.in_place, "counts": counts, "seed": seed}
    mine, theirs = run_both(program, inputs, total, **options)
    data = inputs
    if case.op == "premul_sum":
        data = [_narrow(case.dtype, _wide(case.dtype, i) * np.float32(f)) for i, f in zip(inputs, factors_of(case.op, case.nranks), strict=True)]
    wanted = expected_outputs(program, data, counts, case.dtype, "sum" if case.op == "premul_sum" else case.op)
    for rank, want in enumerate(wanted):
        if want is None:
            assert mine[rank] is None and theirs[rank].size == 0
            continue
        assert same_bits(mine[rank], want), f"{case}: interpreter, rank {rank}"
        assert same_bits(theirs[rank], want), f"{case}: threads, rank {rank}"


@pytest.mark.parametrize("part", range(16))
@pytest.mark.parametrize("cases", [SAMPLE, pytest.param(CASES, marks=pytest.mark.slow)], ids=["sample", "all"])
def test_any_two_factors_together(cases, part, record_property):
    cases = cases[part::16]
    record_property("cases", len(cases))
    for i, case in enumerate(cases):
        try:
            check(case, SEED * 10_000 + part * 100 + i)
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"{case}: {error}") from error


def test_the_array_has_all_pairs_and_every_program():
    wanted, found = feasible_pairs(), set()
    for case in CASES:
        found |= case.pairs()
    assert wanted <= found
    assert {(case.family, case.collective) for case in CASES} == set(zoo.FAMILIES)
    assert {case.nranks for case in CASES} == set(range(1, 17)) and {case.collective for case in CASES} == set(COLLECTIVES)
    kept = set().union(*(case.pairs() for case in SAMPLE))
    assert len(kept & wanted) >= 0.9 * len(wanted) and {(case.family, case.collective) for case in SAMPLE} == set(zoo.FAMILIES)
    print(f"{len(SAMPLE)} cases have {len(kept & wanted)} of the pairs")
    print(f"{len(CASES)} cases have all {len(wanted)} pairs of values that can go together")


@pytest.mark.parametrize(("family", "collective"), [key for key in zoo.FAMILIES if key[1] in REDUCING])
def test_inexact_sums_come_out_alike_in_the_interpreter_and_on_threads(family, collective):
    """Bit for bit, in whatever order the interpreter goes: sums are ordered expressions, and the partition is this one."""
    sizes, _ = zoo.FAMILIES[family, collective]
    n = sorted(sizes)[len(sizes) // 2]
    program = zoo.program(family, collective, n, n - 1 if collective in zoo.ROOTED else None)
    rng = np.random.default_rng(n)
    make = lambda size: (rng.standard_normal(size) * 10.0 ** rng.integers(-3, 4, size)).astype(np.float32)  # noqa: E731
    inputs, total = inputs_of(program, 333, None, make)
    mine, theirs = run_both(program, inputs, total, dtype="float32", op="avg" if program.averages else "sum", chunk_bytes=48, in_place=True, counts=None, seed=n)
    assert all(b.size == 0 if a is None else same_bits(a, b) for a, b in zip(mine, theirs, strict=True))
    if collective == "allreduce":
        assert all(same_bits(out, mine[0]) for out in mine), "ranks differ"


@given(
    count=st.integers(0, 4000), elem_size=st.integers(1, 16), nshards=st.integers(1, 7), chunk_bytes=st.integers(1, 300),
    weights=st.lists(st.integers(0, 99), min_size=1, max_size=5).filter(any), callers=st.booleans(),
)  # fmt: skip
def test_the_interpreter_s_cut_is_the_partition_s(count, elem_size, nshards, chunk_bytes, weights, callers):
    """Two ways to write one partition down: exact fractions, and integers that do not overflow."""
    count -= count % nshards if callers else 0
    stands_for = SimpleNamespace(collective="allgather" if callers else "allreduce", nshards=nshards, weights=weights)
    cut, partition = Cut(stands_for, count, elem_size, chunk_bytes), Partition(count, elem_size, nshards, weights, chunk_bytes, callers)
    for share in range(len(weights)):
        assert cut.iterations(share) == partition.iterations(share)
        for shard in range(nshards):
            for iteration in range(cut.iterations(share)):
                where = cut.chunk_of(shard, share, iteration)
                offset, length = partition.chunk_range(shard, share, iteration)
                assert length == where.stop - where.start and (length == 0 or offset == where.start)


# -- operands of all ranks, exchanges, relays and host memory -----------------------------------------------------------


def _beyond_ranks_and_links():
    h100, v100 = bc.load_topology("hgx-h100").subset(range(3)), bc.load_topology("dgx1-v100")
    for collective in ("allreduce", "broadcast", "reduce", "allgather", "reducescatter"):
        root = 1 if collective in zoo.ROOTED else None
        plan = bc.plan(h100, collective, root=root, method="nvls")
        yield f"nvls {collective}", plan.schedule(nbytes=1 << 10)
        yield f"nvls registered {collective}", lower_nvls(plan, registered=True, max_channels=2)
        if root is None or collective == "broadcast":
            borrowed = v100.subset([0, 1, 4], relays=[2, 3])
            yield f"relays {collective}", bc.plan(borrowed, collective, root=root).schedule(nbytes=1 << 10)
            yield f"relays, few channels {collective}", bc.plan(borrowed, collective, root=root).schedule(nbytes=1 << 10, max_channels=3)
        if collective not in SHARDED:
            yield f"servers {collective}", bc.plan(boxes([2, 1, 3]), collective, root=root, method="three-phase").schedule(nbytes=1 << 10)
    yield "hybrid allreduce", bc.plan(v100.subset([0, 1]), "allreduce", method="hybrid").schedule(nbytes=1 << 10)
    yield "relays alltoall", bc.plan(v100.subset([0, 5], relays=[1, 4]), "alltoall").schedule(nbytes=1 << 10)
    yield "relays alltoallv", bc.plan(v100.subset([0, 5], relays=[1, 4]), "alltoall").schedule(nbytes=1 << 10, uneven=True)


BEYOND = dict(_beyond_ranks_and_links())


_SIZES = {"alltoallv": [True], "allgather": [False, True], "reducescatter": [False, True]}


@pytest.mark.parametrize(("name", "uneven"), [(name, uneven) for name, program in BEYOND.items() for uneven in _SIZES.get(program.collective, [False])])
def test_switches_servers_and_relays_in_the_interpreter_and_on_threads(name, uneven):
    program = BEYOND[name]
    bc.verify(program, repeated=True)
    assert ("relays" in name) == (program.nexecutors > program.nranks) and ("nvls" in name) == bool(program.multicasts)
    n, op = program.nranks, "avg" if program.averages else "sum"
    for seed, in_place in enumerate((False, True) if program.in_place else (False,)):
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, 90, (n, n) if program.collective == "alltoallv" else n) if uneven else None
        inputs, total = inputs_of(program, 211 if program.collective not in SHARDED else 70, counts, lambda size: numbers("float32", op, rng, size))  # noqa: B023
        mine, theirs = run_both(program, inputs, total, dtype="float32", op=op, chunk_bytes=64, in_place=in_place, counts=counts, seed=3 * seed)
        for want, a, b in zip(expected_outputs(program, inputs, counts, "float32", op), mine, theirs, strict=True):
            assert (a is None and b.size == 0) if want is None else (same_bits(a, want) and same_bits(b, want))


def test_steps_are_split_around_exchanges_and_where_they_are_expanded():
    """Nothing but an engine runs an exchange, so it stays whole; sixty-six servers' hub adds up in several steps."""
    step = Step("exchange", 0, (SCALED_INPUT,), (OUTPUT,), postscaled=True, group=tuple(range(66)))
    opaque = Program("by hand", "allreduce", boxes([1] * 66), 1, (1,), (), ((Channel((step,)),),) * 66)
    bc.verify(opaque, repeated=True)
    assert split_wide_steps(opaque, 3) == split_wide_steps(opaque, 64) == opaque
    expanded = expand_exchanges(opaque)
    assert max(len(s.srcs) + len(s.dsts) for channels in expanded.ranks for channel in channels for s in channel.steps) == 64
    bc.verify(expanded, repeated=True)


# -- all allocations of the DGX-1s --------------------------------------------------------------------------------------


def check_allocation(topology, collective: str, in_place: bool) -> None:
    root = topology.nranks // 2 if collective in zoo.ROOTED else None
    program = bc.plan(topology, collective, root=root).schedule(nbytes=1 << 20)
    rng = np.random.default_rng(topology.nranks)
    for count in (0, 1, 211):
        inputs, total = inputs_of(program, count, None, lambda size: numbers("float32", "sum", rng, size))
        mine, theirs = run_both(program, inputs, total, dtype="float32", op="sum", chunk_bytes=64, in_place=in_place, counts=None, seed=count)
        for want, a, b in zip(expected_outputs(program, inputs, None, "float32", "sum"), mine, theirs, strict=True):
            assert (a is None and b.size == 0) if want is None else (same_bits(a, want) and same_bits(b, want))


@pytest.mark.parametrize("topology", classes()[::7], ids=name_of)
@pytest.mark.parametrize("collective", zoo.PLANNED)
def test_some_allocations(topology, collective):
    check_allocation(topology, collective, in_place=topology.nranks % 2 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("topology", classes(), ids=name_of)
@pytest.mark.parametrize(("collective", "in_place"), [(c, i) for c in zoo.PLANNED for i in (False, True)])
def test_every_allocation(topology, collective, in_place):
    check_allocation(topology, collective, in_place)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_other_covering_arrays(seed):
    for i, case in enumerate(covering_array(seed)):
        check(case, seed * 1000 + i)

