"""Communicators over shared memory, against numpy."""

from __future__ import annotations

import itertools
import random
import socket
import threading
from dataclasses import replace

import numpy as np
import pytest
from runtime.arithmetic import INTEGERS, PAIRS
from runtime.oracle import SHARDED, assert_outputs, expected_outputs, make_inputs
from runtime.ranks import as_processes, as_threads

import blinkcoll as bc
from blinkcoll import _core
from blinkcoll.runtime import hostprograms, reach
from blinkcoll.runtime.arrays import as_array
from blinkcoll.runtime.bootstrap import Group
from blinkcoll.schedules import lower_both_ways, lower_direct
from blinkcoll.schedules.direct import CHUNK_BYTES

ROOTED = ("broadcast", "reduce", "gather", "scatter")
COLLECTIVES = ("allreduce", "reduce", "broadcast", "allgather", "reducescatter", "gather", "scatter", "alltoall")
REDUCING = ("allreduce", "reduce", "reducescatter")
WORLDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 16)
#: Elements a rank: none, one, fewer than ranks, a prime beyond the small programs, and enough for many chunks.
SIZES = {"none": 0, "one": 1, "few": 3, "prime": 10007, "many": 400_000}


def exact_input(dtype, rank, size, seed):
    """Numbers whose sums and products of sixteen are exact in every dtype, in any order."""
    rng = np.random.default_rng([seed, rank])
    if dtype == "bool":
        return rng.integers(0, 2, size).astype(np.bool_)
    if dtype in INTEGERS:
        return rng.integers(0, 100, size).astype(dtype)
    values = rng.choice([1.0, -1.0, 2.0] if rank % 5 == 0 else [1.0, -1.0], size)
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else values.astype(dtype)


FACTORS = (0.5, -2.0, 4.0, 1.0, 0.25, -1.0, 2.0, -0.5) * 2


def reduce_exactly(dtype, op, arrays):
    """Numpy's result; in any order, as all sums and products of such inputs are exact."""
    n = len(arrays)
    if dtype == "bool":
        table = {"sum": np.logical_or, "bor": np.logical_or, "max": np.logical_or, "bxor": np.logical_xor}
        return table.get(op, np.logical_and).reduce(arrays, axis=0)
    table = {"prod": np.multiply, "min": np.minimum, "max": np.maximum, "band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor}
    if op == "premul_sum":
        arrays = [a.astype(np.float64) * f for a, f in zip(arrays, FACTORS, strict=False)]
    wide = np.dtype(dtype) if dtype in INTEGERS else np.dtype(np.float64)
    total = table.get(op, np.add).reduce([a.astype(wide) for a in arrays], axis=0, dtype=wide)
    if op == "avg" and dtype in INTEGERS:
        return (np.sign(total) * (np.abs(total.astype(np.int64)) // n)).astype(dtype)
    if op == "avg":
        computed = np.float64 if dtype == "float64" else np.float32
        return (total.astype(computed) / computed(n)).astype(dtype)
    return total.astype(dtype)


def covering(seed, factors):
    """Rows such that every pair of values of two factors occurs in some row (greedy, seeded)."""
    rng = random.Random(seed)
    names = list(factors)
    left = {((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in factors[a] for y in factors[b]}
    rows = []
    while left:
        best, choices = None, sorted(left, key=str)
        for _ in range(30):
            (a, x), (b, y) = rng.choice(choices)
            row = {name: rng.choice(list(values)) for name, values in factors.items()} | {a: x, b: y}
            gain = sum(1 for pair in itertools.combinations(row.items(), 2) if pair in left)
            if best is None or gain > best[0]:
                best = (gain, row)
        rows.append(best[1])
        left -= set(itertools.combinations(best[1].items(), 2))
    return rows


#: Which programs run: as chosen; none that use other ranks' buffers; the same in chunks that go round, with slots written past the caches, and all; only
#: such that do, as readers or as both; those of a DGX-1.
STORES = {"spread": hostprograms.THROUGH_CACHES, "slots-past": hostprograms.SLOTS_PAST, "all-past": hostprograms.ALL_PAST}
WAYS = ("chosen", "slots", *STORES, "direct", "both-ways", "dgx1-v100")
BOTH_WAYS = ("broadcast", "gather", "scatter", "allgather")
ROWS = covering(7, {"collective": COLLECTIVES, "kind": PAIRS, "world": WORLDS, "size": tuple(SIZES), "in_place": (False, True), "way": WAYS})
for row in ROWS:  # a DGX-1 has eight GPUs; sixteen ranks take their time
    if row["world"] == 16 or (row["world"] > 8 and row["way"] == "dgx1-v100"):
        row["way"] = "chosen"


def with_only(collectives, lowered, made, topology, collective, root, direct):
    """What runs, whatever the size, where ranks can read each other's memory."""
    if collective not in collectives or not direct:
        return made
    first = replace(made[0], most_bytes=0)
    return [first, hostprograms.HostProgram(lowered(topology, collective, root), hostprograms.LARGEST, CHUNK_BYTES, pooled=False)]


def take_way(way, monkeypatch):
    """Rank 0 of communicators made from now on plans so."""
    if way == "slots" or way in STORES:
        monkeypatch.setenv("BLINKCOLL_DIRECT", "0")
    if way in STORES:
        for ways in ("_WAYS", "_LARGE_WAYS"):
            monkeypatch.setattr(hostprograms, ways, ((STORES[way], True),))
    if way == "direct":
        monkeypatch.setattr(hostprograms, "_in_all_ways", lambda *args: with_only(COLLECTIVES, lower_direct, *args))
    if way == "both-ways":
        monkeypatch.setattr(hostprograms, "_in_all_ways", lambda *args: with_only(BOTH_WAYS, lower_both_ways, *args))
    if way == "dgx1-v100":
        monkeypatch.setenv("BLINKCOLL_TOPO", way)


def cases_of(rows):
    """(collective, op, root, inputs, in place, dtype) of each row."""
    for i, row in enumerate(rows):
        (dtype, op), collective, world = row["kind"], row["collective"], row["world"]
        op = op if collective in REDUCING else "sum"
        count = SIZES[row["size"]] // (world if collective in SHARDED else 1) * (world if collective in SHARDED else 1)
        root = i % world if collective in ROOTED else None
        inputs = make_inputs(collective, root, world, count, lambda rank, size, dtype=dtype, i=i: exact_input(dtype, rank, size, i))
        yield collective, op, root, inputs, row["in_place"], dtype


def run_case(comm, collective, op, root, inputs, in_place):
    """One call by this rank; what its output holds (empty where it has none)."""
    n, rank, mine = comm.world_size, comm.rank, inputs[comm.rank]
    some = next(a for a in inputs if a is not None)
    total = some.size * (n if collective in ("allgather", "gather") else 1)
    part = slice(rank * (total // n), (rank + 1) * (total // n))
    extra = {"op": op} | ({"factor": FACTORS[rank]} if op == "premul_sum" else {}) if collective in REDUCING else {}
    name = {"allreduce": "all_reduce", "allgather": "all_gather", "reducescatter": "reduce_scatter", "alltoall": "all_to_all"}.get(collective, collective)
    call = getattr(comm, name)
    args = (root,) if collective in ROOTED else ()
    whole = np.zeros(total, some.dtype)
    if collective == "broadcast":
        array = mine.copy() if rank == root else whole
        return call(array, root)
    if in_place:
        if collective in ("allgather", "gather") and (collective == "allgather" or rank == root):
            whole[part] = mine
            return call(whole, *args, **extra)
        if collective == "scatter":
            array = mine.copy() if rank == root else np.zeros(total // n, some.dtype)
            return call(array, root)[part if rank == root else slice(None)]
        array = mine.copy()
        call(array, *args, **extra)
        if collective == "reducescatter":
            return array[part]
        has = collective in ("allreduce", "alltoall") or rank == root
        return array if has else array[:0]
    if collective == "scatter":
        out = np.zeros(total // n, some.dtype)
        call(mine, root, out)
        return out
    out = np.zeros(total // n if collective == "reducescatter" else total, some.dtype)
    before = mine.copy()
    call(mine, *args, **extra, out=out)
    assert (mine.view(np.uint8) == before.view(np.uint8)).all(), "the input was written"
    has = collective not in ("reduce", "gather") or rank == root
    return out if has else out[:0]


@pytest.mark.parametrize(("world", "way"), sorted({(row["world"], row["way"]) for row in ROWS}))
def test_every_pair_of_choices_gives_numpys_result(world, way, tmp_path, monkeypatch):
    take_way(way, monkeypatch)
    cases = list(cases_of([row for row in ROWS if (row["world"], row["way"]) == (world, way) and row["kind"][0] != "bfloat16"]))

    def body(comm):
        return [run_case(comm, c, op, root, inputs, in_place) for c, op, root, inputs, in_place, _ in cases]

    outputs = as_threads(world, tmp_path, body)
    assert cases
    for i, (collective, op, root, inputs, in_place, dtype) in enumerate(cases):
        reduce = lambda arrays, d=dtype, o=op: reduce_exactly(d, o, arrays)  # noqa: E731
        assert_outputs(collective, root, inputs, [o[i] for o in outputs], reduce, f"{collective} {dtype} {op} world {world} in_place={in_place}")


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_read_and_write_each_others_memory(world, tmp_path, monkeypatch):
    """Threads share an address space; processes do not. Every collective, dtypes of every size, in and out of place, sums that scale."""
    take_way("direct", monkeypatch)
    kinds = [("float32", "sum"), ("float64", "avg"), ("int8", "max"), ("float16", "premul_sum"), ("int64", "bxor"), ("uint8", "prod")]
    rows = [
        {"collective": c, "kind": kinds[(i + j) % len(kinds)], "world": world, "size": size, "in_place": bool((i + j) % 2)}
        for i, c in enumerate(COLLECTIVES) for j, size in enumerate(("one", "few", "prime", "many"))
    ]  # fmt: skip
    cases = list(cases_of(rows))

    def body(comm):
        assert comm._host.direct
        ran = set()
        for collective, op, root, inputs, in_place, dtype in cases:
            got = run_case(comm, collective, op, root, inputs, in_place)
            want = expected_outputs(collective, root, inputs, lambda arrays, d=dtype, o=op: reduce_exactly(d, o, arrays))[comm.rank]
            assert want is None or (got.view(np.uint8) == want.view(np.uint8)).all(), (collective, op, dtype, in_place)
            ran.add(comm._host.program(comm._host.calls.last).algorithm)
        return ran

    for ran in as_processes(world, tmp_path, body):
        assert "direct" in ran


def test_where_memory_cannot_be_read_slots_are_used(tmp_path, monkeypatch):
    def refused(process, address, nbytes):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(_core, "read_memory", refused)
    take_way("direct", monkeypatch)
    data = np.arange(2 * 100_000, dtype=np.float32).reshape(2, -1)

    def body(comm):
        return comm._host.direct, comm.all_reduce(data[comm.rank].copy()).tobytes()

    assert as_processes(2, tmp_path, body) == [(False, data.sum(axis=0).tobytes())] * 2


def test_one_line_says_which_rank_cannot_write_anothers_memory(monkeypatch, caplog):
    monkeypatch.setattr(reach, "_try", lambda process, place: ("write", "Operation not permitted"))
    here, there = socket.socketpair()
    groups = [Group(0, 2, {1: here}), Group(1, 2, {0: there})]
    answers = {}
    threads = [threading.Thread(target=lambda g=g: answers.update({g.rank: reach.processes_within_reach(g, 5.0)})) for g in groups]
    with caplog.at_level("WARNING", "blinkcoll"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert answers == {0: None, 1: None}
    (line,) = [record.getMessage() for record in caplog.records]
    assert "rank 0 cannot write rank 0's memory: Operation not permitted" in line and "copied twice" in line


def test_the_cases_cover_all_pairs_of_choices():
    assert {row["collective"] for row in ROWS} == set(COLLECTIVES) and {row["kind"] for row in ROWS} == set(PAIRS)
    print(f"{len(ROWS)} rows cover all pairs")


def test_ranks_as_processes_agree_with_numpy(tmp_path):
    data = np.random.default_rng(3).integers(-99, 99, (3, 300_001)).astype(np.float32)

    def body(comm):
        sums = [comm.all_reduce(data[comm.rank][:count].copy()) for count in (0, 1, 1000, 300_001)]
        return [s.tobytes() for s in sums], comm.broadcast(data[comm.rank].copy(), 1).tobytes()

    for sums, sent in as_processes(3, tmp_path, body):
        assert sums == [data[:, :count].sum(axis=0).tobytes() for count in (0, 1, 1000, 300_001)]
        assert sent == data[1].tobytes()


@pytest.mark.parametrize("world", [2, 3, 8])
def test_inexact_sums_have_the_same_bits_on_all_ranks_and_in_every_run(world, tmp_path):
    data = np.random.default_rng(5).standard_normal((world, 70_001)).astype(np.float32)
    runs = [as_threads(world, tmp_path / str(i), lambda comm: comm.all_reduce(data[comm.rank].copy()).tobytes()) for i in range(2)]
    assert len(set(runs[0] + runs[1])) == 1


def test_bfloat16_bits_of_a_buffer_with_dlpack(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is an optional extra")
    data = [torch.full((1000,), 1.5, dtype=torch.bfloat16) * (rank + 1) for rank in range(2)]
    for result in as_threads(2, tmp_path, lambda comm: comm.all_reduce(data[comm.rank].clone())):
        assert result.dtype == torch.bfloat16 and (result == 4.5).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
def test_torch_tensors_are_written_in_place_and_apart(dtype, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is an optional extra")

    def body(comm):
        mine = torch.arange(600).reshape(2, 300).to(getattr(torch, dtype)) % 16 + comm.rank
        summed, swapped, gathered = mine.clone(), mine.clone(), mine.new_zeros(1200)
        assert comm.all_reduce(summed) is summed and comm.all_to_all(swapped) is swapped
        comm.all_gather(mine.t(), gathered)
        return mine, summed, swapped, gathered

    (a, *first), (b, *second) = as_threads(2, tmp_path, body)
    for rank, (summed, swapped, gathered) in enumerate((first, second)):
        assert torch.equal(summed, a + b)
        assert torch.equal(swapped, torch.stack([a[rank], b[rank]]))
        assert torch.equal(gathered, torch.cat([a.t().flatten(), b.t().flatten()]))


def test_dlpack_memory_that_numpy_takes_for_read_only_is_written_if_it_is_torchs():
    class Tensor:  # as torch before DLPack 1.0: nothing says whether it may be written
        def __init__(self, array):
            self.array, self.dtype = array, array.dtype

        def data_ptr(self):
            return self.array.ctypes.data

        def __dlpack__(self, **_):
            frozen = self.array[:]
            frozen.flags.writeable = False
            return frozen.__dlpack__(max_version=(1, 0))

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    memory = np.zeros((3, 4))[:, ::2]
    view, name = as_array(Tensor(memory), "array")
    view += 1
    assert name == "float64" and (memory == 1).all() and view.strides == memory.strides


def test_views_with_gaps_are_reduced_in_place(tmp_path):
    def body(comm):
        grid = np.arange(24.0).reshape(4, 6).copy()
        comm.all_reduce(grid[:, ::2])
        return grid

    for grid in as_threads(2, tmp_path, body):
        expected = np.arange(24.0).reshape(4, 6)
        expected[:, ::2] *= 2
        assert (grid == expected).all()


def test_a_read_only_array_is_refused(tmp_path):
    def body(comm):
        array = np.zeros(4)
        array.flags.writeable = False
        with pytest.raises(bc.ExecutionError, match="may not be written"):
            comm.all_reduce(array)

    as_threads(1, tmp_path, body)


@pytest.mark.parametrize(("array", "message"), [([1, 2], "no array"), (np.array([object()]), "plain data"), (np.zeros(3, ">f4"), "byte order")])
def test_what_is_no_array_is_refused(array, message, tmp_path):
    def body(comm):
        with pytest.raises(bc.ExecutionError, match=message):
            comm.broadcast(array, 0)

    as_threads(1, tmp_path, body)


def test_complex_numbers_are_moved_but_not_reduced(tmp_path):
    def body(comm):
        moved = comm.broadcast(np.full(9, comm.rank + 1j), 1)
        with pytest.raises(bc.ExecutionError, match="complex128 cannot be reduced"):
            comm.all_reduce(moved)
        return moved

    for moved in as_threads(2, tmp_path, body):
        assert (moved == 1 + 1j).all()


def test_calls_in_the_background_end_in_order(tmp_path):
    def body(comm):
        works = [comm.all_reduce(np.full(5000, float(i)), async_op=True) for i in range(20)]
        last = comm.all_reduce(np.full(3, 100.0))
        return [float(w.wait(20)[0]) for w in works], works[0].exception(), all(w.is_completed() for w in works), float(last[0])

    for values, error, ended, last in as_threads(3, tmp_path, body):
        assert values == [3.0 * i for i in range(20)] and error is None and ended and last == 300.0


def test_every_rank_sends_to_every_other_while_collectives_run(tmp_path):
    n = 4

    def body(comm):
        inboxes = {src: np.zeros(30_000, np.int32) for src in range(n) if src != comm.rank}
        works = [comm.recv(box, src, async_op=True) for src, box in inboxes.items()]
        works += [comm.send(np.full(30_000, comm.rank * 10 + dst, np.int32), dst, async_op=True) for dst in inboxes]
        total = comm.all_reduce(np.ones(50_000, np.int32))
        for work in works:
            work.wait(20)
        return (total == n).all() and all((box == src * 10 + comm.rank).all() for src, box in inboxes.items())

    assert all(as_threads(n, tmp_path, body))


def test_split_orders_by_key_and_leaves_out_who_has_no_colour(tmp_path):
    def body(comm):
        part = comm.split(None if comm.rank == 4 else comm.rank % 2, key=-comm.rank)
        if part is None:
            return None
        with part:
            ranks = np.zeros(part.world_size, np.int64)
            ranks[part.rank] = comm.rank
            return part.rank, list(part.all_gather(ranks))

    assert as_threads(5, tmp_path, body) == [(1, [2, 0]), (1, [3, 1]), (0, [2, 0]), (0, [3, 1]), None]


def test_programs_of_a_named_machine_run_on_host_ranks(tmp_path, monkeypatch):
    monkeypatch.setenv("BLINKCOLL_TOPO", "dgx1-v100")
    data = np.random.default_rng(1).integers(-9, 9, (5, 40_000)).astype(np.float32)

    def body(comm):
        result = comm.all_reduce(data[comm.rank].copy())
        return result, comm._host.program(comm._host.calls.last).algorithm

    for result, algorithm in as_threads(5, tmp_path, body):
        assert algorithm == "trees" and (result == data.sum(axis=0)).all()


def test_different_collectives_at_once_are_named_on_both_ranks(tmp_path):
    def body(comm):
        with pytest.raises(bc.CallMismatch) as error:
            comm.all_reduce(np.zeros(4)) if comm.rank else comm.reduce(np.zeros(4), 1)
        with pytest.raises(bc.CallMismatch, match="of no further use"):
            comm.barrier()
        return str(error.value)

    for message in as_threads(2, tmp_path, body):
        assert "rank 1 all_reduce(...)" in message and "rank 0 reduce(..., root 1)" in message


def test_as_array_names_what_it_was_given():
    with pytest.raises(bc.ExecutionError, match="a dict is no array"):
        as_array({}, "array")
