"""One collective on one topology: the selected program and baselines', simulated at the same rates over sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise

from .. import api
from ..cost.factors import algbw_gb_s, busbw_gb_s
from ..errors import SimulationError
from ..packing import Plan, make_plan
from ..schedules import Program
from ..selection import default_channels, default_plan, select
from ..show.bench_result import BenchResult, BenchRow, Timing
from ..simulator.baselines import baseline_program
from ..topology import Topology

#: While one is being simulated, which needs no interpreter, programs for another are made.
_SIZES_AT_A_TIME = 2
_Row = tuple[BenchRow, dict[str, str]]  # of a size, with the baselines that have no program there, and why


def compare_with_baselines(
    topology: Topology, collective: str, root: int | None, sizes: Sequence[int], elem_size: int, baselines: Sequence[str], redop: str = "sum",
    max_channels: int | None = None, watched: Callable[[Iterable[_Row]], Iterable[_Row]] = iter,
) -> BenchResult:  # fmt: skip
    """At every size: the program that selection takes within ``max_channels``, and the baselines' programs, whatever channels these run.

    A baseline without a program for some sizes leaves a gap there, and its reason in the result. ``watched`` gets an item a size.
    """
    plan = default_plan(topology, collective, root)

    def row(nbytes: int) -> _Row:
        ours, peers, gaps = our_timing(plan, nbytes, elem_size, max_channels), list[Timing | None](), {}
        for name in baselines:
            try:
                peers.append(baseline_timing(name, plan, nbytes, elem_size))
            except SimulationError as error:
                gaps[name] = f"{name}: - from {nbytes} bytes: {error}"
                peers.append(None)
        return BenchRow(nbytes, nbytes // elem_size, ours, tuple(peers)), gaps

    def in_order() -> Iterator[_Row]:
        yield from map(row, sizes[:1])  # and with it all candidates are made
        with ThreadPoolExecutor(_SIZES_AT_A_TIME) as pool:
            yield from pool.map(row, sizes[1:])

    made = list(watched(in_order()))
    gaps = {name: gap for _, gaps in reversed(made) for name, gap in gaps.items()}  # of each baseline the first
    rows = tuple(row for row, _ in made)
    return BenchResult(plan, tuple(baselines), rows, tuple(gaps[name] for name in baselines if name in gaps), redop, max_channels or default_channels(topology))


def our_timing(plan: Plan, nbytes: int, elem_size: int = 4, max_channels: int | None = None) -> Timing:
    """What selection takes for a size; ``plan`` is the exact one."""
    selected = select(plan.topology, plan.collective, nbytes, root=plan.root, max_channels=max_channels)
    time_us = selected.time_us if elem_size == 4 else api.simulate(selected.program, nbytes, elem_size=elem_size).time_us
    kind = "plan" if selected.plan is not None else "classic"
    return _timing(selected.algorithm, selected.program, kind, nbytes, time_us, plan)


def baseline_timing(name: str, plan: Plan, nbytes: int, elem_size: int = 4) -> Timing:
    """What a baseline runs for a size.

    Raises
    ------
    SimulationError
        Where it has no program for it.
    """
    program = baseline_program(name, plan.topology, plan.collective, plan.root, nbytes)
    protocols = sorted({connection.protocol for connection in program.connections} - {"simple"})
    time_us = api.simulate(program, nbytes, elem_size=elem_size).time_us
    return _timing(" ".join([program.algorithm, *protocols]), program, "baseline", nbytes, time_us, plan)


def _timing(algorithm: str, program: Program, kind: str, nbytes: int, time_us: float, plan: Plan) -> Timing:
    busbw = busbw_gb_s(program.collective, program.nranks, nbytes, time_us)
    return Timing(algorithm, program, kind, program.nchannels, time_us, algbw_gb_s(nbytes, time_us), busbw, *_bound_of(program, plan))


def _bound_of(program: Program, plan: Plan) -> tuple[Fraction, str]:
    """What the program is held to: the bound over the plan's links, over all links if it uses more, or for switches that add."""
    if program.multicasts:
        switched = make_plan(plan.topology, plan.collective, root=plan.root, method="nvls")
        return switched.bound, switched.certificate.model
    links = plan.topology.restrict(plan.links).capacities()
    if plan.bound_all > plan.bound and any(hop not in links for c in program.connections for hop in pairwise(c.path)):
        return plan.bound_all, "all links"
    return plan.bound, ""
