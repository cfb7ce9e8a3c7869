"""The partition: exact cover, disjoint, aligned, and its cut into shares independent of the chunk size."""

from __future__ import annotations

from itertools import accumulate
from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkcoll._core import Partition

WEIGHTS = st.lists(st.integers(0, 1 << 20), min_size=1, max_size=9).filter(any)


@given(count=st.integers(0, 5000), elem_size=st.integers(1, 24), nshards=st.integers(1, 9), weights=WEIGHTS, chunk_bytes=st.integers(1, 4096))
def test_chunks_tile_the_buffer_exactly(count, elem_size, nshards, weights, chunk_bytes):
    partition = Partition(count, elem_size, nshards, weights, chunk_bytes)
    unit = 16 // gcd(16, elem_size)
    owners = [0] * count
    for shard in range(nshards):
        for share in range(len(weights)):
            for iteration in range(partition.iterations(share)):
                offset, length = partition.chunk_range(shard, share, iteration)
                assert 0 <= offset <= offset + length <= count
                assert length <= partition.chunk_elements
                assert length * elem_size <= max(chunk_bytes, unit * elem_size)
                assert length == 0 or offset % unit == 0, "chunks start at 16-byte boundaries"
                for i in range(offset, offset + length):
                    owners[i] += 1
            assert partition.chunk_range(shard, share, partition.iterations(share))[1] == 0, "nothing is left after the last iteration"
    assert owners == [1] * count


def test_shares_of_many_chunks_have_chunks_of_different_sizes():
    """Channels of one link then drift apart, rather than synchronise all at once; never by more than a ninth, and slots hold any."""
    count, chunk_bytes = 8 * 300_000, 1 << 14
    many, few = (Partition(n, 4, 1, [1] * 8, chunk_bytes) for n in (count, 8 * 63 * chunk_bytes // 4))
    sizes = [many.chunk_range(0, share, 0)[1] for share in range(8)]
    assert len(set(sizes)) == 8 and sizes[0] == many.chunk_elements and min(sizes) > 0.89 * sizes[0]
    assert {few.chunk_range(0, share, 0)[1] for share in range(8)} == {few.chunk_elements}, "an iteration more would be much"


@given(count=st.integers(0, 1 << 40), elem_size=st.sampled_from([1, 2, 4, 8, 16]), nshards=st.integers(1, 64), weights=WEIGHTS)
def test_shares_follow_their_weights_at_any_size(count, elem_size, nshards, weights):
    partition = Partition(count, elem_size, nshards, weights, 1 << 20)
    unit = 16 // elem_size
    at = 0
    for shard in range(nshards):
        for share, weight in enumerate(weights):
            offset, length = partition.share_range(shard, share)
            assert length == 0 or offset == at
            at = offset + length
            assert abs(length - count * weight / (nshards * sum(weights))) <= 3 * unit + 1e-9 * count
    assert at == count


@given(count=st.integers(0, 100_000), nshards=st.integers(1, 8), weights=WEIGHTS, a=st.integers(1, 9999), b=st.integers(1, 9999))
def test_the_chunk_size_moves_no_element_to_another_share(count, nshards, weights, a, b):
    first, second = (Partition(count, 4, nshards, weights, chunk_bytes) for chunk_bytes in (a, b))
    for shard in range(nshards):
        for share in range(len(weights)):
            assert first.share_range(shard, share) == second.share_range(shard, share)


SHARDS = st.lists(st.one_of(st.just(0), st.integers(0, 2000)), min_size=1, max_size=9)


@given(counts=SHARDS, elem_size=st.integers(1, 24), weights=WEIGHTS, chunk_bytes=st.integers(1, 4096))
def test_chunks_tile_unequal_shards_exactly(counts, elem_size, weights, chunk_bytes):
    bounds = [0, *accumulate(counts)]
    partition = Partition(bounds[-1], elem_size, len(counts), weights, chunk_bytes, True, bounds)
    unit, owners = 16 // gcd(16, elem_size), [0] * bounds[-1]
    for shard in range(len(counts)):
        for share in range(len(weights)):
            for iteration in range(partition.iterations(share)):
                offset, length = partition.chunk_range(shard, share, iteration)
                assert bounds[shard] <= offset <= offset + length <= bounds[shard + 1]
                assert length <= partition.chunk_elements and (length == 0 or (offset - bounds[shard]) % unit == 0)
                for i in range(offset, offset + length):
                    owners[i] += 1
    assert owners == [1] * bounds[-1]


@given(size=st.integers(0, 1 << 36), n=st.integers(1, 9), elem_size=st.sampled_from([1, 2, 4, 8, 16]), weights=WEIGHTS)
def test_a_table_of_equal_shards_is_no_table(size, n, elem_size, weights):
    even = Partition(size * n, elem_size, n, weights, 1 << 20, True)
    table = Partition(size * n, elem_size, n, weights, 1 << 20, True, [size * shard for shard in range(n + 1)])
    for shard in range(n):
        for share in range(len(weights)):
            assert even.share_range(shard, share) == table.share_range(shard, share)


@pytest.mark.parametrize("bounds", [[0, 5], [1, 5, 9], [0, 5, 8], [0, 10, 9]])
def test_tables_that_cut_nothing_are_refused(bounds):
    with pytest.raises(ValueError, match="bounds must"):
        Partition(9, 4, 2, [1], 16, True, bounds)
    with pytest.raises(ValueError, match="only shards that are the caller's"):
        Partition(9, 4, 2, [1], 16, False, [0, 5, 9])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0, 1, [1], 16), "elem_size"),
        ((1, 4, 0, [1], 16), "nshards"),
        ((1, 4, 1, [], 16), "weights"),
        ((1, 4, 1, [0, 0], 16), "sum must be positive"),
        ((1, 4, 1, [1 << 30, 1 << 30], 16), "below 2\\^31"),
        (((1 << 40) + 1, 4, 1, [1], 16), "2\\^40"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Partition(*arguments)


def test_a_shard_or_share_that_is_not_there_is_an_index_error():
    with pytest.raises(IndexError):
        Partition(10, 4, 2, [1, 1], 16).chunk_range(2, 0, 0)
    with pytest.raises(IndexError):
        Partition(10, 4, 2, [1, 1], 16).iterations(2)
