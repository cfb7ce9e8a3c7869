"""Baselines by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from ...cost.chunks import default_chunk_bytes
from ...errors import SimulationError, TopologyError
from ...schedules.program import Program
from ...topology import Link, Topology
from .binarytrees import double_binary_tree
from .direct import direct
from .forestcoll import COLLECTIVES as FOREST_COLLECTIVES
from .forestcoll import forestcoll
from .gloo import gloo_ring
from .halvingdoubling import halving_doubling
from .horovod import horovod
from .nccl import nccl_program
from .nccl.nvls import nvls_chunk_bytes
from .nccl.p2p import COLLECTIVES as P2P_COLLECTIVES
from .nccl.p2p import NVLINK_CHUNK_BYTES, PCI_CHUNK_BYTES
from .nccl.programs import COLLECTIVES
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
    """

    title: str
    collectives: tuple[str, ...]
    make: Maker
    chunk_bytes: Callable[[Program, int], int] = default_chunk_bytes


def _nccl(release: str, version: str, plan: str) -> Baseline:
    title = f"NCCL {release}'s own {plan}, rebuilt from its sources"
    return Baseline(title, COLLECTIVES, partial(nccl_program, version=version), _nccl_chunk_bytes)


def _nccl_or_rccl(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """On AMD's GPUs NCCL is RCCL, and the program says so."""
    maker = rccl_program if topology.devices[0].arch.startswith("gfx") else nccl_program
    return maker(topology, collective, root, nbytes)


def _nccl_chunk_bytes(program: Program, nbytes: int) -> int:
    """NVLS has sizes of its own. By the simple protocol a chain's chunk is an eighth of NCCL's buffer of 4 MiB, whatever the size; sends have their own."""
    if program.multicasts:
        return nvls_chunk_bytes(program, nbytes)
    if _simple(program) and program.collective in ("broadcast", "reduce"):
        return 1 << 19
    if program.collective in P2P_COLLECTIVES:
        fast = all(link.kind in ("NVLINK", "XGMI") for link in _links_used(program))
        return NVLINK_CHUNK_BYTES if fast else PCI_CHUNK_BYTES
    return default_chunk_bytes(program, nbytes)


def _links_used(program: Program) -> list[Link]:
    topology = program.topology
    used = {hop for connection in program.connections for hop in pairwise(connection.path)}
    return [link for link in topology.links if (topology.vertex(link.src), topology.vertex(link.dst)) in used]


def _simple(program: Program) -> bool:
    return all(connection.protocol == "simple" for connection in program.connections)


BASELINES: dict[str, Baseline] = {
    "nccl": replace(_nccl("2.30.7", "2.30", "rings, chains and tuner"), make=_nccl_or_rccl),
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
    baseline = BASELINES.get(name)
    if baseline is None:
        raise SimulationError(f"no baseline is called {name!r}; known: {', '.join(sorted(BASELINES))}")
    if collective not in baseline.collectives:
        raise SimulationError(f"baseline {name} has no {collective}; it has {', '.join(baseline.collectives)}")
    try:
        program = baseline.make(topology.without_relays(), collective, root, nbytes)
    except TopologyError as error:
        raise SimulationError(f"baseline {name} has no program here: {error}") from error
    return program.with_chunk_bytes(baseline.chunk_bytes(program, nbytes))
