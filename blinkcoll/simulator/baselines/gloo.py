"""Gloo's ring all-reduce (``ring`` in gloo/allreduce.cc): rank order, towards the lower rank, two segments at a time.

Each rank's part of the buffer is cut into at least two segments of at most 1 MiB (``kMaxSegmentSize`` in allreduce.h):
while one is being added the other is on its way. Here these are two shares with chunks of at most 1 MiB, a slot for what
arrives and one for what is being added.
"""

from __future__ import annotations

from functools import lru_cache

from ...schedules.program import Program
from ...schedules.rings import lower_rings
from ...topology import Topology

SEGMENTS_IN_FLIGHT = 2
_SLOTS = 2


def gloo_ring(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """The ring from every rank to the one before it.

    Raises
    ------
    TopologyError
        Where nothing leads from a rank to the next.
    """
    del collective, root, nbytes  # all-reduce alone, the same at every size
    return _ring(topology)


@lru_cache(maxsize=64)
def _ring(topology: Topology) -> Program:
    order = list(range(topology.nranks))[::-1]
    return lower_rings(topology, [order] * SEGMENTS_IN_FLIGHT, algorithm="gloo-ring", slots=_SLOTS)
