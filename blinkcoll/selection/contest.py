"""Every draft by every protocol and chunk size, simulated at a size. What cannot be the fastest is left out or given up.

A candidate whose floor is above the best time is not simulated, and a simulation ends once what is left to do cannot be done within
the best time; both are exact, so the winner is what simulating all of them would find.
Order and ties are fixed: equal times (to nine digits) go to the candidate listed first, so a contest has one winner on all
ranks and machines.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, partial
from math import inf

from ..cost.chunks import MOST_CHUNK_BYTES, PipelineShape, chunk_bytes_for, pipeline_shape
from ..errors import PackingError, ScheduleError, SimulationError, TopologyError
from ..packing import Plan
from ..schedules import Program, verify
from ..schedules.contract import SHARDED
from ..schedules.protocols import EXECUTABLE, suits, with_protocol
from ..simulator.baselines.nccl.nvls import nvls_chunk_bytes
from ..simulator.floor import Floor
from ..simulator.run import Attempt
from .candidates import FAMILIES, Draft, Request
from .race import ROUNDING, Race, nine_digits

#: From this size on several chunk sizes are tried.
_TUNED_FROM = 1 << 20
#: From this size on larger chunks are tried, and with so many shares no smaller ones, whose simulation takes longest.
_LARGE, _MANY = 1 << 26, 16
#: Trees of so few hops have large chunks by the formula already, so these are tried at any size.
_SHALLOW = 4
#: What NCCL cuts broadcasts and reduces into: an eighth of its buffer of 4 MiB.
_CHAIN_CHUNK_BYTES = 1 << 19
#: Simulations that run at a time.
_MOST_THREADS = 4


@dataclass(frozen=True, eq=False)
class Candidate:
    """A draft by one protocol."""

    draft: Draft
    protocol: str
    floor: Floor

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.draft.name if self.protocol == "simple" else f"{self.draft.name} {self.protocol}"

    @property
    def plan(self) -> Plan | None:
        """The plan it was lowered from; None for the classic families."""
        return self.draft.plan

    @cached_property
    def program(self) -> Program:
        """Without a chunk size for any size in particular."""
        if all(connection.protocol == self.protocol for connection in self.draft.program.connections):
            return self.draft.program  # the very object, which the simulator has prepared where a baseline runs it, too
        return with_protocol(self.draft.program, self.protocol)

    @cached_property
    def _shape(self) -> PipelineShape:
        return pipeline_shape(self.program)

    def chunk_sizes(self, nbytes: int) -> tuple[int, ...]:
        """The chunk sizes to try for a size; where chunks follow one another more than one.

        The formula looks at one share at a time. Where many run side by side links stay busy with fewer, larger chunks,
        which cost less synchronisation: twice to four times its answer is mostly best. Over switches that add it is its answer,
        a half or a quarter, or NCCL's.
        """
        chunk = chunk_bytes_for(self._shape, nbytes)
        if self._shape.lockstep or nbytes < _TUNED_FROM:
            return (chunk,)
        if self.draft.program.multicasts:  # on H100 and B200, 6 to 72 channels, none larger than the formula's won by 0.2 %
            parts = [max(16, chunk // part // 16 * 16) for part in (1, 2, 4)]
            return tuple(dict.fromkeys([*parts, nvls_chunk_bytes(self.draft.program, nbytes)]))
        sizes = [2 * chunk]
        if nbytes < _LARGE or len(self.draft.program.weights) < _MANY or self._shape.depth <= _SHALLOW:
            sizes.append(chunk)
        if nbytes >= _LARGE:
            sizes.append(4 * chunk)
        if self.draft.program.root is not None:
            sizes.append(_CHAIN_CHUNK_BYTES)
        return tuple(dict.fromkeys(min(size, MOST_CHUNK_BYTES) for size in sizes))


class Contest:
    """The candidates of one request, and how long each takes by size, simulated when asked.

    ``refused`` says why families have no candidate.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.candidates: list[Candidate] = []
        self.refused: list[str] = []
        for family in FAMILIES:
            name = family.__name__.replace("_", " ")
            try:
                for draft in family(request):
                    self._admit(draft)
            except (PackingError, ScheduleError, SimulationError, TopologyError) as error:
                self.refused.append(f"{name}: {error}")
        if not self.candidates:
            raise PackingError(self._nothing_left())
        self._times: dict[tuple[int, int, int], float] = {}  # of (candidate, size, chunk size)
        self._longer_than: dict[tuple[int, int, int], float] = {}  # of runs that were given up
        self._winners: dict[int, int] = {}
        self._proven: dict[int, bool] = {}

    def _admit(self, draft: Draft) -> None:
        if draft.program.nchannels > self.request.max_channels:
            self.refused.append(f"{draft.name}: {draft.program.nchannels} channels, more than max_channels={self.request.max_channels}")
            return
        floor = Floor(draft.program)
        for protocol in draft.protocols or EXECUTABLE:
            # A floor holds where all connections have the protocol. NCCL's rings come with one, but what its tuner takes where
            # lines may tear, as LL128 over PCIe or on Pascal, is no choice: executors refuse it.
            if suits(draft.program, protocol):
                self.candidates.append(Candidate(draft, protocol, floor))

    def _nothing_left(self) -> str:
        request = self.request
        return f"no program for {request.collective} on {request.topology.name} within max_channels={request.max_channels}: " + "; ".join(self.refused)

    def whole(self, nbytes: int) -> int:
        """The size that is simulated for ``nbytes``: a whole number of 4-byte elements, and of shards where these are the caller's."""
        unit = 4 * (self.request.topology.nranks if self.request.collective in SHARDED else 1)
        return max(1, round(nbytes / unit)) * unit

    def _simulated_us(self, i: int, size: int, chunk_bytes: int, within_us: float) -> float:
        """To nine digits; infinity where it is known to be more than ``within_us``."""
        key = (i, size, chunk_bytes)
        if key not in self._times and self._longer_than.get(key, 0.0) < within_us:
            time_us = Attempt(self.candidates[i].program, size, chunk_bytes).advance(within_us * (1 + ROUNDING))
            if time_us is None:
                self._longer_than[key] = within_us
            else:
                self._times[key] = nine_digits(time_us)
        return self._times.get(key, inf)

    def chunk_bytes(self, i: int, nbytes: int) -> int:
        """The chunk size, of those tried, with which candidate ``i`` is fastest."""
        return self._best_chunk(i, self.whole(nbytes))[1]

    def time_us(self, i: int, nbytes: int) -> float:
        """The simulated time of candidate ``i`` with that chunk size."""
        return self._best_chunk(i, self.whole(nbytes))[0]

    def _best_chunk(self, i: int, size: int) -> tuple[float, int]:
        best = (inf, 0)
        for chunk in self.candidates[i].chunk_sizes(size):
            best = min(best, (self._simulated_us(i, size, chunk, best[0]), chunk))
        return best

    def floor_us(self, i: int, nbytes: int) -> float:
        """What candidate ``i`` takes at least."""
        return self.candidates[i].floor.us(self.whole(nbytes), self.candidates[i].protocol)

    def winner(self, nbytes: int) -> int:
        """The fastest candidate at a size whose program the verifier proves."""
        size = self.whole(nbytes)
        while size not in self._winners:
            best = self._fastest(size)
            if self._is_proven(best):
                self._winners[size] = best
        return self._winners[size]

    @property
    def allowed(self) -> list[int]:
        """Candidates that have not been refused."""
        return [i for i in range(len(self.candidates)) if self._proven.get(i, True)]

    def _fastest(self, size: int) -> int:
        allowed = self.allowed
        if not allowed:
            raise PackingError(self._nothing_left())
        race = Race({i: self.floor_us(i, size) for i in allowed}, partial(self._begin, size=size))
        race.run(1 if size < _TUNED_FROM else min(_MOST_THREADS, os.cpu_count() or 1))
        if not race.times:
            return self._fastest(size)  # all of those simulated were refused: the others' turn
        self._times.update({(i, size, chunk): time_us for (i, chunk), time_us in race.times.items()})
        self._longer_than.update({(i, size, chunk): race.best_us for i, chunk in race.slower})
        return min((time_us, i) for (i, _), time_us in race.times.items())[1]

    def _begin(self, i: int, size: int) -> list[tuple[int, Attempt]]:
        """A candidate's runs at a size, one a chunk size; none where no executor's format can hold its program."""
        candidate = self.candidates[i]
        try:
            return [(chunk, Attempt(candidate.program, size, chunk)) for chunk in candidate.chunk_sizes(size)]
        except ScheduleError as error:
            self._refuse(i, error)
            return []

    def _is_proven(self, i: int) -> bool:
        """Whether a candidate may run, also again and again; proven once."""
        if i not in self._proven:
            program = self.candidates[i].program
            try:
                verify(program, repeated=True)
                self._proven[i] = True
            except ScheduleError as error:
                self._refuse(i, error)
        return self._proven[i]

    def _refuse(self, i: int, error: ScheduleError) -> None:
        self.refused.append(f"{self.candidates[i].name}: {error}")
        self._proven[i] = False
