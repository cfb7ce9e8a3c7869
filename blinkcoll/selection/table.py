"""From a size to a candidate: integer thresholds, the same on all ranks.

Contests are held at powers of two from 8 B to 4 GiB. Where neighbours have different winners, the threshold between them is
found by halving the interval (in the logarithm) a few times between these two. Thresholds are computed as sizes ask for
them, and never change: a table that was filled in another order is the same table.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt

from .candidates import Request
from .contest import Contest

#: Where contests are held.
SIZES = tuple(8 << i for i in range(30))
#: Halvings of an interval whose ends have different winners: its threshold is then exact to 2^(1/8).
_HALVINGS = 3


class Table:
    """The choice by size for one request."""

    def __init__(self, request: Request) -> None:
        self.contest = Contest(request)
        self._between: dict[int, int] = {}

    def choose(self, nbytes: int) -> int:
        """The candidate for a size; beyond the ends of the table, that of its end."""
        if nbytes <= SIZES[0] or nbytes >= SIZES[-1]:
            return self._at(0 if nbytes <= SIZES[0] else len(SIZES) - 1)
        place = (nbytes // SIZES[0]).bit_length() - 1
        if nbytes == SIZES[place]:
            return self._at(place)
        return self._at(place) if nbytes < self._threshold(place) else self._at(place + 1)

    def thresholds(self) -> tuple[tuple[int, int], ...]:
        """``(from so many bytes on, candidate)``, ascending, the first from 0 on: the whole table."""
        entries = [(0, self._at(0))]
        for place in range(len(SIZES) - 1):
            if self._at(place + 1) != entries[-1][1]:
                entries.append((self._threshold(place), self._at(place + 1)))
        return tuple(entries)

    def _at(self, place: int) -> int:
        return self.contest.winner(SIZES[place])

    def _threshold(self, place: int) -> int:
        """The first size past ``SIZES[place]`` that takes the next size's winner: that whose shards the next contest is held at, at most."""
        if place not in self._between:
            low, high = SIZES[place], min(SIZES[place + 1], self.contest.whole(SIZES[place + 1]))  # that contest's, where shards round it
            below, above = self._at(place), self._at(place + 1)
            for _ in range(_HALVINGS if below != above else 0):
                middle = self.contest.whole(int(sqrt(low * high)))
                if not low < middle < high:
                    break
                if self.contest.time_us(below, middle) <= self.contest.time_us(above, middle):
                    low = middle
                else:
                    high = middle
            self._between[place] = high
        return self._between[place]


@lru_cache(maxsize=128)
def table_for(request: Request) -> Table:
    """The table of a request, kept."""
    return Table(request)
