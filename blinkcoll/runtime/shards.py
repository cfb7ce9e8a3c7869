"""Shards of unequal size: what a call says of them, and the tables that its launch carries (``csrc/blinkcoll/partition.h``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ExecutionError, ScheduleError
from ..schedules import Program
from ..schedules.contract import shards_held
from ..schedules.unequal import Counts, shard_bounds


@dataclass(frozen=True)
class Shards:
    """Where each shard begins in the whole, and, where an output holds a column of them, where it does there."""

    bounds: tuple[int, ...]
    places: tuple[int, ...] | None

    @property
    def count(self) -> int:
        """All elements."""
        return self.bounds[-1]

    def table(self) -> bytes:
        """The launch's tables: ``bounds``, then ``places``."""
        return np.array(self.bounds + (self.places or ()), dtype=np.uint64).tobytes()


def table_bytes(program: Program) -> int:
    """Room for the tables of any call; none where shards are not the caller's."""
    if not program.equal_shards:
        return 0
    places = program.nshards if program.collective == "alltoallv" else 0
    return 8 * (program.nshards + 1 + places)


def shards_of(program: Program, counts: Counts) -> Shards:
    """The shards of these counts.

    Raises
    ------
    ExecutionError
        Where the program takes no counts, or not such.
    """
    try:
        bounds = shard_bounds(program, counts)
    except ScheduleError as error:
        raise ExecutionError(str(error)) from None
    return Shards(bounds, _places(program, bounds) if program.collective == "alltoallv" else None)


def _places(program: Program, bounds: tuple[int, ...]) -> tuple[int, ...]:
    """Each output's shards one after the other."""
    places = [0] * program.nshards
    for rank in range(program.nranks):
        at = 0
        for shard in shards_held(program.collective, "output", rank, None, program.nranks):
            places[shard] = at
            at += bounds[shard + 1] - bounds[shard]
    return tuple(places)
