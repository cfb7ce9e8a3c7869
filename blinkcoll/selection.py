"""Which plan to run: the candidates lowered, simulated at the size asked for, and the fastest taken, with the reasons.

An exact plan has the highest rate, but where its trees' rates are unequal and the budget of channels is too small to
give them equal channels, trees of one rate that plan for a little less arrive earlier (see ``schedules/shares.py``).
Everything this reads (topology, collective, size, budget) is the same on all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cost.chunks import default_chunk_bytes
from .errors import PackingError
from .packing import Plan, make_plan
from .schedules import Program, lower_trees
from .schedules.trees import MAX_CHANNELS
from .simulator import run
from .topology import Topology


@dataclass(frozen=True)
class Candidate:
    """A plan, its program with the chunk size for the size asked for, and the simulated time in µs."""

    plan: Plan
    program: Program
    time_us: float


@dataclass(frozen=True)
class Choice:
    """The fastest candidate, and why each that was considered was or was not it."""

    best: Candidate
    reasons: tuple[str, ...]


def fastest_plan(topology: Topology, collective: str, root: int | None, nbytes: int, max_channels: int = MAX_CHANNELS) -> Choice:
    """The plan whose program is simulated to finish ``nbytes`` first; the exact plan where times are equal.

    Raises
    ------
    PackingError
        Where there is no plan.
    ScheduleError
        Where no plan fits ``max_channels``.
    """
    candidates = [_candidate(make_plan(topology, collective, root=root), nbytes, max_channels)]
    reasons = []
    if collective == "allreduce":
        try:
            # Of t trees a rank runs two channels each, one where it is the root: a rank in n, where roots are spread.
            most = max_channels * topology.nranks // (2 * topology.nranks - 1)
            candidates.append(_candidate(make_plan(topology, collective, root=root, equal_trees=most), nbytes, max_channels))
        except PackingError as error:
            reasons.append(f"no trees of one rate: {error}")
    best = min(candidates, key=lambda c: c.time_us)
    for candidate in candidates:
        verdict = "taken" if candidate is best else "slower"
        reasons.append(f"{candidate.plan.method}: {len(candidate.plan.trees)} trees, planned {float(candidate.plan.rate):.2f} GB/s, simulated {candidate.time_us:.1f} µs: {verdict}")
    return Choice(best, tuple(reasons))


def _candidate(plan: Plan, nbytes: int, max_channels: int) -> Candidate:
    program = lower_trees(plan, max_channels=max_channels)
    program = program.with_chunk_bytes(default_chunk_bytes(program, nbytes))
    return Candidate(plan, program, run(program, nbytes).time_us)
