"""A simulated run as a trace that Perfetto and chrome://tracing open (the JSON trace event format).

One process a rank with one track a channel, one process for the links with one counter a link (GB/s on the wire), one
track for the critical path. A slice is a step moving its data; the time it waited before is a slice of its own, named
after what it waited for. Arrows lead from the step that sent a chunk to the step that was held up by it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from ..errors import SimulationError
from ..schedules.program import Program, Step
from ..simulator.critical_path import critical_path
from ..simulator.result import SimulationResult, StepRecord
from ..simulator.traffic import links_crossed

_LINKS_PID = 1_000_000
_PATH_PID = 1_000_001
_WAITS = {"arrival": "wait for a chunk", "credit": "wait for a free slot", "after": "wait for another channel"}

Event = dict[str, Any]


def trace_events(program: Program, result: SimulationResult) -> dict[str, Any]:
    """The trace of a run as the JSON object of the trace event format; times in microseconds from the call.

    Raises
    ------
    SimulationError
        Where the run was not traced.
    """
    if result.trace is None:
        raise SimulationError("this run has no trace; simulate with trace=True")
    events = [
        *_names(program),
        *(event for record in result.trace for event in _slices(program, record)),
        *_arrows(result.trace),
        *_counters(program, result.trace),
        *_path(program, result),
    ]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "simulated": f"{program.collective} by {program.algorithm} ({program.hash}), {result.nbytes} bytes, chunks of {result.chunk_bytes}",
            "topology": f"{program.topology.name} ({program.topology.fingerprint})",
        },
    }


def write_trace(program: Program, result: SimulationResult, path: str | FilePath) -> None:
    """Write :func:`trace_events` to a file."""
    FilePath(path).write_text(json.dumps(trace_events(program, result)), encoding="utf-8")


def _names(program: Program) -> Iterator[Event]:
    for rank, channels in enumerate(program.ranks):
        yield _meta("process_name", rank, 0, name=program.executor_name(rank))
        yield _meta("process_sort_index", rank, 0, sort_index=rank)
        for c, channel in enumerate(channels):
            yield _meta("thread_name", rank, c, name=f"channel {c}: {_purpose(program, rank, channel.steps)}")
    yield _meta("process_name", _LINKS_PID, 0, name="links, GB/s on the wire")
    yield _meta("process_name", _PATH_PID, 0, name="critical path")
    yield _meta("thread_name", _PATH_PID, 0, name="critical path")


def _meta(what: str, pid: int, tid: int, **args: Any) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


def _purpose(program: Program, rank: int, steps: tuple[Step, ...]) -> str:
    """Whom a channel hears from and whom it sends to."""
    touched = sorted({c for step in steps for c in (*step.wait, *step.signal)})
    sources = [program.connections[c].src for c in touched if program.connections[c].dst == rank]
    targets = [program.connections[c].dst for c in touched if program.connections[c].src == rank]
    shares = ",".join(map(str, sorted({step.share for step in steps})))
    parts = [f"share {shares}"]
    if sources:
        parts.append("from " + ",".join(map(str, sources)))
    if targets:
        parts.append("to " + ",".join(map(str, targets)))
    return " ".join(parts)


def _slices(program: Program, record: StepRecord) -> Iterator[Event]:
    place = {"pid": record.rank, "tid": record.channel}
    if record.start_us > record.ready_us:
        yield {"ph": "X", "name": _WAITS.get(record.cause, "synchronise"), "cat": "wait", "ts": record.ready_us, "dur": record.start_us - record.ready_us, **place}
    yield {
        "ph": "X", "name": _label(program, record), "cat": "step", "ts": record.start_us, "dur": record.end_us - record.start_us, **place,
        "args": {
            "step": record.step, "iteration": record.iteration, "bytes": record.nbytes,
            "GB/s": round(record.nbytes / (record.end_us - record.start_us) / 1e3, 3) if record.end_us > record.start_us else None,
            "waited for": record.cause,
        },
    }  # fmt: skip


def _label(program: Program, record: StepRecord) -> str:
    step = program.ranks[record.rank][record.channel].steps[record.step]
    shard = f" shard {step.shard}" if program.nshards > 1 else ""
    targets = [program.connections[o.connection].dst for o in step.dsts if o.connection is not None]
    onward = f" → {','.join(map(str, targets))}" if targets else ""
    return f"{step.op} share {step.share}{shard} chunk {record.iteration}{onward}"


def _arrows(trace: tuple[StepRecord, ...]) -> Iterator[Event]:
    for i, record in enumerate(trace):
        if record.cause != "arrival" or record.cause_index is None:
            continue
        sent = trace[record.cause_index]
        common = {"name": "chunk", "cat": "chunk", "id": i}
        yield {"ph": "s", "ts": sent.end_us, "pid": sent.rank, "tid": sent.channel, **common}
        yield {"ph": "f", "bp": "e", "ts": record.start_us, "pid": record.rank, "tid": record.channel, **common}


def _counters(program: Program, trace: tuple[StepRecord, ...]) -> Iterator[Event]:
    """Each link's rate over time; within a step its data is taken to flow evenly."""
    changes: dict[tuple[int | str, int | str], dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for record in trace:
        if record.end_us <= record.start_us or not record.nbytes:
            continue
        step = program.ranks[record.rank][record.channel].steps[record.step]
        rate = record.nbytes / (record.end_us - record.start_us) / 1e3
        for hop, crossings in links_crossed(program, record.rank, step).items():
            changes[hop][record.start_us] += rate * crossings
            changes[hop][record.end_us] -= rate * crossings
    for hop in sorted(changes, key=str):
        name = f"{program.topology.vertex_name(hop[0])}→{program.topology.vertex_name(hop[1])}"
        level = 0.0
        for ts in sorted(changes[hop]):
            level += changes[hop][ts]
            yield {"ph": "C", "name": name, "pid": _LINKS_PID, "tid": 0, "ts": ts, "args": {"GB/s": round(max(level, 0.0), 6)}}


def _path(program: Program, result: SimulationResult) -> Iterator[Event]:
    for record in critical_path(result).steps:
        yield {
            "ph": "X", "name": f"rank {record.rank}: {_label(program, record)}", "cat": "critical", "pid": _PATH_PID, "tid": 0,
            "ts": record.start_us, "dur": record.end_us - record.start_us, "args": {"waited for": record.cause, "channel": record.channel},
        }  # fmt: skip
