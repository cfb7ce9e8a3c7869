"""Direct stores are safe in calls one after the other once ranks tell that they have begun."""

from __future__ import annotations

import pytest

from blinkcoll.errors import ScheduleError
from blinkcoll.schedules import lower_rings, verify
from blinkcoll.schedules.handshake import begun_before_stores, begun_first, begun_meanwhile
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines.ring import store_directly
from blinkcoll.topology import load_topology


@pytest.mark.parametrize("nranks", [2, 3, 4, 5, 8])
def test_a_direct_all_gather_may_be_repeated_only_with_a_handshake(nranks):
    topology = load_topology("dgx2").subset(list(range(nranks)))
    program = store_directly(lower_rings(topology, [list(range(nranks))] * 2, collective="allgather"))
    with pytest.raises(ScheduleError, match="nothing says that this rank has begun"):
        verify(program, repeated=True)
    safe = begun_first(program)
    verify(safe, repeated=True)
    assert safe.nchannels == program.nchannels
    bare, told = (run(p, nranks << 20, chunk_bytes=1 << 18).time_us for p in (program, safe))
    assert bare <= told < 1.5 * bare


@pytest.mark.parametrize("layout", ["dgx2", "rtx4090x8"])
@pytest.mark.parametrize("nranks", [3, 4, 5, 8])
def test_told_meanwhile_a_direct_all_gather_is_safe_and_as_fast_as_without(layout, nranks):
    """Over PCIe, too, where a hop more is a tenth of a small all-gather."""
    topology = load_topology(layout).subset(list(range(nranks)))
    program = store_directly(lower_rings(topology, [list(range(nranks))] * 2, collective="allgather"))
    safe = begun_meanwhile(program)
    verify(safe, repeated=True)
    assert safe.nchannels == program.nchannels
    for nbytes in (nranks << 12, nranks << 20):
        bare, told, first = (run(p, nbytes, chunk_bytes=1 << 18).time_us for p in (program, safe, begun_first(program)))
        assert bare <= told * (1 + 1e-9) and told < first
        if nranks > 4:
            assert told == pytest.approx(bare, rel=1e-3)


def test_two_ranks_are_told_first_because_no_store_is_later():
    topology = load_topology("dgx2").subset([0, 1])
    program = store_directly(lower_rings(topology, [[0, 1]], collective="allgather"))
    with pytest.raises(ScheduleError, match="no later store"):
        begun_meanwhile(program)
    assert begun_before_stores(program) == begun_first(program)


def test_programs_without_direct_stores_stay_as_they_are():
    topology = load_topology("dgx1-v100").subset([0, 1, 2])
    program = lower_rings(topology, [[0, 1, 2]], collective="allgather")
    assert begun_first(program) == program == begun_meanwhile(program)
