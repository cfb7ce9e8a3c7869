"""Blink's chunk tuner: multiplicative increase while throughput grows, then additive decrease (MIAD; Blink, section 4.2.1).

A component without a clock: whoever runs collectives asks for the next chunk size to try and reports how long a call
took with it. All ranks must be given the same times, or tune on one rank and tell the others.
"""

from __future__ import annotations

from ..errors import SimulationError

#: A throughput this much better (relative) counts as growth; less is noise.
GROWTH = 0.005


class MiadTuner:
    """Finds a chunk size for calls of one program and size.

    Parameters
    ----------
    start, least, most
        Bytes: the first size to try, and the range to stay in.
    factor
        By which the size is multiplied while throughput grows.
    step
        The part of the peak size that is taken off at a time afterwards.
    repeats
        Calls per size; the fastest of them counts.

    Notes
    -----
    A heuristic for throughput that rises to one peak and falls: it settles at the best size tried, which is within
    ``step`` of the peak size of a local optimum of such a curve, and may be another than the global one where there are several.

    Examples
    --------
    >>> tuner = MiadTuner(start=1 << 12, least=1 << 12, most=1 << 20)
    >>> while not tuner.settled:
    ...     chunk = tuner.chunk_bytes
    ...     tuner.report((1 << 24) / chunk * 2 + chunk / 1000)  # microseconds of a call with that chunk
    >>> tuner.chunk_bytes
    196608
    """

    def __init__(self, start: int, least: int, most: int, *, factor: int = 2, step: float = 0.125, repeats: int = 1) -> None:
        if not 0 < least <= start <= most or factor < 2 or not 0 < step < 1 or repeats < 1:
            raise SimulationError(f"MIAD cannot start at {start} in {least}..{most} with factor {factor}, step {step}, repeats {repeats}")
        self.chunk_bytes = start
        self.settled = False
        self._least, self._most, self._factor, self._step, self._repeats = least, most, factor, step, repeats
        self._tried: dict[int, float] = {}
        self._times: list[float] = []
        self._decrement = 0  # 0 while increasing

    @property
    def tried(self) -> dict[int, float]:
        """The time of the fastest call by chunk size, µs."""
        return dict(self._tried)

    def report(self, time_us: float) -> None:
        """Tell how long a call with ``chunk_bytes`` took; afterwards ``chunk_bytes`` is the next to try, or the choice."""
        if self.settled:
            return
        self._times.append(time_us)
        if len(self._times) < self._repeats:
            return
        time_us = min(self._times)
        self._times = []
        best_before = min(self._tried.values(), default=float("inf"))
        self._tried[self.chunk_bytes] = time_us
        grew = time_us * (1 + GROWTH) < best_before
        if self._decrement == 0:
            self._increase(grew)
        elif grew or self.chunk_bytes > self._best():
            self._decrease()
        else:
            self._settle()

    def _increase(self, grew: bool) -> None:
        further = min(self.chunk_bytes * self._factor, self._most)
        if grew and further > self.chunk_bytes:
            self.chunk_bytes = further
            return
        # Where throughput stopped growing (or the range ended) the way back begins.
        self._decrement = max(16, int(self.chunk_bytes * self._step) // 16 * 16)
        self._decrease()

    def _decrease(self) -> None:
        lower = self.chunk_bytes - self._decrement
        while lower >= self._least and lower in self._tried:
            lower -= self._decrement
        if lower < self._least:
            self._settle()
        else:
            self.chunk_bytes = lower

    def _settle(self) -> None:
        self.settled = True
        self.chunk_bytes = self._best()

    def _best(self) -> int:
        return min(self._tried, key=lambda chunk: (self._tried[chunk], chunk))
