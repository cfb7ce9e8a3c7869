"""Large arrays: by reading (and writing) where they lie in huge pages on all ranks, else through slots."""

from __future__ import annotations

import mmap
import platform
import re
from pathlib import Path

import numpy as np
import pytest
from runtime.ranks import as_processes, as_threads

NBYTES = 24 << 20
HUGE = 2 << 20


def array_in(huge: bool, nbytes: int = NBYTES, small_end: int = 0):
    """float32 zeros in pages of that kind (as far as the kernel has such); in small ones at the end."""
    memory = mmap.mmap(-1, nbytes + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    begin = -whole.ctypes.data % HUGE
    if small_end:
        memory.madvise(mmap.MADV_NOHUGEPAGE, begin + nbytes - small_end)
    array = whole[begin:][:nbytes].view(np.float32)
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


def ran(comm, huge: bool):
    """Which programs serve an all-gather in place, one of parts that differ, and an all-to-all; and whether pages were as asked for."""
    array, part, out = array_in(huge), array_in(huge, NBYTES // 2), array_in(huge)
    as_asked = as_asked_for(huge, array, part, out)
    n, r, found = comm.world_size, comm.rank, []

    def last():
        return comm._host.program(comm._host.calls.last).algorithm

    for turn in range(2):
        array[:] = 0
        array.reshape(n, -1)[r] = r + 1 + turn
        comm.all_gather(array)
        found.append(last())
        assert (array.reshape(n, -1) == np.arange(1, n + 1)[:, None] + turn).all()
    counts = [part.size, part.size - 4096]
    comm.all_gather(part[: counts[r]] + np.float32(7), out[: sum(counts)], counts=counts)
    assert (out[: sum(counts)] == 7).all()
    array.reshape(n, -1)[:] = 10 * r + np.arange(n)[:, None]
    comm.all_to_all(array, out)
    found.append(last())
    assert (out.reshape(n, -1) == 10 * np.arange(n)[:, None] + r).all()
    return comm._host.direct, as_asked, found


def ran_from_a_root(comm, huge: bool):
    """The same of broadcasts, gathers and scatters from and to rank 1."""
    array, part = array_in(huge, 8 << 20), array_in(huge, 4 << 20)
    as_asked = as_asked_for(huge, array, part)
    half, r, found = array.size // 2, comm.rank, []

    def last():
        """One share: all is read, as it may be where only what is sent lies in huge pages."""
        program = comm._host.program(comm._host.calls.last)
        return program.algorithm if len(program.weights) > 1 else None

    for turn in range(2):
        array[:] = np.arange(array.size) % 1013 if r == 1 else 0
        comm.broadcast(array, 1)
        found.append(last())
        assert (array == np.arange(array.size) % 1013).all()
        part[:] = 10 * turn + r
        gathered = comm.gather(part, 1, array if r == 1 else None)
        found.append(last())
        if r == 1:
            assert (gathered[:half] == 10 * turn).all() and (gathered[half:] == 10 * turn + 1).all()
            array[:half], array[half:] = turn, turn + 1
        comm.scatter(array if r == 1 else None, 1, part)
        found.append(last())
        assert (part == turn + r).all()
    counts = [half - 5000, half - 1]
    part[:] = 1 + 2 * r
    gathered = comm.gather(part[: counts[r]], 1, array[: sum(counts)] if r == 1 else None, counts=counts)
    found.append(last())
    if r == 1:
        assert (gathered[: counts[0]] == 1).all() and (gathered[counts[0] :] == 3).all()
        array[: counts[0]], array[counts[0] :] = 7, 9
    comm.scatter(array[: sum(counts)] if r == 1 else None, 1, part[: counts[r]], counts=counts)
    found.append(last())
    assert (part[: counts[r]] == 7 + 2 * r).all()
    comm.broadcast(array_in(huge, 1 << 20), 1)
    small = last()
    large = array_in(huge, 24 << 20)  # through slots where the cores share a cache
    large[:] = np.arange(large.size) % 1009 if r == 1 else 0
    comm.broadcast(large, 1)
    assert (large == np.arange(large.size) % 1009).all()
    return comm._host.direct, as_asked, found, small


def can_tell() -> bool:
    return tuple(map(int, platform.release().split("-")[0].split(".")[:2])) >= (6, 7)


@pytest.mark.skipif(not can_tell(), reason="PAGEMAP_SCAN came with Linux 6.7")
@pytest.mark.parametrize("pages", ["huge", "small", "huge on rank 0"])
def test_pages_decide_which_program_runs(pages, tmp_path):
    results = as_processes(2, tmp_path, lambda comm: ran(comm, pages == "huge" or (pages != "small" and comm.rank == 0)))
    if not all(direct for direct, _, _ in results):
        pytest.skip("ranks cannot read each other's memory here")
    if not all(as_asked for _, as_asked, _ in results):
        pytest.skip("the kernel has no huge pages to give")
    for _, _, found in results:
        assert [name == "direct" for name in found] == [pages == "huge"] * 3


@pytest.mark.skipif(not can_tell(), reason="PAGEMAP_SCAN came with Linux 6.7")
@pytest.mark.parametrize(("small_end", "runs"), [(0, "both-ways"), (2 << 20, "both-ways"), (6 << 20, "trees")])
def test_two_ranks_share_the_copying_of_arrays_that_lie_partly_in_huge_pages(small_end, runs, tmp_path):
    """As numpy's of a few MiB do, whose ends are small pages. At 6 of 8 MiB in small ones slots serve."""

    def body(comm):
        array, n, r, found = array_in(True, 8 << 20, small_end), comm.world_size, comm.rank, []
        for turn in range(3):
            array[:] = 0
            array.reshape(n, -1)[r] = np.arange(array.size // n) % 1009 + r + turn
            comm.all_gather(array)
            found.append(comm._host.program(comm._host.calls.last).algorithm)
            for rank, part in enumerate(array.reshape(n, -1)):
                assert (part == np.arange(part.size) % 1009 + rank + turn).all()
        return comm._host.direct, abs(huge_bytes(array) + small_end - array.nbytes) <= HUGE // 2, found

    results = as_processes(2, tmp_path, body)
    if not all(direct for direct, *_ in results):
        pytest.skip("ranks cannot read each other's memory here")
    if not all(as_asked for _, as_asked, _ in results):
        pytest.skip("the kernel has no huge pages to give")
    for _, _, found in results:
        assert found == [runs] * 3


@pytest.mark.skipif(not can_tell(), reason="PAGEMAP_SCAN came with Linux 6.7")
@pytest.mark.parametrize("pages", ["huge", "small", "huge on rank 0", "huge on rank 1"])
def test_two_ranks_copy_both_ways_in_huge_pages(pages, tmp_path):
    results = as_processes(2, tmp_path, lambda comm: ran_from_a_root(comm, pages == "huge" or pages == f"huge on rank {comm.rank}"))
    if not all(direct for direct, *_ in results):
        pytest.skip("ranks cannot read each other's memory here")
    if not all(as_asked for _, as_asked, *_ in results):
        pytest.skip("the kernel has no huge pages to give")
    for _, _, found, small in results:
        assert [name == "both-ways" for name in found] == [pages == "huge"] * 8
        assert small != "both-ways"


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
