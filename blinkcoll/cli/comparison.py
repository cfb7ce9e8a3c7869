"""One collective on one topology: the plan's program and a baseline's, simulated at the same rates over sizes."""

from __future__ import annotations

from .. import api
from ..cost.chunks import default_chunk_bytes
from ..schedules import Program, verify
from ..show.bench_table import BenchResult, BenchRow
from ..simulator import SimulationResult
from ..simulator.baselines import baseline_program
from ..topology import Topology


def compare_with_baseline(topology: Topology, collective: str, root: int | None, sizes: list[int], elem_size: int, baseline: str) -> BenchResult:
    """Plan once, verify both programs, simulate both at every size."""
    plan = api.plan(topology, collective, root=root)
    ours = api.schedule(plan, nbytes=sizes[-1])
    theirs = baseline_program(baseline, topology, collective, root, sizes[-1])
    verify(theirs)
    rows = []
    for nbytes in sizes:
        mine, peer = _simulate(ours, nbytes, elem_size), _simulate(theirs, nbytes, elem_size)
        rows.append(BenchRow(nbytes, nbytes // elem_size, mine.time_us, mine.algbw, mine.busbw, peer.time_us, peer.algbw, peer.busbw))
    return BenchResult(plan, ours, theirs, baseline, tuple(rows))


def _simulate(program: Program, nbytes: int, elem_size: int) -> SimulationResult:
    result: SimulationResult = api.simulate(program, nbytes, elem_size=elem_size, chunk_bytes=default_chunk_bytes(program, nbytes))
    return result
