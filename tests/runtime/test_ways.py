"""Large calls that may go several ways: each is tried, the fastest is kept, and results are the same whichever it is."""

from __future__ import annotations

import mmap
import platform
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime.ranks import as_processes, as_threads

from blinkcoll import _core
from blinkcoll.runtime import hostprograms

HUGE = 2 << 20
MIB = 1 << 20


def array_in(huge: bool, nbytes: int):
    """float32 zeros in pages of that kind (as far as the kernel has such)."""
    memory = mmap.mmap(-1, nbytes + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    array = whole[-whole.ctypes.data % HUGE :][:nbytes].view(np.float32)
    array[:] = 0
    return array


def huge_bytes(array) -> int:
    """In anonymous huge pages, of the mappings that an array lies in."""
    found, begin = 0, array.ctypes.data
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if place := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(place[1], 16) < begin + array.nbytes and begin < int(place[2], 16)
        elif inside and line.startswith("AnonHugePages"):
            found += int(line.split()[1]) << 10
    return found


def as_asked_for(huge: bool, *arrays) -> bool:
    """Whether they lie in pages of that kind."""
    return all(huge_bytes(array) >= array.nbytes // HUGE * HUGE if huge else huge_bytes(array) == 0 for array in arrays)


# -- choosing --------------------------------------------------------------------------------------------------------------


def spend(choice, costs, calls, rng, noise=0.1, run=1):
    """What calls cost in all, each way costing so much, give or take some noise."""
    spent = 0.0
    for _ in range(0, calls, run):
        cost = costs[choice.way] * (1 + noise * rng.random())
        choice.learn(round(cost), run)
        spent += cost * run
    return spent


COSTS = st.lists(st.integers(1000, 20_000), min_size=2, max_size=9)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(COSTS, st.integers(0, 1 << 30), st.sampled_from([1, 16, 64]), st.booleans())
def test_calls_cost_little_more_than_if_all_went_the_best_way(costs, seed, run, large):
    choice, rng = _core.Choice(len(costs), large and run == 1), random.Random(seed)
    seen = set()
    for _ in range(3 * len(costs)):
        seen.add(choice.way)
        spend(choice, costs, run, rng, run=run)
    assert seen == set(range(len(costs))), "some way was never tried"
    calls = 4000 * run
    assert spend(choice, costs, calls, rng, run=run) <= 1.2 * calls * min(costs)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(COSTS, st.randoms(use_true_random=False), st.integers(0, 1 << 30), st.booleans())
def test_a_machine_that_changes_is_followed(costs, shuffle, seed, large):
    """Also one on which what was worst, and not looked at since, is now best."""
    choice, rng = _core.Choice(len(costs), large), random.Random(seed)
    changed = [4 * cost for cost in costs]
    shuffle.shuffle(changed)
    for now in (costs, changed, costs):
        spend(choice, now, 12_000, rng)
        assert spend(choice, now, 2000, rng) <= 1.25 * 2000 * min(now)


def test_one_call_that_was_interrupted_changes_nothing():
    choice, costs = _core.Choice(3), [300, 100, 200]
    for _ in range(1000):
        choice.learn(costs[choice.way], 1)
    assert choice.way == 1 and choice.cost == 100
    choice.learn(1_000_000, 1)
    others = 0
    for _ in range(50):
        others += choice.way != 1
        choice.learn(costs[choice.way], 1)
    assert others <= 4, "more than were due in any case"


@pytest.mark.parametrize(("large", "second", "calls"), [(False, 399, 2), (False, 400, 1), (True, 149, 2), (True, 150, 1)])
def test_a_hopeless_way_is_tried_with_one_call(large, second, calls):
    """Four times the best so far, or half as much again where one call fills the caches."""
    choice = _core.Choice(2, large)
    while choice.way == 0:
        choice.learn(100, 1)
    made = 0
    while choice.way == 1 and choice.cost == 0:
        choice.learn(second, 1)
        made += 1
    assert made == calls


@pytest.mark.parametrize("first", [1, 10])
def test_what_is_known_of_other_sizes_is_tried_first_and_not_believed(first):
    """Where the order is the same one way is tried, where it is not all that might be better; a slow first call changes little."""
    known = _core.Choice(4)
    while known.cost == 0:
        known.learn([300, 100, 200, 400][known.way], 1)
    alike = known.of_others()
    assert alike.way == 1
    alike.learn(150 * first, 1)
    seen = set()
    while alike.cost == 0:
        seen.add(alike.way)
        alike.learn([450, 150, 300, 600][alike.way], 1)
    assert alike.way == 1 and (seen == {1} or first > 1)
    for likely, most in ((False, 100), (True, 2000)):
        other = known.of_others(likely)
        calls = 0
        while other.way != 3 or other.cost == 0:
            other.learn([500, 400, 450, 100][other.way], 1)
            calls += 1
        assert calls < most


# -- communicators ---------------------------------------------------------------------------------------------------------


def check(comm, collective, nbytes, turn, arrays=None):
    """One call on new data, whole numbers of which any part tells where it is from; and what program it ran."""
    n, r = comm.world_size, comm.rank
    count = nbytes // 4 // n * n
    whole, out, part = arrays or (np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count // n, np.float32))
    places, shard = np.arange(count, dtype=np.float32) % 1013, slice(r * count // n, (r + 1) * count // n)
    owners = np.repeat(np.arange(n, dtype=np.float32), count // n)

    def data(rank):
        return places + np.float32(7 * rank + turn)

    summed, gathered = n * places + np.float32(7 * n * (n - 1) // 2 + n * turn), places + 7 * owners + np.float32(turn)
    whole[:] = data(r)
    if collective == "broadcast":
        assert (comm.broadcast(whole, n - 1) == data(n - 1)).all()
    elif collective == "allreduce":
        assert (comm.all_reduce(whole) == summed).all()
    elif collective == "reduce":
        comm.reduce(whole, 0, out=out)
        assert r or (out == summed).all()
    elif collective == "reducescatter":
        assert (comm.reduce_scatter(whole, out=part) == summed[shard]).all()
    elif collective == "allgather":
        assert (comm.all_gather(whole) == gathered).all()
    elif collective == "gather":
        part[:] = whole[shard]
        comm.gather(part, 0, out if r == 0 else None)
        assert r or (out == gathered).all()
    elif collective == "scatter":
        comm.scatter(whole if r == 0 else None, 0, part)
        assert (part == data(0)[shard]).all()
    else:
        comm.all_to_all(whole, out)
        mine = np.tile(places[shard], n)
        assert (out == mine + 7 * owners + np.float32(turn)).all()
    return comm._host.program(comm._host.calls.last).hash


def trial_calls(comm, nbytes):
    """Of a way, at most."""
    once = max(1, (8 << 20) // nbytes)
    return 3 * min(once, 32) if comm._host.waiting.crowded else min(once, 256) + 3


ROOTS = {"broadcast": -1, "reduce": 0, "gather": 0, "scatter": 0}


@pytest.mark.parametrize(
    ("collective", "world"),
    [(c, 2) for c in ("allreduce", "reduce", "reducescatter", "broadcast", "allgather", "gather", "scatter", "alltoall")] + [("allreduce", 3), ("alltoall", 3)],
)
def test_every_way_is_tried_and_gives_the_same(collective, world, tmp_path):
    """With sizes of every set of ways; all ranks go the same way each time."""
    sizes = [300_000, 8 * MIB + 24] + [40_000] * (collective == "broadcast")

    def body(comm):
        root, largest = ROOTS.get(collective), max(sizes)
        memory = [array_in(False, nbytes) for nbytes in (largest, largest, largest)]
        parts = hostprograms.programs_for(comm._host.topology, collective, root if root is None else root % world, direct=comm._host.direct)
        ran, expected = [], []
        for nbytes in sizes:
            least = next(part.most_bytes for part in parts if nbytes <= part.most_bytes)
            ways = [part for part in parts if part.most_bytes == least]
            expected.append({part.program.hash for part in ways})
            count = nbytes // 4 // world * world
            arrays = memory[0][:count], memory[1][:count], memory[2][: count // world]
            ran.append([check(comm, collective, nbytes, turn, arrays) for turn in range(len(ways) * trial_calls(comm, nbytes) + 1)])
        return ran, expected

    results = as_processes(world, tmp_path, body)
    for ran, expected in results:
        assert ran == results[0][0], "ranks did not go the same ways"
        assert [set(hashes) for hashes in ran] == expected


@pytest.mark.parametrize("world", [2, 3, 5, 8])
def test_inexact_sums_have_the_same_bits_whichever_way_they_go(world, tmp_path):
    """Of every type, averages, and where each rank has a factor, which not all programs can do."""
    data = [np.random.default_rng([world, rank]).standard_normal(100_001) for rank in range(world)]
    kinds = [("float64", "sum"), ("float32", "avg"), ("float16", "sum"), ("float32", "premul_sum")]  # of 200 KB and more

    def body(comm):
        bits, ran = [set() for _ in kinds], [set() for _ in kinds]
        parts = hostprograms.programs_for(comm._host.topology, "allreduce", None, direct=True)
        ways = max(sum(part.most_bytes == other.most_bytes for other in parts) for part in parts)
        for _ in range(ways * trial_calls(comm, 2 * data[0].size)):
            for i, (dtype, op) in enumerate(kinds):
                mine = data[comm.rank].astype(dtype)
                comm.all_reduce(mine, op, **({"factor": 0.3 + comm.rank} if op == "premul_sum" else {}))
                bits[i].add(mine.tobytes())
                ran[i].add(comm._host.program(comm._host.calls.last).algorithm)
        return [len(of) for of in bits], ran[:3], ran[3]

    results = as_threads(world, tmp_path, body)
    for counts, plain, scaled in results:
        assert counts == [1] * len(kinds)
        assert all("direct" in ran for ran in plain) or world == 2
        assert "direct" not in scaled


def test_without_tuning_calls_of_a_size_all_go_one_way(tmp_path, monkeypatch):
    monkeypatch.setenv("BLINKCOLL_TUNE", "0")
    for ran in as_processes(2, tmp_path, lambda comm: [{check(comm, c, 2 * MIB, turn) for turn in range(12)} for c in ("broadcast", "allgather", "alltoall")]):
        assert [len(hashes) for hashes in ran] == [1, 1, 1]


@pytest.mark.parametrize("world", [2, 3])
def test_input_and_output_may_touch_each_other(world, tmp_path):
    """As one array, which not all programs of an all-to-all can do with, or a little apart."""
    count = 60_000 * world

    def body(comm):
        n, r, ran = comm.world_size, comm.rank, set()
        for turn in range(120):
            memory = np.empty(count + 1000, np.float32)
            whole, behind = memory[:count], memory[1000:]
            whole[:] = np.arange(count) + turn + r
            comm.all_to_all(whole, whole)
            ran.add(comm._host.program(comm._host.calls.last).algorithm)
            shard = np.arange(count, dtype=np.float32)[r * count // n : (r + 1) * count // n] + turn
            assert (whole.reshape(n, -1) == shard + np.arange(n, dtype=np.float32)[:, None]).all()
            whole[:] = np.arange(count) + turn + r
            comm.all_to_all(whole, behind)
            assert (behind.reshape(n, -1) == shard + np.arange(n, dtype=np.float32)[:, None]).all()
            whole[:] = turn + r
            assert (comm.all_reduce(whole, out=behind) == n * turn + n * (n - 1) // 2).all()
        return comm._host.direct, ran

    for direct, ran in as_processes(world, tmp_path, body):
        assert "direct" in ran or not direct


def can_tell() -> bool:
    return tuple(map(int, platform.release().split("-")[0].split(".")[:2])) >= (6, 7)


@pytest.mark.skipif(not can_tell(), reason="PAGEMAP_SCAN came with Linux 6.7")
@pytest.mark.parametrize("rank", [0, 1])
def test_what_was_learned_of_huge_pages_is_not_believed_of_small_ones(rank, tmp_path):
    """Calls on arrays in other pages, on one rank, begin with what was best in these; the others are tried soon, those that were far worse, too."""
    nbytes = 9 * MIB // HUGE * HUGE

    def body(comm):
        huge, small = ([array_in(kind, size) for size in (nbytes, nbytes, nbytes // 2)] for kind in (True, False))
        as_asked = as_asked_for(True, huge[0]) and as_asked_for(False, small[0])
        ran = [check(comm, "allgather", nbytes, turn, huge) for turn in range(16)]
        of_small: set[str] = set()
        for turn in range(400):
            if len(of_small) < 3:
                of_small.add(check(comm, "allgather", nbytes, turn, small if comm.rank == rank else huge))
        return comm._host.direct and as_asked, set(ran), of_small

    results = as_processes(2, tmp_path, body)
    if not all(able for able, *_ in results):
        pytest.skip("ranks cannot read each other's memory here, or there are no huge pages; the results were checked")
    for _, of_huge, of_small in results:
        assert len(of_huge) == 3 and of_small == of_huge


@pytest.mark.parametrize("offset", [0, 1, 16, 63, 64, 4033, 4064, 4080, 4095])
def test_results_are_the_same_wherever_in_their_pages_arrays_begin(offset, tmp_path):
    """Slots begin with a page; some distances are copied another way (csrc/host/put.h)."""

    def at(values):
        memory = np.zeros(values.nbytes + 8192, np.uint8)
        placed = memory[-memory.ctypes.data % 4096 + offset :][: values.nbytes]
        placed[:] = values
        return placed

    def body(comm):
        n, r = comm.world_size, comm.rank
        for count in (n * 9_000, n * 123_457):
            inputs = [np.random.default_rng([count, rank]).integers(0, 256, count, np.uint8) for rank in range(n)]
            mine, shard = inputs[r], slice(r * count // n, (r + 1) * count // n)
            for _ in range(2):
                assert (comm.all_reduce(at(mine), "bxor") == np.bitwise_xor.reduce(inputs)).all()
                assert (comm.all_gather(at(mine), at(np.zeros(n * count, np.uint8))) == np.concatenate(inputs)).all()
                assert (comm.broadcast(at(mine), n - 1) == inputs[n - 1]).all()
                assert (comm.reduce_scatter(at(mine), "bxor", at(np.zeros(count // n, np.uint8))) == np.bitwise_xor.reduce(inputs)[shard]).all()
                assert (comm.all_to_all(at(mine), at(np.zeros(count, np.uint8))) == np.concatenate([a[shard] for a in inputs])).all()

    as_threads(2, tmp_path / "2", body)
    as_threads(3, tmp_path / "3", body)
