"""``blinkcoll simulate``: one program over sizes, with what limits it; a trace of a run for Perfetto."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ELEMENT_BYTES, Gpus, Relays, Root, Topo, gpu_list, read_size, read_topology, sizes_between

if TYPE_CHECKING:
    from ..schedules import Program
    from ..simulator import Parameters, SimulationResult
    from ..topology import Topology

SCHEMA = 1
_SELECTED, _TREES, _THREE_PHASE = "selected", "trees", "three-phase"
_CALLS = ("back-to-back", "single")
#: Steps of a run whose critical path is shown, each a record of some hundred bytes.
_MOST_TRACED = 1_000_000
#: Ranks of a cluster for which our own plans are made: for an all-reduce or all-gather 24 s among 64, minutes among 128; others take half a minute there.
_MOST_PLANNED, _MOST_PLANNED_OTHERS = 64, 128
#: Over switches that copy and add, with callers' buffers copied or registered.
_NVLS = ("nvls", "nvls-registered")


def simulate(
    topo: Topo,
    gpus: Gpus = None,
    relays: Relays = None,
    collective: Annotated[str, typer.Option("--collective", help="allreduce, broadcast, reduce, allgather, reducescatter, gather, scatter or alltoall.", metavar="NAME")] = "allreduce",
    root: Root = None,
    algorithm: Annotated[str, typer.Option("--algorithm", help="selected (what bench takes for the size), trees (the exact plan), three-phase (several servers), nvls, nvls-registered, or a baseline's name.", metavar="NAME")] = _SELECTED,
    minimum: Annotated[str, typer.Option("-b", "--minbytes", help="Smallest size.", metavar="SIZE")] = "8",
    maximum: Annotated[str, typer.Option("-e", "--maxbytes", help="Largest size.", metavar="SIZE")] = "1G",
    factor: Annotated[int, typer.Option("-f", "--stepfactor", help="Each size is the last times this.", min=2)] = 2,
    datatype: Annotated[str, typer.Option("-d", "--datatype", help=", ".join(ELEMENT_BYTES), metavar="TYPE")] = "float",
    chunk: Annotated[str | None, typer.Option("--chunk", help="Chunk size; chosen by size where left out.", metavar="SIZE")] = None,
    rates: Annotated[str, typer.Option("--rates", help="planning or measured: which rate of the links.", metavar="WHICH")] = "planning",
    launch: Annotated[str, typer.Option("--launch", help="process-per-gpu, one-process or graph.", metavar="MODE")] = "process-per-gpu",
    calls: Annotated[
        str, typer.Option("--calls", help="back-to-back: each of many calls, as nccl-tests measures; single: one call alone.", metavar="HOW")
    ] = _CALLS[0],
    trace: Annotated[str | None, typer.Option("--trace", help="Write the last size's run for Perfetto.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Simulate a program: time and bandwidth by size, its busiest link and its critical path."""
    from ..cost.parameters import LAUNCH_MODES, parameters_for
    from ..errors import PackingError
    from ..packing.collectives import ROOTED, canonical
    from ..simulator.baselines import BASELINES

    if datatype not in ELEMENT_BYTES:
        raise typer.BadParameter(f"{datatype!r}: one of {', '.join(ELEMENT_BYTES)}", param_hint="--datatype")
    if rates not in ("planning", "measured"):
        raise typer.BadParameter(f"{rates!r}: planning or measured", param_hint="--rates")
    if calls not in _CALLS:
        raise typer.BadParameter(f"{calls!r}: {' or '.join(_CALLS)}", param_hint="--calls")
    if launch not in LAUNCH_MODES:
        raise typer.BadParameter(f"{launch!r}: one of {', '.join(LAUNCH_MODES)}", param_hint="--launch")
    if algorithm not in (_SELECTED, _TREES, _THREE_PHASE, *_NVLS, *BASELINES):
        known = ", ".join((_SELECTED, _TREES, _THREE_PHASE, *_NVLS, *sorted(BASELINES)))
        raise typer.BadParameter(f"{algorithm!r}: one of {known}", param_hint="--algorithm")
    chunk_bytes = None if chunk is None else read_size(chunk, "--chunk")
    if chunk_bytes == 0:
        raise typer.BadParameter("at least 1 byte", param_hint="--chunk")
    sizes = sizes_between(read_size(minimum, "-b"), read_size(maximum, "-e"), factor, ELEMENT_BYTES[datatype])
    topology = read_topology(topo, gpus, relays)
    try:
        name = canonical(collective)
    except PackingError as error:
        raise typer.BadParameter(str(error), param_hint="--collective") from None
    if root is None and name in ROOTED:
        root = 0
    if algorithm in (_SELECTED, _TREES, _THREE_PHASE):
        _refuse_what_takes_minutes(topology, name)
    params = parameters_for(topology, launch)
    runs = _Runs(topology, name, root, algorithm, sizes[-1], rates, params, ELEMENT_BYTES[datatype], chunk_bytes)
    alone = [runs.run(nbytes) for nbytes in sizes]
    results = alone if calls == "single" else [result.back_to_back() for result in alone]
    if trace is not None:
        runs.write_trace(sizes[-1], trace)
        sys.stderr.write(f"blinkcoll: wrote the trace of {sizes[-1]} bytes to {trace}; open it at ui.perfetto.dev\n")
    if as_json:
        typer.echo(json.dumps(_as_json(runs, results, alone, launch, calls), indent=1))
    else:
        typer.echo(_as_text(runs, results, datatype, launch, calls))


def _refuse_what_takes_minutes(topology: Topology, collective: str) -> None:
    most = _MOST_PLANNED if collective in ("allreduce", "allgather", "reducescatter") else _MOST_PLANNED_OTHERS
    if topology.nranks > most and any(switch.kind == "network" for switch in topology.switches):
        raise typer.BadParameter(
            f"our own plans of {collective} over {topology.nranks} GPUs of a cluster take minutes, at most {most}: take fewer servers, or --algorithm nccl for NCCL's program",
            param_hint="--algorithm",
        )


class _Runs:
    """One program a size, as its algorithm makes them, and their simulation."""

    def __init__(
        self, topology: Topology, collective: str, root: int | None, algorithm: str, largest: int, rates: str, params: Parameters,
        elem_size: int, chunk_bytes: int | None,
    ) -> None:  # fmt: skip
        self.topology, self.collective, self.root, self.algorithm = topology, collective, root, algorithm
        self.largest, self.rates, self.params, self.elem_size, self.chunk_bytes = largest, rates, params, elem_size, chunk_bytes
        self._trees: Program | None = None
        self._programs: dict[int, Program] = {}

    def program(self, nbytes: int) -> Program:
        """What is run for a size, made once."""
        if nbytes not in self._programs:
            self._programs[nbytes] = self._made(nbytes)
        return self._programs[nbytes]

    def _made(self, nbytes: int) -> Program:
        if self.algorithm == _SELECTED:
            from ..selection import select

            return select(self.topology, self.collective, nbytes, root=self.root).program
        if self._is_baseline():
            from ..simulator.baselines import baseline_program, folded_baseline_program

            folded = folded_baseline_program(self.algorithm, self.topology, self.collective, nbytes)
            return folded or baseline_program(self.algorithm, self.topology, self.collective, self.root, nbytes)
        from ..cost import default_chunk_bytes

        if self._trees is None:
            self._trees = self._planned()
        return self._trees.with_chunk_bytes(default_chunk_bytes(self._trees, nbytes))

    def _is_baseline(self) -> bool:
        return self.algorithm not in (_SELECTED, _TREES, _THREE_PHASE, *_NVLS)

    def _planned(self) -> Program:
        """The program of the plan that the algorithm names."""
        from .. import api
        from ..schedules import lower_nvls

        method = {_TREES: "auto", _THREE_PHASE: _THREE_PHASE}.get(self.algorithm, "nvls")
        plan = api.plan(self.topology, self.collective, root=self.root, method=method, rates=self.rates)
        if self.algorithm in _NVLS:
            return lower_nvls(plan, registered=self.algorithm != _NVLS[0])
        return plan.schedule(nbytes=self.largest)

    def run(self, nbytes: int, trace: bool = False) -> SimulationResult:
        from ..simulator import run
        from ..simulator.baselines import run_baseline

        if self._is_baseline():
            return run_baseline(
                self.algorithm, self.topology, self.collective, self.root, nbytes,
                elem_size=self.elem_size, chunk_bytes=self.chunk_bytes, rates=self.rates, params=self.params, trace=trace,
            )[1]  # fmt: skip
        return run(
            self.program(nbytes), nbytes, elem_size=self.elem_size, chunk_bytes=self.chunk_bytes, rates=self.rates, params=self.params, trace=trace
        )

    def write_trace(self, nbytes: int, path: str) -> None:
        from ..export.perfetto import write_trace

        write_trace(self.program(nbytes), self.run(nbytes, trace=True), path)


def _as_text(runs: _Runs, results: list[SimulationResult], datatype: str, launch: str, calls: str) -> str:
    from .. import __version__
    from ..simulator.critical_path import critical_path

    program = runs.program(results[-1].nbytes)
    beside = " with relays " + ",".join(d.name for d in runs.topology.relays) if runs.topology.relays else ""
    lines = [
        f"# blinkcoll {__version__} {runs.collective} by {program.algorithm}: SIMULATED (event-driven), not measured",
        f"# topology {runs.topology.name}, GPUs {gpu_list(runs.topology)} as ranks 0..{runs.topology.nranks - 1}{beside}, fingerprint {runs.topology.fingerprint}",
        f"# program {_called(runs, program)}: {len(program.weights)} shares, at most {program.nchannels} channels a rank",
        *(["# exchanges between servers: timed as one-hop connections over the network, as no engine is given"] if program.algorithm == _THREE_PHASE else []),
        f"# rates {runs.rates}, launch {launch}, calls {calls}, device parameters of {runs.params.device}",
        "#",
        f"# {'size':>10} {'count':>12} {'type':>8} {'root':>5} {'time':>10} {'algbw':>7} {'busbw':>7} {'chunk':>8} {'steps':>8}  busiest link",
        f"# {'(B)':>10} {'(elements)':>12} {'':>8} {'':>5} {'(us)':>10} {'(GB/s)':>7} {'(GB/s)':>7} {'(B)':>8} {'':>8}",
    ]
    for r in results:
        root = -1 if runs.root is None else runs.root
        lines.append(
            f"{r.nbytes:>12} {r.nbytes // runs.elem_size:>12} {datatype:>8} {root:>5} {r.time_us:>10.2f} {r.algbw:>7.2f} {r.busbw:>7.2f} "
            f"{r.chunk_bytes:>8} {r.nsteps:>8}  {_busiest(program.topology, r)}"
        )
    if results[-1].nsteps > _MOST_TRACED:
        lines.append(f"# Critical path: left out, a trace of {results[-1].nsteps} steps would take gigabytes; a smaller size or fewer servers have one")
        return "\n".join(lines)
    path = critical_path(runs.run(results[-1].nbytes, trace=True))
    lines.append(
        f"# Critical path of {results[-1].nbytes} B in a call alone: {len(path.steps)} steps, {path.moving_us:.1f} us moving data, "
        f"{path.waiting_us:.1f} us latency and synchronisation, {path.launch_us:.1f} us launch (simulated)"
    )
    return "\n".join(lines)


def _called(runs: _Runs, program: Program) -> str:
    """A program's hash; of what one of equal servers does for all, whom it stands for."""
    return program.hash if program.nranks == runs.topology.nranks else f"of {program.nranks} ranks, one server's, simulated for all {runs.topology.nranks}: servers are equal"


def _busiest(topology: Topology, result: SimulationResult) -> str:
    if not result.link_utilisation:
        return "none"
    hop, part = max(result.link_utilisation.items(), key=lambda item: (item[1], str(item[0])))
    return f"{topology.vertex_name(hop[0])}→{topology.vertex_name(hop[1])} {100 * part:.0f} %"


def _as_json(runs: _Runs, results: list[SimulationResult], alone: list[SimulationResult], launch: str, calls: str) -> dict[str, Any]:
    from .. import __version__

    program = runs.program(results[-1].nbytes)
    topology = runs.topology
    simulated = program.topology
    return {
        "schema": SCHEMA,
        "version": __version__,
        "simulated": True,
        "topology": {"name": topology.name, "gpus": [d.index for d in topology.devices], "fingerprint": topology.fingerprint},
        "collective": runs.collective,
        "root": runs.root,
        "algorithm": program.algorithm,
        "rates": runs.rates,
        "launch": launch,
        "calls": calls,
        "device": runs.params.device,
        "simulated_ranks": program.nranks,
        "rows": [
            {
                "nbytes": r.nbytes, "time_us": r.time_us, "single_call_us": one.time_us, "algbw": r.algbw, "busbw": r.busbw, "chunk_bytes": r.chunk_bytes, "nsteps": r.nsteps,
                "link_utilisation": {
                    f"{simulated.vertex_name(a)}→{simulated.vertex_name(b)}": part for (a, b), part in sorted(r.link_utilisation.items(), key=str)
                },
            }
            for r, one in zip(results, alone, strict=True)
        ],
    }  # fmt: skip
