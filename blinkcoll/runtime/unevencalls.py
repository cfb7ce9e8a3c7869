"""Calls whose parts differ in size: ranks compare what each was told before anything moves.

Ranks that cut the data differently would read past each other's arrays, so counts go round first, in an all-gather of their own;
where they differ, the call fails on all ranks with the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ExecutionError

Array = np.ndarray[Any, np.dtype[Any]]
#: All-gathers an array in place: every rank fills its part.
Gather = Callable[[Array], object]
_NOT_SAID = -1


def agree_on_counts(gather: Gather, rank: int, nranks: int, name: str, counts: Sequence[int]) -> list[int]:
    """Elements of each rank's part, once all ranks have been told the same.

    Raises
    ------
    ExecutionError
        Where these are not as many as ranks, negative, or another rank's differ.
    """
    mine = _numbers(counts, nranks, f"{name}: counts")
    rows = _all_rows(gather, rank, nranks, mine)
    for other, row in enumerate(rows):
        if row != rows[0]:
            raise ExecutionError(f"{name}: rank 0 was called with counts {rows[0]}, rank {other} with {row}")
    return mine


def agree_on_pieces(gather: Gather, rank: int, nranks: int, sent: Sequence[int], got: Sequence[int] | None) -> list[list[int]]:
    """What each rank sends to each, from what every rank says of its own.

    Raises
    ------
    ExecutionError
        Where a rank's numbers are not as many as ranks or negative, or what one sends is not what the other wants to get.
    """
    wanted = [_NOT_SAID] * nranks if got is None else _numbers(got, nranks, "all_to_all: recv_counts")
    rows = _all_rows(gather, rank, nranks, [*_numbers(sent, nranks, "all_to_all: send_counts"), *wanted])
    for src in range(nranks):
        for dst in range(nranks):
            there = rows[dst][nranks + src]
            if there not in (_NOT_SAID, rows[src][dst]):
                raise ExecutionError(f"all_to_all: rank {src} sends {rows[src][dst]} elements to rank {dst}, which wants {there}")
    return [row[:nranks] for row in rows]


def _all_rows(gather: Gather, rank: int, nranks: int, mine: Sequence[int]) -> list[list[int]]:
    table = np.zeros((nranks, len(mine)), np.int64)
    table[rank] = mine
    gather(table)
    rows: list[list[int]] = table.tolist()
    return rows


def _numbers(counts: Any, nranks: int, what: str) -> list[int]:
    given = list(counts)
    if len(given) != nranks or not all(isinstance(c, (int, np.integer)) and not isinstance(c, bool) and c >= 0 for c in given):
        raise ExecutionError(f"{what} are {given!r:.200}, expected {nranks} numbers of elements, none negative")
    return [int(c) for c in given]
