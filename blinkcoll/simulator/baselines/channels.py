"""How many channels a baseline runs that has no rule of its own for it: enough to fill the links of its ranks."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from math import ceil

from ...schedules.trees import CHANNEL_GB_S
from ...topology import Topology

#: No more, so that the programs of machines with fast links stay small enough to simulate.
MOST_COPIES = 16


def copies(topology: Topology, runs_at_once: int = 1) -> int:
    """Copies of an algorithm that together move what the links of one rank carry, 1 to 16.

    Parameters
    ----------
    runs_at_once
        Channels that each copy keeps busy at a rank.
    """
    leaves: dict[int, Fraction] = defaultdict(Fraction)
    for (a, b), gb_s in topology.capacities().items():
        if isinstance(a, int):
            leaves[a] += gb_s
        del b
    most = max(leaves.values(), default=Fraction(0))
    return min(MOST_COPIES, max(1, ceil(most / (CHANNEL_GB_S * runs_at_once))))
