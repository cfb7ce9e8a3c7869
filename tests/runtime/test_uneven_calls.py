"""Communicators' calls of parts that differ in size, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from runtime.ranks import as_processes, as_threads

import blinkcoll as bc

ROOT = 1


def counts_of(n, largest, seed=0):
    """Corners: nothing at all, one rank has all, some have none, primes, anything."""
    rng = np.random.default_rng([n, seed])
    one = np.zeros(n, int)
    one[n - 1] = largest
    sparse = rng.integers(0, largest, n) * (np.arange(n) % 2)
    return [np.zeros(n, int), one, sparse, np.resize([2, 3, 5, 7, 11, 13, 17], n), rng.integers(0, largest, n)]


def data(rank, size, dtype=np.float32):
    return np.random.default_rng([rank, size]).integers(-99, 99, size).astype(dtype)


def parts(whole, counts):
    return np.split(whole, np.cumsum(counts)[:-1])


def check_sharded(comm, counts):
    """All-gather, reduce-scatter, gather and scatter, out of place and in place; a failed comparison says which."""
    n, rank, mine, total = comm.world_size, comm.rank, int(counts[comm.rank]), int(sum(counts))
    own = slice(int(sum(counts[:rank])), int(sum(counts[: rank + 1])))
    gathered = np.concatenate([data(r, int(c)) for r, c in enumerate(counts)])
    whole = [data(r, total) for r in range(n)]
    summed = parts(np.sum(whole, axis=0), counts)[rank]
    root = min(ROOT, n - 1)
    at_root = rank == root

    assert np.array_equal(comm.all_gather(data(rank, mine), np.zeros(total, np.float32), counts=counts), gathered), "allgather"
    array = np.zeros(total, np.float32)
    array[own] = data(rank, mine)
    assert np.array_equal(comm.all_gather(array, counts=counts), gathered), "allgather in place"

    assert np.array_equal(comm.reduce_scatter(whole[rank].copy(), "sum", np.zeros(mine, np.float32), counts=counts), summed), "reducescatter"
    assert np.array_equal(comm.reduce_scatter(whole[rank].copy(), counts=counts)[own], summed), "reducescatter in place"

    out = np.zeros(total, np.float32) if at_root else None
    comm.gather(data(rank, mine), root, out, counts=counts)
    assert not at_root or np.array_equal(out, gathered), "gather"
    array = np.zeros(total, np.float32) if at_root else data(rank, mine)
    if at_root:
        array[own] = data(rank, mine)
    comm.gather(array, root, counts=counts)
    assert not at_root or np.array_equal(array, gathered), "gather in place"

    out = np.zeros(mine, np.float32)
    comm.scatter(whole[root] if at_root else None, root, out, counts=counts)
    assert np.array_equal(out, parts(whole[root], counts)[rank]), "scatter"
    array = whole[root].copy() if at_root else np.zeros(mine, np.float32)
    comm.scatter(array, root, counts=counts)
    assert np.array_equal(array[own] if at_root else array, parts(whole[root], counts)[rank]), "scatter in place"


def check_all_to_all(comm, table, dtype=np.float32):
    """What rank a sends to rank b holds a and b in every element."""
    rank = comm.rank
    piece = lambda a, b: (np.arange(table[a][b]) % 50 + 60 * a + 7 * b).astype(dtype)  # noqa: E731
    array = np.concatenate([piece(rank, b) for b in range(comm.world_size)])
    want = np.concatenate([piece(a, rank) for a in range(comm.world_size)])
    for wanted in (None, table[:, rank]):
        out = np.zeros(want.size, dtype)
        assert comm.all_to_all(array, out, send_counts=table[rank], recv_counts=wanted) is out
        assert np.array_equal(out, want), table


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_parts_of_any_size_arrive(n, tmp_path):
    def body(comm):
        for largest in (50, 20_000):
            for counts in counts_of(n, largest):
                check_sharded(comm, counts)

    as_threads(n, tmp_path, body)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_pieces_of_any_size_arrive(n, tmp_path):
    def body(comm):
        for largest in (50, 5000):
            for seed in range(2):
                for rows in zip(*(counts_of(n, largest, [seed, r]) for r in range(n)), strict=True):
                    check_all_to_all(comm, np.array(rows))

    as_threads(n, tmp_path, body)


def test_sizes_at_which_ranks_read_each_others_memory(tmp_path):
    counts = [(3 << 18) + 1, 0, 2 << 18]

    def body(comm):
        check_sharded(comm, [400_001, 0, 300_000])
        ran = set()
        for turn in range(12):
            part, out = np.arange(counts[comm.rank], dtype=np.float32) % 1000 + comm.rank + turn, np.zeros(sum(counts), np.float32)
            comm.all_gather(part, out, counts=counts)
            assert (out == np.concatenate([np.arange(c) % 1000 + r + turn for r, c in enumerate(counts)])).all()
            ran.add(comm._host.program(comm._host.calls.last).algorithm)
        return comm._host.direct, ran

    results = as_processes(3, tmp_path, body)
    if not all(direct for direct, _ in results):
        pytest.skip("ranks cannot read each other's memory here; the results were checked")
    assert all("direct" in ran for _, ran in results)


def test_equal_and_unequal_calls_take_turns(tmp_path):
    def body(comm):
        for i in range(3):
            check_sharded(comm, [3 + i, 0, 1000])
            assert comm.all_gather(np.full(5, float(comm.rank)), np.zeros(15)).tolist() == [0.0] * 5 + [1.0] * 5 + [2.0] * 5
            check_all_to_all(comm, np.arange(9).reshape(3, 3) * i)
            assert comm.all_to_all(np.arange(3.0) + 10 * comm.rank).tolist() == [comm.rank, 10.0 + comm.rank, 20.0 + comm.rank]

    as_threads(3, tmp_path, body)


def test_other_dtypes_and_background_calls(tmp_path):
    def body(comm):
        check_all_to_all(comm, np.array([[1, 2], [300, 4]]), np.complex128)
        works = [comm.all_gather(np.full(comm.rank + i, i, np.int16), np.zeros(1 + 2 * i, np.int16), counts=[i, 1 + i], async_op=True) for i in range(10)]
        assert all((work.wait(20) == i).all() for i, work in enumerate(works))
        mean = comm.reduce_scatter(np.arange(3.0) * (comm.rank + 1), "avg", np.zeros((2, 1)[comm.rank]), counts=[2, 1])
        assert mean.tolist() == ([0.0, 1.5], [3.0])[comm.rank]

    as_threads(2, tmp_path, body)


def test_named_machines_programs_take_unequal_parts(tmp_path, monkeypatch):
    monkeypatch.setenv("BLINKCOLL_TOPO", "dgx1-v100")

    def body(comm):
        check_sharded(comm, [5, 0, 70_000])
        check_all_to_all(comm, np.array([[0, 9000, 1], [2, 0, 0], [30_000, 5, 6]]))

    as_threads(3, tmp_path, body)


def refused_everywhere(n, tmp_path, call):
    """The errors' words, on all ranks, after which the communicator still works."""

    def body(comm):
        with pytest.raises(bc.ExecutionError) as error:
            call(comm)
        assert float(comm.all_reduce(np.ones(1))[0]) == n
        return str(error.value)

    return as_threads(n, tmp_path, body)


def test_counts_that_differ_are_named_on_all_ranks(tmp_path):
    told = refused_everywhere(3, tmp_path, lambda comm: comm.all_gather(np.zeros(2), np.zeros(6), counts=[2, 2, 2 + (comm.rank == 2)]))
    assert told == ["allgather: rank 0 was called with counts [2, 2, 2], rank 2 with [2, 2, 3]"] * 3


def test_a_piece_that_is_not_what_the_other_wants_is_named_on_all_ranks(tmp_path):
    def call(comm):
        comm.all_to_all(np.zeros(4), np.zeros(4), send_counts=[2, 2], recv_counts=[2, 2] if comm.rank == 0 else [1, 3])

    assert refused_everywhere(2, tmp_path, call) == ["all_to_all: rank 0 sends 2 elements to rank 1, which wants 1"] * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda comm: comm.all_gather(np.zeros(1), np.zeros(2), counts=[1]), "expected 2 numbers of elements"),
        (lambda comm: comm.reduce_scatter(np.zeros(1), counts=[2, -1]), "none negative"),
        (lambda comm: comm.scatter(np.zeros(1), 0, counts=[1.5, 1]), "none negative"),
        (lambda comm: comm.all_to_all(np.zeros(2), send_counts=[1, 1]), "out is needed"),
        (lambda comm: comm.all_to_all(np.zeros(2), np.zeros(2), recv_counts=[1, 1]), "without send_counts"),
        (lambda comm: comm.all_gather(np.zeros(7), np.zeros(4), counts=[2, 2]), "array has 7 elements, counts say 2"),
        (lambda comm: comm.all_to_all(np.zeros(2), np.zeros(5), send_counts=[1, 1]), "out has 5 elements, counts say 2"),
    ],
)
def test_what_does_not_fit_is_told(call, message, tmp_path):
    assert all(message in told for told in refused_everywhere(2, tmp_path, call))


@pytest.mark.parametrize(("n", "size"), [(2, 65), (2, 40_001), (3, 9_001), (8, 4_097)])
def test_elements_may_be_larger_than_slots(n, size, tmp_path):
    """Sixteen of an odd size are the fewest that end where 16 bytes do."""
    each, counts = 20, [3 * r % 7 for r in range(n)]

    def made(rank, count):
        return np.random.default_rng([rank, count]).integers(0, 256, count * size, np.uint8).view(f"V{size}")

    def same(got, wanted):
        return got.tobytes() == b"".join(part.tobytes() for part in wanted)

    def body(comm):
        r, parts = comm.rank, [made(rank, each) for rank in range(n)]
        for _ in range(3):
            assert same(comm.all_gather(parts[r], np.zeros(n * each, f"V{size}")), parts)
            assert same(comm.broadcast(made(r, 5), n - 1), [made(n - 1, 5)])
            own = np.zeros(counts[r], f"V{size}")
            comm.scatter(made(0, sum(counts)) if r == 0 else None, 0, own, counts=counts)
            assert same(own, [made(0, sum(counts))[sum(counts[:r]) : sum(counts[: r + 1])]])
            swapped = comm.all_to_all(made(r, n * 2), np.zeros(n * 2, f"V{size}"))
            assert same(swapped, [made(rank, n * 2)[2 * r : 2 * r + 2] for rank in range(n)])
            pieces = comm.all_to_all(made(r, sum(counts)), np.zeros(counts[r] * n, f"V{size}"), send_counts=counts)
            assert same(pieces, [made(rank, sum(counts))[sum(counts[:r]) : sum(counts[: r + 1])] for rank in range(n)])
        if r < 2:
            got = np.zeros(4, f"V{size}")
            comm.send(made(9, 4), 1) if r == 0 else comm.recv(got, 0)
            assert r == 0 or same(got, [made(9, 4)])
        with pytest.raises(bc.ExecutionError, match="counts"):
            comm.all_gather(parts[r], np.zeros(n * each, f"V{size}"), counts=[each + 1] * n)

    as_threads(n, tmp_path, body)


@pytest.mark.parametrize("dtype", ["float32", "V3", "V65"])
def test_what_does_not_divide_among_ranks_is_refused(dtype, tmp_path):
    def body(comm):
        for call in (comm.all_gather, comm.reduce_scatter, comm.all_to_all, lambda a: comm.all_to_all(a, a.copy())):
            if dtype == "float32" or call != comm.reduce_scatter:
                with pytest.raises(bc.ExecutionError, match="7 elements are no equal parts for 2 ranks"):
                    call(np.zeros(7, dtype))
        return comm.all_gather(np.full(2, comm.rank)).tolist()

    assert [sorted(got) for got in as_threads(2, tmp_path, body)] == [[0, 1]] * 2


def test_elements_of_other_sizes_of_as_many_bytes_arrive(tmp_path):
    """They are only moved; 480 KB in ten chunks or more."""
    data = np.random.default_rng(1).integers(0, 256, 480_000, np.uint8)

    def body(comm):
        got = []
        for _ in range(120):
            array = data.copy() if comm.rank == 0 else np.zeros_like(data)
            comm.broadcast(array.view("V48" if comm.rank == 0 else "V96"), 0)
            got.append((array == data).all())
        return all(got)

    assert as_processes(2, tmp_path, body) == [True, True]
