"""One collective on one topology: the plan's program and baselines', simulated at the same rates over sizes."""

from __future__ import annotations

from collections.abc import Sequence

from .. import api
from ..cost.chunks import default_chunk_bytes
from ..errors import SimulationError
from ..schedules import Program, verify
from ..selection import fastest_plan
from ..show.bench_table import BenchResult, BenchRow, Timing
from ..simulator import SimulationResult
from ..simulator.baselines import BASELINES, baseline_program
from ..topology import Topology


def compare_with_baselines(
    topology: Topology, collective: str, root: int | None, sizes: Sequence[int], elem_size: int, baselines: Sequence[str]
) -> BenchResult:
    """Plan once, verify the program made of it, simulate it and the baselines' at every size.

    A baseline without a program for some sizes leaves a gap there, and its reason in the result.
    """
    for name in baselines:
        if name not in BASELINES:
            raise SimulationError(f"no baseline is called {name!r}; known: {', '.join(sorted(BASELINES))}")
    best = fastest_plan(topology, collective, root, sizes[-1] // 4 * 4).best
    plan, ours = best.plan, best.program
    verify(ours)
    gaps: dict[str, str] = {}
    rows = []
    for nbytes in sizes:
        mine = _timing(ours, _simulate(ours, nbytes, elem_size, default_chunk_bytes(ours, nbytes)))
        peers: list[Timing | None] = []
        for name in baselines:
            try:
                theirs = baseline_program(name, topology, collective, root, nbytes)
            except SimulationError as error:
                gaps.setdefault(name, f"{name}: - from {nbytes} bytes: {error}")
                peers.append(None)
                continue
            peers.append(_timing(theirs, _simulate(theirs, nbytes, elem_size, theirs.chunk_bytes)))
        rows.append(BenchRow(nbytes, nbytes // elem_size, mine, tuple(peers)))
    return BenchResult(plan, ours, tuple(baselines), tuple(rows), tuple(gaps.values()))


def _simulate(program: Program, nbytes: int, elem_size: int, chunk_bytes: int) -> SimulationResult:
    result: SimulationResult = api.simulate(program, nbytes, elem_size=elem_size, chunk_bytes=chunk_bytes)
    return result


def _timing(program: Program, result: SimulationResult) -> Timing:
    return Timing(program.algorithm, program.hash, result.time_us, result.algbw, result.busbw)
