"""Shards of unequal size: what a call says of them, and the tables that its launch carries (``csrc/blinkcoll/partition.h``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from ..errors import ExecutionError
from ..schedules import Program
from ..schedules.contract import shards_held

#: Elements of each shard; for alltoallv, a row of them for every rank that sends.
Counts = Sequence[int] | Sequence[Sequence[int]]


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
        Where the collective has no shards of its callers', the counts are not one a shard or negative, or the program is an
        all-to-all for equal shards.
    """
    name, n = program.collective, program.nranks
    if not program.equal_shards or name == "alltoall":
        what = "its ranks pass chunks on as if all were of one size; lower it with uneven=True" if name == "alltoall" else "it has no shard a rank"
        raise ExecutionError(f"{name} does not take counts: {what}")
    flat: list[Any] = _flat(counts, n) if name == "alltoallv" else list(counts)
    if len(flat) != program.nshards or not all(isinstance(c, (int, np.integer)) and not isinstance(c, bool) and c >= 0 for c in flat):
        raise ExecutionError(f"{name} of {n} ranks takes {program.nshards} counts, none negative; got {counts!r:.200}")
    bounds = tuple(accumulate((int(c) for c in flat), initial=0))
    return Shards(bounds, _places(program, bounds) if name == "alltoallv" else None)


def _flat(counts: Counts, n: int) -> list[Any]:
    """A table's rows, one after the other; nothing where they are not all of ``n`` numbers."""
    rows = [list(row) if isinstance(row, (Sequence, np.ndarray)) else [] for row in counts]
    return [c for row in rows for c in row] if all(len(row) == n for row in rows) else []


def _places(program: Program, bounds: tuple[int, ...]) -> tuple[int, ...]:
    """Each output's shards one after the other."""
    places = [0] * program.nshards
    for rank in range(program.nranks):
        at = 0
        for shard in shards_held(program.collective, "output", rank, None, program.nranks):
            places[shard] = at
            at += bounds[shard + 1] - bounds[shard]
    return tuple(places)
