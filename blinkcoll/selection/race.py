"""Which of many simulated runs ends first: the one that may still end soonest goes on, until none that has not ended may win.

Best-first search with the lower bounds that unended runs give (Hart, Nilsson and Raphael, A formal basis for the heuristic
determination of minimum cost paths, 1968): no run is simulated for longer than it takes to see that it is slower than the
winner, whatever order they begin in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush
from itertools import count
from math import inf
from threading import Condition

from ..simulator.run import Attempt

#: More than times are rounded by: what ties is seen to its end.
ROUNDING = 1e-8
_Run = tuple[int, int]  # candidate and chunk size


class Race:
    """The runs of some candidates at one size.

    Parameters
    ----------
    floors
        Candidates, and what each takes at least, µs.
    begin
        A candidate's attempts by chunk size, asked for when it may be the fastest.
    """

    def __init__(self, floors: Mapping[int, float], begin: Callable[[int], Iterable[tuple[int, Attempt]]]) -> None:
        self.times: dict[_Run, float] = {}  # of runs that have ended, µs, to nine digits
        self.slower: list[_Run] = []  # runs that were begun, and given up
        self.best_us = inf
        self._begin = begin
        self._order = count()  # decides between equal bounds
        self._waiting: list[tuple[float, int, int, int, Attempt | None]] = []
        self._going_on = 0
        self._changed = Condition()
        for candidate, floor_us in floors.items():
            self._wait(floor_us, candidate, 0, None)

    def run(self, nthreads: int) -> None:
        """See all to their end that tie with the fastest, and maybe others. The core lets go of the interpreter, so threads help."""
        if nthreads == 1:
            self._work()
        else:
            with ThreadPoolExecutor(nthreads) as pool:
                for done in [pool.submit(self._work) for _ in range(nthreads)]:
                    done.result()
        self.slower = [(candidate, chunk_bytes) for _, _, candidate, chunk_bytes, attempt in self._waiting if attempt]
        self._waiting.clear()

    def _wait(self, least_us: float, candidate: int, chunk_bytes: int, attempt: Attempt | None) -> None:
        heappush(self._waiting, (least_us, next(self._order), candidate, chunk_bytes, attempt))

    def _may_win(self) -> bool:
        """Whether any that waits may still be the fastest."""
        return bool(self._waiting) and self._waiting[0][0] <= self.best_us * (1 + ROUNDING)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._may_win():
                    if not self._going_on:
                        return
                    self._changed.wait()
                _, _, candidate, chunk_bytes, attempt = heappop(self._waiting)
                self._going_on += 1
                within_us = min(self.best_us, self._waiting[0][0] if self._waiting else inf) * (1 + ROUNDING)
            try:
                if attempt is None:
                    self._enter(candidate)
                else:
                    self._go_on(candidate, chunk_bytes, attempt, within_us)
            finally:
                with self._changed:
                    self._going_on -= 1
                    self._changed.notify_all()

    def _enter(self, candidate: int) -> None:
        for chunk_bytes, attempt in self._begin(candidate):
            attempt.advance(0.0)  # as far as to know what it takes at least
            with self._changed:
                self._wait(attempt.least_us, candidate, chunk_bytes, attempt)

    def _go_on(self, candidate: int, chunk_bytes: int, attempt: Attempt, within_us: float) -> None:
        time_us = attempt.advance(within_us)
        with self._changed:
            if time_us is None:
                self._wait(attempt.least_us, candidate, chunk_bytes, attempt)
            else:
                self.times[candidate, chunk_bytes] = rounded = nine_digits(time_us)
                self.best_us = min(self.best_us, rounded)


def nine_digits(time_us: float) -> float:
    """Times that differ by less are taken as equal, whatever order sums were made in."""
    return float(f"{time_us:.9g}")
