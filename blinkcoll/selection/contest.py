"""Every draft by every protocol, simulated at a size; those whose floor is above the best are left out.

Order and ties are fixed: equal times (to nine digits) go to the candidate listed first, so a contest has one winner on all
ranks and machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..cost.chunks import MOST_CHUNK_BYTES, PipelineShape, chunk_bytes_for, pipeline_shape
from ..errors import PackingError, ScheduleError, SimulationError, TopologyError
from ..packing import Plan
from ..schedules import Program, verify
from ..schedules.contract import SHARDED
from ..schedules.protocols import EXECUTABLE, with_protocol
from ..simulator import run
from ..simulator.floor import Floor
from ..topology import Topology
from .candidates import FAMILIES, Draft, Request

#: Kinds of links over which stores of 128 bytes arrive whole, and the first architecture that makes them so: NCCL allows
#: LL128 over NVLink from Volta on (src/graph/tuning.cc, ``ncclTopoTuneModel``).
_WHOLE_LINES = ("NVLINK", "NVSWITCH")
_LL128_FROM = 70
#: From this size on chunk sizes are tried, and for candidates at most this much slower than the fastest.
_TUNED_FROM, _NEAR = 1 << 20, 1.15
#: From this size on larger chunks are tried, and with so many shares no smaller ones, whose simulation takes longest.
_LARGE, _MANY = 1 << 26, 16
#: What NCCL cuts broadcasts and reduces into: an eighth of its buffer of 4 MiB.
_CHAIN_CHUNK_BYTES = 1 << 19


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
        return with_protocol(self.draft.program, self.protocol) if self.protocol != _protocol(self.draft.program) else self.draft.program

    @cached_property
    def _shape(self) -> PipelineShape:
        return pipeline_shape(self.program)

    def chunk_sizes(self, nbytes: int) -> tuple[int, ...]:
        """The chunk sizes to try for a size; where chunks follow one another more than one.

        The formula looks at one share at a time. Where many run side by side links stay busy with fewer, larger chunks,
        which cost less synchronisation: twice to four times its answer is mostly best.
        """
        chunk = chunk_bytes_for(self._shape, nbytes)
        if self._shape.lockstep or nbytes < _TUNED_FROM:
            return (chunk,)
        sizes = [2 * chunk]
        if nbytes < _LARGE or len(self.draft.program.weights) < _MANY:
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
            raise PackingError("; ".join(self.refused))
        self._times: dict[tuple[int, int, int], float] = {}
        self._winners: dict[int, int] = {}
        self._proven: dict[int, bool] = {}

    def _admit(self, draft: Draft) -> None:
        if draft.program.nchannels > self.request.max_channels:
            self.refused.append(f"{draft.name}: {draft.program.nchannels} channels, more than max_channels={self.request.max_channels}")
            return
        floor = Floor(draft.program)
        for protocol in draft.protocols or EXECUTABLE:
            if protocol == "LL128" and not whole_lines(draft.program):
                continue
            try:
                if protocol != _protocol(draft.program):
                    with_protocol(draft.program, protocol)
            except ScheduleError as error:
                self.refused.append(f"{draft.name} {protocol}: {error}")
                continue
            self.candidates.append(Candidate(draft, protocol, floor))

    def whole(self, nbytes: int) -> int:
        """The size that is simulated for ``nbytes``: a whole number of 4-byte elements, and of shards where these are the caller's."""
        unit = 4 * (self.request.topology.nranks if self.request.collective in SHARDED else 1)
        return max(1, round(nbytes / unit)) * unit

    def _simulated_us(self, i: int, size: int, chunk_bytes: int) -> float:
        """To nine digits."""
        key = (i, size, chunk_bytes)
        if key not in self._times:
            self._times[key] = float(f"{run(self.candidates[i].program, size, chunk_bytes=chunk_bytes).time_us:.9g}")
        return self._times[key]

    def chunk_bytes(self, i: int, nbytes: int) -> int:
        """The chunk size, of those tried, with which candidate ``i`` is fastest."""
        size = self.whole(nbytes)
        return min(self.candidates[i].chunk_sizes(size), key=lambda chunk: (self._simulated_us(i, size, chunk), chunk))

    def time_us(self, i: int, nbytes: int) -> float:
        """The simulated time of candidate ``i`` with that chunk size."""
        size = self.whole(nbytes)
        return min(self._simulated_us(i, size, chunk) for chunk in self.candidates[i].chunk_sizes(size))

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
            raise PackingError("; ".join(self.refused))
        floors = {i: self.floor_us(i, size) * (1 - 1e-9) for i in allowed}
        best, times = float("inf"), {}
        for i in sorted(allowed, key=lambda i: (floors[i], i)):
            if floors[i] <= best:
                try:
                    times[i] = self._simulated_us(i, size, self.candidates[i].chunk_sizes(size)[0])
                except ScheduleError as error:  # a program that no executor's format can hold
                    self._refuse(i, error)
                    continue
                best = min(best, times[i])
        # All whose floor is not above the best have been simulated now; only those near it get other chunk sizes tried.
        near = [i for i, time in times.items() if time <= best * _NEAR and floors[i] <= best]
        if not near:
            return self._fastest(size)  # all of those simulated were refused: the others' turn
        return min(near, key=lambda i: (self.time_us(i, size), i))

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


def _protocol(program: Program) -> str:
    return program.connections[0].protocol if program.connections else "simple"


def whole_lines(program: Program) -> bool:
    """Whether stores of 128 bytes arrive whole on every way that the program's data takes."""
    topology = program.topology
    if any(not d.arch.startswith("sm_") or int(d.arch.removeprefix("sm_")) < _LL128_FROM for d in topology.devices):
        return False
    hops = _whole_hops(topology)
    return all(hop in hops for c in program.connections for hop in zip(c.path, c.path[1:], strict=False))


@lru_cache(maxsize=64)
def _whole_hops(topology: Topology) -> frozenset[tuple[int | str, int | str]]:
    return frozenset((topology.vertex(k.src), topology.vertex(k.dst)) for k in topology.links if k.kind in _WHOLE_LINES)
