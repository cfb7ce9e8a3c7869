"""The same program by another protocol: a pass over connections (``csrc/blinkcoll/protocol.h`` says what each is).

``simple``: data, a fence, a counter. ``LL``: four bytes of data and four of flag by one access, so that data is its own
news; half of the wire is flags. ``LL128``: 120 bytes of data and eight of flag by one store of a warp, which only NVLink
from Volta on keeps whole. The names are NCCL's.

A connection suits lines where every use of it is one step on either side: wait, one operand, signal. One that only signals
stays simple, because its readers rely on what the signal orders; so does one at an exchange, or at a step with an operand of
all ranks, which move whole chunks.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from ..errors import ScheduleError
from ..topology import Path, Topology
from .program import PROTOCOLS, Program

#: By these a program can be run; the order is that of preference where times are equal.
EXECUTABLE = PROTOCOLS
#: Links over which a warp's store of 128 bytes arrives whole, and since which architecture: NCCL enables LL128 over NVLink
#: from Volta on (NCCL 2.30.7, src/graph/tuning.cc, ncclTopoTuneModel).
_WHOLE_KINDS = frozenset({"NVLINK"})
_WHOLE_SINCE = 70


def with_protocol(program: Program, name: str) -> Program:
    """The same program with every connection that suits it by protocol ``name``; the others are simple.

    What it returns is not yet proven: some programs rely on an order that lines do not give (docs/programs.md), and
    :func:`verify` says so.

    Raises
    ------
    ScheduleError
        Where there is no such protocol.

    Examples
    --------
    >>> import blinkcoll as bc
    >>> program = bc.plan(bc.load_topology("dgx1-v100"), "allreduce").schedule(nbytes=1 << 30, protocol="simple")
    >>> {c.protocol for c in with_protocol(program, "LL").connections}
    {'LL'}
    """
    if name not in EXECUTABLE:
        raise ScheduleError(f"no protocol is called {name!r}; known: {', '.join(EXECUTABLE)}")
    suited = _suited(program, name)
    protocols = [name if i in suited else "simple" for i in range(len(program.connections))]
    return program.with_connections(tuple(c if c.protocol == p else replace(c, protocol=p) for c, p in zip(program.connections, protocols, strict=True)))


def suits(program: Program, name: str) -> bool:
    """Whether every connection of a program can have protocol ``name``, whatever they have now."""
    return len(_suited(program, name)) == len(program.connections)


def keeps_lines_whole(topology: Topology, path: Path) -> bool:
    """Whether stores of 128 bytes arrive whole over a path: by NVLink alone, between devices from Volta on."""
    return _all_have_whole_lines(topology) and all(topology.kinds_between.get(hop) == _WHOLE_KINDS for hop in pairwise(path))


@lru_cache(maxsize=64)
def _all_have_whole_lines(topology: Topology) -> bool:
    return all(has_whole_lines(device.arch) for device in topology.devices)


def has_whole_lines(arch: str | None) -> bool:
    """Whether an architecture (``"sm_80"``) has LL128 at all."""
    named = re.match(r"sm_(\d+)", arch or "")
    return named is not None and int(named[1]) >= _WHOLE_SINCE


def _suited(program: Program, protocol: str) -> set[int]:
    """The connections that can have a protocol: lines go from memory of a GPU's to memory of a GPU's."""
    if protocol == "simple":
        return set(range(len(program.connections)))
    suited = {i for i in program.single_uses if program.connections[i].transport == "peer"}
    if protocol == "LL128":
        ways = {program.connections[i].path for i in suited}
        kept = {way for way in ways if keeps_lines_whole(program.topology, way)}
        suited = {i for i in suited if program.connections[i].path in kept}
    return suited
