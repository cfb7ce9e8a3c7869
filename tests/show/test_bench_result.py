from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from blinkcoll.schedules import lower_rings
from blinkcoll.show.bench_result import Timing
from blinkcoll.topology import load_topology


def test_timings_are_compared_by_what_they_show_not_by_their_program():
    ring = lower_rings(load_topology("dgx1-v100"), [list(range(8))])
    timing = Timing("ring", ring, "classic", 1, 20.0, 1.0, 1.75, Fraction(40))
    other = replace(timing, executed=lower_rings(ring.topology, [[0, 3, 2, 1, 5, 6, 7, 4]]))
    assert timing == other and hash(timing) == hash(other)
    assert timing.program == ring.hash != other.program
    assert timing != replace(timing, time_us=21.0)
