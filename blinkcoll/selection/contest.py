"""Every draft by every protocol, simulated at a size; those whose floor is above the best are left out.

Order and ties are fixed: equal times (to nine digits) go to the candidate listed first, so a contest has one winner on all
ranks and machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..cost.chunks import PipelineShape, chunk_bytes_for, pipeline_shape
from ..errors import PackingError, ScheduleError, SimulationError, TopologyError
from ..packing import Plan
from ..schedules import Program
from ..schedules.contract import SHARDED
from ..schedules.protocols import PROTOCOLS, with_protocol
from ..simulator import run
from ..simulator.floor import Floor
from ..topology import Topology
from .candidates import FAMILIES, Draft, Request

#: Kinds of links over which stores of 128 bytes arrive whole, and the first architecture that makes them so: NCCL allows
#: LL128 over NVLink from Volta on (src/graph/tuning.cc, ``ncclTopoTuneModel``).
_WHOLE_LINES = ("NVLINK", "NVSWITCH")
_LL128_FROM = 70


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

    def chunk_bytes(self, nbytes: int) -> int:
        """The chunk size for a size."""
        return chunk_bytes_for(self._shape, nbytes)


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
        self._times: dict[tuple[int, int], float] = {}
        self._winners: dict[int, int] = {}

    def _admit(self, draft: Draft) -> None:
        if draft.program.nchannels > self.request.max_channels:
            self.refused.append(f"{draft.name}: {draft.program.nchannels} channels, more than max_channels={self.request.max_channels}")
            return
        floor = Floor(draft.program)
        for protocol in draft.protocols or PROTOCOLS:
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

    def time_us(self, i: int, nbytes: int) -> float:
        """The simulated time of candidate ``i``, to nine digits."""
        key = (i, self.whole(nbytes))
        if key not in self._times:
            candidate = self.candidates[i]
            self._times[key] = float(f"{run(candidate.program, key[1], chunk_bytes=candidate.chunk_bytes(key[1])).time_us:.9g}")
        return self._times[key]

    def floor_us(self, i: int, nbytes: int) -> float:
        """What candidate ``i`` takes at least."""
        return self.candidates[i].floor.us(self.whole(nbytes), self.candidates[i].protocol)

    def winner(self, nbytes: int, first: int | None = None) -> int:
        """The fastest candidate at a size; ``first`` is simulated first, so that others may be left out by their floors."""
        size = self.whole(nbytes)
        if size not in self._winners:
            floors = [self.floor_us(i, size) for i in range(len(self.candidates))]
            order = sorted(range(len(floors)), key=lambda i: (i != first, floors[i], i))
            best = (float("inf"), -1)
            for i in order:
                if floors[i] * (1 - 1e-9) <= best[0]:
                    best = min(best, (self.time_us(i, size), i))
            self._winners[size] = best[1]
        return self._winners[size]


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
