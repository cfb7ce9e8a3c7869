"""Which steps a simulated run took as long as it did for: from the last step back along what each waited for last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SimulationError
from .result import SimulationResult, StepRecord


@dataclass(frozen=True)
class CriticalPath:
    """A chain of steps, each begun as soon as the one before allowed, that ends with the run.

    Parameters
    ----------
    steps
        In order of time.
    moving_us
        Time in which one of them moved data.
    waiting_us
        Time between them: latencies of links and protocols, and the synchronisation of steps.
    launch_us
        Time before the first.
    """

    steps: tuple[StepRecord, ...]
    moving_us: float
    waiting_us: float
    launch_us: float


def critical_path(result: SimulationResult) -> CriticalPath:
    """The critical path of a run.

    Raises
    ------
    SimulationError
        Where the run was not traced.
    """
    trace = _traced(result)
    if not trace:
        return CriticalPath((), 0.0, 0.0, result.time_us)
    steps = []
    index: int | None = max(range(len(trace)), key=lambda i: (trace[i].end_us, i))
    while index is not None:
        steps.append(trace[index])
        index = trace[index].cause_index
    steps.reverse()
    moving_us = sum(step.end_us - step.start_us for step in steps)
    launch_us = steps[0].ready_us
    return CriticalPath(tuple(steps), moving_us, result.time_us - launch_us - moving_us, launch_us)


def _traced(result: SimulationResult) -> Sequence[StepRecord]:
    if result.trace is None:
        raise SimulationError("this run has no trace; simulate with trace=True")
    return result.trace
