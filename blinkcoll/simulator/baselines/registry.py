"""Baselines by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from ...cost.chunks import default_chunk_bytes
from ...cost.parameters import Parameters
from ...errors import SimulationError, TopologyError
from ...schedules.program import Program
from ...topology import Link, Topology
from ..result import SimulationResult
from ..run import run
from .binarytrees import double_binary_tree
from .direct import direct
from .forestcoll import COLLECTIVES as FOREST_COLLECTIVES
from .forestcoll import forestcoll
from .gloo import gloo_ring
from .halvingdoubling import halving_doubling
from .horovod import horovod
from .nccl import nccl_program
from .nccl.chunks import pipeline_chunk_bytes
from .nccl.nvls import nvls_chunk_bytes
from .nccl.p2p import COLLECTIVES as P2P_COLLECTIVES
from .nccl.p2p import NVLINK_CHUNK_BYTES, PCI_CHUNK_BYTES
from .nccl.programs import COLLECTIVES, folded_program
from .rccl import rccl_program
from .ring import rank_order_ring

#: (topology, collective, root, nbytes) to a program.
Maker = Callable[[Topology, str, "int | None", int], Program]


@dataclass(frozen=True)
class Baseline:
    """A way to run collectives that plans are compared with.

    Parameters
    ----------
    title
        What it is, in a line for table headers.
    collectives
        What it has programs for.
    make
        From (topology, collective, root, nbytes) to the program.
    chunk_bytes
        From (program, nbytes) to its chunk size.
    folded
        From (topology, collective, nbytes) to what one of equal servers does for all of them; None where that is not to be had.
    """

    title: str
    collectives: tuple[str, ...]
    make: Maker
    chunk_bytes: Callable[[Program, int], int] = default_chunk_bytes
    folded: Callable[[Topology, str, int], Program | None] | None = None


def _nccl(release: str, version: str, plan: str) -> Baseline:
    title = f"NCCL {release}'s own {plan}, rebuilt from its sources"
    return Baseline(title, COLLECTIVES, partial(nccl_program, version=version), _nccl_chunk_bytes)


def _nccl_or_rccl(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """On AMD's GPUs NCCL is RCCL, and the program says so."""
    maker = rccl_program if topology.devices[0].arch.startswith("gfx") else nccl_program
    return maker(topology, collective, root, nbytes)


def _nccl_folded(topology: Topology, collective: str, nbytes: int) -> Program | None:
    """RCCL has no programs for several servers, and says so itself."""
    return None if topology.devices[0].arch.startswith("gfx") else folded_program(topology, collective, nbytes)


def _nccl_chunk_bytes(program: Program, nbytes: int) -> int:
    """NVLS and sends have sizes of their own, chains and trees NCCL's whatever the data's (``chunks.py``); rings go around by as much as slots hold."""
    if program.multicasts:
        return nvls_chunk_bytes(program, nbytes)
    if program.collective in P2P_COLLECTIVES:
        if any(len(channel.steps) > 1 for channels in program.ranks for channel in channels):
            return max(16, -(-nbytes // program.nshards // 16) * 16)  # a channel's peers one after the other
        fast = all(link.kind in ("NVLINK", "XGMI") for link in _links_used(program))
        return NVLINK_CHUNK_BYTES if fast else PCI_CHUNK_BYTES
    if program.collective in ("broadcast", "reduce") or program.algorithm.endswith("-tree"):
        return pipeline_chunk_bytes(program, nbytes)
    return default_chunk_bytes(program, nbytes)


def _links_used(program: Program) -> list[Link]:
    topology = program.topology
    used = {hop for connection in program.connections for hop in pairwise(connection.path)}
    return [link for link in topology.links if (topology.vertex(link.src), topology.vertex(link.dst)) in used]


BASELINES: dict[str, Baseline] = {
    "nccl": replace(_nccl("2.30.7", "2.30", "rings, chains and tuner"), make=_nccl_or_rccl, folded=_nccl_folded),
    "nccl-2.7": _nccl("2.7.8", "2.7", "rings, chains and tuner"),
    "nccl-2.4": _nccl("2.4.8", "2.4", "rings"),
    "rccl": Baseline("RCCL's rings over xGMI and its tuner, from its sources", COLLECTIVES, rccl_program, _nccl_chunk_bytes),
    "baidu-ring": Baseline("one ring in rank order, hops without a direct link over switches", ("allreduce", "broadcast"), rank_order_ring),
    "gloo-ring": Baseline("Gloo's ring in rank order, towards the lower rank", ("allreduce",), gloo_ring),
    "halving-doubling": Baseline("recursive vector halving and distance doubling, in rank order", ("allreduce",), halving_doubling),
    "double-binary-tree": Baseline("two binary trees in rank order", ("allreduce",), double_binary_tree),
    "direct": Baseline("every rank with every other: one exchange or two, by size", ("allreduce",), direct),
    "horovod": Baseline("NCCL's rings inside servers, a ring across them", ("allreduce",), horovod),
    "forestcoll": Baseline("optimal trees with every rank the root of an equal shard", FOREST_COLLECTIVES, forestcoll),
}


def baseline_program(name: str, topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """The program that baseline ``name`` runs for a collective of ``nbytes``, its chunk size chosen for that size.

    Baselines know no relays: they get the ranks alone.

    Raises
    ------
    SimulationError
        Where there is no such baseline, or it has no program for the collective, the topology or the size.
    """
    baseline = _named(name, collective)
    try:
        program = baseline.make(topology.without_relays(), collective, root, nbytes)
    except TopologyError as error:
        raise SimulationError(f"baseline {name} has no program here: {error}") from error
    return program.with_chunk_bytes(baseline.chunk_bytes(program, nbytes))


def folded_baseline_program(name: str, topology: Topology, collective: str, nbytes: int) -> Program | None:
    """What one of a large cluster's equal servers does for all of them by baseline ``name``; None where :func:`baseline_program` has to make it whole.

    The simulator takes it, no executor: its ranks are one server's, and what others send them comes from themselves.

    Raises
    ------
    SimulationError
        As :func:`baseline_program`.
    """
    baseline = _named(name, collective)
    try:
        program = baseline.folded(topology.without_relays(), collective, nbytes) if baseline.folded is not None else None
    except TopologyError as error:
        raise SimulationError(f"baseline {name} has no program here: {error}") from error
    return None if program is None else replace(program, chunk_bytes=baseline.chunk_bytes(program, nbytes))


def run_baseline(
    name: str, topology: Topology, collective: str, root: int | None, nbytes: int, *, elem_size: int = 4, chunk_bytes: int | None = None,
    rates: str = "planning", params: Parameters | None = None, trace: bool = False,
) -> tuple[Program, SimulationResult]:  # fmt: skip
    """The simulated run of baseline ``name``, and its program: on a large cluster of equal servers that of one of them, for all.

    Parameters as those of :func:`baseline_program` and :func:`blinkcoll.simulator.run`.

    Raises
    ------
    SimulationError
        As both.
    """
    folded = folded_baseline_program(name, topology, collective, nbytes)
    program = folded or baseline_program(name, topology, collective, root, nbytes)
    result = run(program, nbytes, elem_size=elem_size, chunk_bytes=chunk_bytes, rates=rates, params=params, trace=trace)
    if folded is not None:  # every rank waits for every other, so that calls do not overlap
        result = replace(result, nranks=topology.nranks, period_us=result.time_us)
    return program, result


def _named(name: str, collective: str) -> Baseline:
    baseline = BASELINES.get(name)
    if baseline is None:
        raise SimulationError(f"no baseline is called {name!r}; known: {', '.join(sorted(BASELINES))}")
    if collective not in baseline.collectives:
        raise SimulationError(f"baseline {name} has no {collective}; it has {', '.join(baseline.collectives)}")
    return baseline
