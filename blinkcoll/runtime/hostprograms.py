"""Which programs ranks under one memory run, by collective and size.

Under one memory every pair of ranks is alike, so the classic direct families are the best there is: for all-reduce one
exchange where latency counts and two where traffic does; for the rest, every rank hands its data to whoever needs it in
one hop. A machine named by ``BLINKCOLL_TOPO`` is planned as that machine instead, so that its programs can be tried on any
host.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..packing import make_plan
from ..schedules import (
    INPUT,
    OUTPUT,
    SCALED_INPUT,
    Channel,
    Program,
    Step,
    lower,
    lower_barrier,
    lower_direct,
    lower_one_shot,
    lower_rings,
    lower_two_shot,
    verify,
)
from ..schedules.contract import REDUCING
from ..topology import Topology

#: Chunks of large calls: with their slots they stay in a core's second cache (measured: benchmarks/host.py).
_CHUNK_BYTES, _SLOTS = int(os.environ.get('BCC', 64 << 10)), int(os.environ.get('BCS', 32))
#: One exchange up to this size, then two: each rank adds up all inputs, or one part of them.
_ONE_SHOT_BYTES = 8 << 10
#: Slots of programs for small calls are their own; those of large calls lie in a pool that all such programs share.
_SMALL_BYTES = 8 << 10
#: Ranks that the exchanges of everybody with everybody are for.
_MOST_DIRECT = 32
LARGEST = 1 << 62
#: Where ranks can read each other's memory, they do beyond these sizes: below, a system call costs more than the second copy.
_DIRECT_BYTES = int(os.environ.get('BCD', 32 << 10))


@dataclass(frozen=True)
class HostProgram:
    """A program with the largest size that it is for.

    ``pooled``: its slots lie in the pool.
    """

    program: Program
    most_bytes: int
    chunk_bytes: int
    pooled: bool


def programs_for(topology: Topology, collective: str, root: int | None, *, direct: bool) -> list[HostProgram]:
    """The programs of one collective, by rising size; all verified.

    ``direct``: ranks can read and write each other's memory.
    """
    if topology.nranks == 1:
        return [HostProgram(_alone(topology, collective, root), LARGEST, _CHUNK_BYTES, pooled=False)]
    hosts = all(device.kind == "host" for device in topology.devices)
    family = _FAMILIES.get(collective) if hosts or collective == "barrier" else None
    made = _planned(topology, collective, root) if family is None else family(topology)
    if hosts and direct and collective != "barrier" and topology.nranks <= _MOST_DIRECT:
        made = _with_direct(made, lower_direct(topology, collective, root))
    for part in made:
        verify(part.program, repeated=True)
    return made


def _allreduce(topology: Topology) -> list[HostProgram]:
    n = topology.nranks
    if n > _MOST_DIRECT:
        return _by_size(lower_rings(topology, [list(range(n))], slots=_SLOTS))
    one = HostProgram(lower_one_shot(topology), _ONE_SHOT_BYTES, _ONE_SHOT_BYTES, pooled=False)
    return [one, *_by_size(lower_one_shot(topology, slots=_SLOTS) if os.environ.get("BC1") and n == 2 else lower_two_shot(topology, slots=_SLOTS))]


def _barrier(topology: Topology) -> list[HostProgram]:
    return [HostProgram(lower_barrier(topology), LARGEST, 64, pooled=False)]


_FAMILIES: dict[str, Callable[[Topology], list[HostProgram]]] = {"allreduce": _allreduce, "barrier": _barrier}


def _alone(topology: Topology, collective: str, root: int | None) -> Program:
    """One rank has nobody to talk to: its output is its input."""
    reduces = collective in REDUCING
    step = Step("nop", 0) if collective == "barrier" else Step("copy", 0, (SCALED_INPUT if reduces else INPUT,), (OUTPUT,), postscaled=reduces)
    return Program("alone", collective, topology, 1, (1,), (), ((Channel((step,)),),), root=root)


def _planned(topology: Topology, collective: str, root: int | None) -> list[HostProgram]:
    return _by_size(lower(make_plan(topology, collective, root=root), slots=_SLOTS))


def _with_direct(made: list[HostProgram], program: Program) -> list[HostProgram]:
    """Those for smaller sizes, then the direct one."""
    smaller = [replace(part, most_bytes=min(part.most_bytes, _DIRECT_BYTES)) for part in made]
    return [*smaller, HostProgram(program, LARGEST, program.chunk_bytes, pooled=False)]


def _by_size(program: Program) -> list[HostProgram]:
    """The program twice: with small slots of its own, and with large ones in the pool."""
    return [HostProgram(program, _SMALL_BYTES, _SMALL_BYTES, pooled=False), HostProgram(program, LARGEST, _CHUNK_BYTES, pooled=True)]
