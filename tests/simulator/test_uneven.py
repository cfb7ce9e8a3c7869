"""Calls whose shards are of unequal size, simulated by the tables that they are launched with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blinkcoll as bc
from blinkcoll.errors import SimulationError

FOUR = bc.load_topology("dgx1-v100").subset([0, 1, 2, 3])
THREE = bc.load_topology("dgx1-v100").subset([0, 1, 4])
SHARDED = ("allgather", "reducescatter", "gather", "scatter", "alltoall")


def program_of(topology, collective, **options):
    root = 1 if collective in ("gather", "scatter") else None
    return bc.plan(topology, collective, root=root).schedule(nbytes=1 << 24, uneven=True, **options)


@pytest.mark.parametrize("collective", SHARDED)
@pytest.mark.parametrize("protocol", ["simple", "LL", "LL128"])
def test_equal_counts_are_the_equal_call(collective, protocol):
    program = program_of(FOUR, collective, protocol=protocol)
    each = 1 << 16
    counts = [[each] * 4] * 4 if collective == "alltoall" else [each] * 4
    total = each * program.nshards
    told, equal = bc.simulate(program, counts=counts), bc.simulate(program, 4 * total)
    assert told == equal and told.nbytes == 4 * total
    assert bc.simulate(program, 8 * total, counts=np.array(counts), elem_size=8).nbytes == 8 * total


def test_pieces_of_one_size_have_the_busbw_of_an_all_to_all():
    even = bc.plan(FOUR, "alltoall").schedule(nbytes=1 << 24, protocol="simple")
    told = bc.simulate(program_of(FOUR, "alltoall", protocol="simple"), counts=[[1 << 18] * 4] * 4)
    assert told.busbw == pytest.approx(bc.simulate(even, 1 << 22).busbw, rel=0.02)


@given(st.lists(st.integers(0, 1 << 20), min_size=4, max_size=4), st.sampled_from(["allgather", "reducescatter"]))
@settings(max_examples=40, deadline=None)
def test_trees_carry_every_shard_to_all_others(counts, collective):
    """A shard crosses as many links as a spanning tree has, however the plan cuts it."""
    result = bc.simulate(program_of(FOUR, collective, protocol="simple"), counts=counts)
    assert sum(result.link_bytes.values()) == pytest.approx(3 * 4 * sum(counts))
    assert np.isfinite(result.time_us)


@given(st.lists(st.lists(st.integers(0, 1 << 18), min_size=3, max_size=3), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_what_a_rank_sends_and_gets_crosses_its_links(rows):
    """0-1, 0-4 are single links and 1-4 is none: what 1 and 4 send each other crosses rank 0."""
    result = bc.simulate(program_of(THREE, "alltoall", protocol="simple"), counts=rows)
    through = rows[1][2] + rows[2][1]
    into = {rank: sum(moved for hop, moved in result.link_bytes.items() if hop[1] == rank) for rank in range(3)}
    assert into[0] == pytest.approx(4 * (rows[1][0] + rows[2][0] + through))
    assert into[1] == pytest.approx(4 * (rows[0][1] + rows[2][1])) and into[2] == pytest.approx(4 * (rows[0][2] + rows[1][2]))


@pytest.mark.parametrize("protocol", ["simple", "LL", "LL128"])
def test_time_follows_the_largest_shard(protocol):
    """One rank has all: its tree alone is busy, the others' steps only synchronise."""
    program = program_of(FOUR, "allgather", protocol=protocol)
    total = 1 << 22
    equal = bc.simulate(program, counts=[total // 4] * 4).time_us
    half = bc.simulate(program, counts=[total // 2, total // 6, total // 6, total // 6]).time_us
    alone = bc.simulate(program, counts=[0, 0, total, 0]).time_us
    assert equal < half < alone


def test_nothing_takes_no_more_than_synchronising():
    result = bc.simulate(program_of(FOUR, "gather"), counts=[0, 0, 0, 0])
    assert result.nbytes == 0 and result.algbw == 0 and not any(result.link_bytes.values())


@pytest.mark.parametrize(
    ("collective", "uneven", "options", "message"),
    [
        ("allreduce", False, {"counts": [1, 1, 1]}, "allreduce does not take counts: it has no shard a rank"),
        ("alltoall", False, {"counts": [1, 1, 1]}, r"alltoall does not take counts: .* uneven=True"),
        ("allgather", True, {"counts": [1, 1]}, "takes 3 counts, none negative"),
        ("allgather", True, {"counts": [1, -1, 1]}, "takes 3 counts, none negative"),
        ("allgather", True, {"counts": [1, 1.5, 1]}, "takes 3 counts, none negative"),
        ("alltoall", True, {"counts": [1, 1, 1]}, "takes 9 counts"),
        ("allgather", True, {"counts": [1, 2, 3], "nbytes": 25}, "counts make 6 elements of 4 bytes, nbytes=25"),
        ("allgather", True, {}, "neither nbytes nor counts say how much"),
        ("allgather", True, {"counts": [1 << 40, 1, 1]}, "at most 2\\^40"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(collective, uneven, options, message):
    program = bc.plan(THREE, collective).schedule(nbytes=64, uneven=uneven)
    with pytest.raises(SimulationError, match=message):
        bc.simulate(program, **options)
