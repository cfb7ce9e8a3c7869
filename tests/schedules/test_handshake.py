"""Direct stores are safe in calls one after the other once ranks tell that they have begun."""

from __future__ import annotations

import pytest

from blinkcoll.errors import ScheduleError
from blinkcoll.schedules import lower_rings, verify
from blinkcoll.schedules.handshake import begun_first
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


def test_programs_without_direct_stores_stay_as_they_are():
    topology = load_topology("dgx1-v100").subset([0, 1, 2])
    program = lower_rings(topology, [[0, 1, 2]], collective="allgather")
    assert begun_first(program) == program
