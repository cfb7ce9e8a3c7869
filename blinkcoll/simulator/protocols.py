"""By which protocol a program is fastest at a size: lines win where latency counts, counters where the wire does."""

from __future__ import annotations

from ..cost.chunks import default_chunk_bytes
from ..cost.estimate import estimate_us
from ..cost.parameters import Parameters, parameters_for
from ..errors import ScheduleError
from ..schedules.program import Program
from ..schedules.protocols import EXECUTABLE, with_protocol
from .run import run

#: Closed forms that are this far apart need no simulation: between protocols of one program they err alike.
CLEAR = 1.5


def fastest_protocol(program: Program, nbytes: int, params: Parameters | None = None) -> Program:
    """The program by the protocol that it is simulated to finish ``nbytes`` first with, and a chunk size for it.

    Parameters
    ----------
    program
        As it was lowered; what protocols its connections have does not matter.
    nbytes
        The size in the collective's sense, rounded to whole elements of all shards.

    Notes
    -----
    Only what executors can run is considered, and only protocols by which the program is still proven right. The simple
    one where times are equal. Nothing here depends on the rank.
    """
    params = params or parameters_for(program.topology)
    variants = protocol_variants(program, nbytes)
    size = _whole(program, nbytes)
    estimates = [estimate_us(p, size, params=params) for p in variants]
    near = [p for p, us in zip(variants, estimates, strict=True) if us < CLEAR * min(estimates)]
    if len(near) == 1:
        return near[0]
    return min(near, key=lambda p: run(p, size, params=params).time_us)


def protocol_variants(program: Program, nbytes: int) -> list[Program]:
    """The program by every protocol that it can be run with, each with its chunk size for ``nbytes``; simple first."""
    variants = []
    for name in EXECUTABLE:
        try:
            made = with_protocol(program, name)
        except ScheduleError:
            if name == "simple":
                raise
            continue  # it relies on an order that this protocol does not give
        if name == "simple" or any(c.protocol == name for c in made.connections):
            variants.append(made.with_chunk_bytes(default_chunk_bytes(made, nbytes)))
    return variants


def _whole(program: Program, nbytes: int) -> int:
    unit = 4 * (program.nshards if program.equal_shards else 1)
    return nbytes // unit * unit
