"""Shards of unequal size: what a call says of them, and where each begins in the whole (``csrc/blinkcoll/partition.h``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from numbers import Integral
from typing import Any

from ..errors import ScheduleError
from .program import Program

#: Elements of each shard; for alltoallv, a row of them for every rank that sends.
Counts = Sequence[int] | Sequence[Sequence[int]]


def shard_bounds(program: Program, counts: Counts) -> tuple[int, ...]:
    """Where each shard begins, and where the last one ends.

    Raises
    ------
    ScheduleError
        Where the collective has no shards of its callers', the counts are not one a shard or negative, or the program is an
        all-to-all for equal shards.
    """
    name, n = program.collective, program.nranks
    if not program.equal_shards or name == "alltoall":
        what = "its ranks pass chunks on as if all were of one size; lower it with uneven=True" if name == "alltoall" else "it has no shard a rank"
        raise ScheduleError(f"{name} does not take counts: {what}")
    flat: list[Any] = _flat(counts, n) if name == "alltoallv" else list(counts)
    if len(flat) != program.nshards or not all(isinstance(c, Integral) and not isinstance(c, bool) and int(c) >= 0 for c in flat):
        raise ScheduleError(f"{name} of {n} ranks takes {program.nshards} counts, none negative; got {counts!r:.200}")
    return tuple(accumulate(map(int, flat), initial=0))


def _flat(counts: Counts, n: int) -> list[Any]:
    """A table's rows, one after the other; nothing where they are not all of ``n`` numbers."""
    rows: list[list[Any]] = [list(row) if isinstance(row, Iterable) else [] for row in counts]
    return [c for row in rows for c in row] if all(len(row) == n for row in rows) else []
