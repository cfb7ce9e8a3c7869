"""All-reduce inside servers, across them and inside again."""

from __future__ import annotations

import pytest
from runtime.oracle import assert_outputs
from schedules import unrolled
from schedules.test_families import complete, exact_sum, inputs_of

import blinkcoll as bc
from blinkcoll.errors import ScheduleError
from blinkcoll.runtime.threads import ThreadExecutor
from blinkcoll.schedules.hierarchical import lower_hierarchical


def servers_of(nservers: int, size: int) -> list[list[int]]:
    return [list(range(s * size, (s + 1) * size)) for s in range(nservers)]


@pytest.mark.parametrize(("nservers", "size"), [(1, 1), (1, 4), (2, 1), (5, 1), (2, 2), (2, 3), (3, 4), (5, 2), (4, 4)])
def test_every_shape_sums(nservers, size):
    orders = [list(range(size)), list(range(size))[::-1]]
    program = lower_hierarchical(complete(nservers * size), servers_of(nservers, size), orders)
    bc.verify(program, repeated=True)
    with ThreadExecutor(program, max_count=1021, chunk_bytes=64, timeout_s=30) as executor:
        for count in (0, 1, 1021):
            for in_place in (False, True):
                inputs = inputs_of(program, count, seed=count)
                assert_outputs("allreduce", None, inputs, executor.run(inputs, in_place=in_place), exact_sum, f"count {count}")


@pytest.mark.parametrize(("nservers", "size"), [(2, 3), (3, 2)])
def test_the_unrolled_oracle_agrees(nservers, size):
    program = lower_hierarchical(complete(nservers * size), servers_of(nservers, size), [[*range(size)]])
    bc.verify(program, repeated=True)
    unrolled.verify(program)


def test_averages_are_scaled_once():
    import numpy as np

    for nservers, size in ((1, 4), (2, 2), (4, 1)):
        program = lower_hierarchical(complete(4), servers_of(nservers, size), [[*range(size)]])
        inputs = [np.full(101, float(rank), np.float32) for rank in range(4)]
        with ThreadExecutor(program, max_count=101, chunk_bytes=64, op="avg") as executor:
            assert all(np.array_equal(out, np.full(101, 1.5, np.float32)) for out in executor.run(inputs))


@pytest.mark.parametrize(("nservers", "size"), [(2, 4), (4, 2)])
def test_each_rank_sends_its_part_alone_across(nservers, size):
    """Of a part of 1/size, a ring of S servers sends 2 (S - 1) / S."""
    program = lower_hierarchical(complete(nservers * size), servers_of(nservers, size), [[*range(size)]])
    for rank, channels in enumerate(program.ranks):
        sent = [program.connections[c] for ch in channels for step in ch.steps for c in step.signal if program.connections[c].src == rank]
        across = sum(c.dst // size != rank // size for c in sent)
        assert across * nservers == 2 * (nservers - 1) * program.nshards // size
        assert len(sent) - across == 2 * (size - 1) * nservers, "inside: a ring's reduce-scatter and all-gather"


def test_other_servers_are_refused():
    with pytest.raises(ScheduleError, match="equally many"):
        lower_hierarchical(complete(3), [[0, 1], [2]], [[0, 1]])
    with pytest.raises(ScheduleError, match=r"places 0\.\.1"):
        lower_hierarchical(complete(4), [[0, 1], [2, 3]], [[0, 0]])
    with pytest.raises(ScheduleError, match="up to 31 servers"):
        lower_hierarchical(complete(32), [[r] for r in range(32)], [[0]])
