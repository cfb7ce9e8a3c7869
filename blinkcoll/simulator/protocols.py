"""By which protocol a program is fastest at a size: lines win where latency counts, counters where the wire does."""

from __future__ import annotations

from ..cost.chunks import default_chunk_bytes
from ..cost.estimate import estimate_us
from ..cost.parameters import Parameters, parameters_for
from ..errors import ScheduleError
from ..schedules import verify
from ..schedules.program import Program
from ..schedules.protocols import EXECUTABLE, with_protocol
from .run import run

#: Closed forms that are this far apart need no simulation: between protocols of one program they err alike.
CLEAR = 1.5
#: From so many bytes a rank on only the simple protocol is looked at: what lines save on hops is less than a sixteenth of
#: the wire's time, in every case that was simulated (docs/simulator.md), and such sizes take longest to simulate.
LARGE_BYTES_PER_RANK = 8 << 20


def fastest_protocol(program: Program, nbytes: int, params: Parameters | None = None) -> Program:
    """The program by the protocol that it is simulated to finish ``nbytes`` first with, proven, and a chunk size for it.

    Parameters
    ----------
    program
        As it was lowered; what protocols its connections have does not matter.
    nbytes
        The size in the collective's sense; what is simulated is whole elements of all shards.

    Raises
    ------
    ScheduleError
        Where the program is not right by any protocol.

    Notes
    -----
    A protocol by which the program is not right, because it relies on an order that lines do not give, is passed over.
    The first of ``EXECUTABLE`` where times are equal. Nothing here depends on the rank.
    """
    params = params or parameters_for(program.topology)
    variants = protocol_variants(program, nbytes)
    size = _whole(program, nbytes)
    refused: ScheduleError | None = None
    for variant in variants[:1] if size >= LARGE_BYTES_PER_RANK * program.nranks else _by_time(variants, size, params):
        try:
            verify(variant, repeated=True)
        except ScheduleError as error:
            refused = error  # the simple protocol's, in the end: its promises are the strongest
            continue
        return variant
    assert refused is not None
    raise refused


def _by_time(variants: list[Program], nbytes: int, params: Parameters) -> list[Program]:
    """The fastest first. Those that are far behind in closed form come last and are not simulated."""
    if len(variants) == 1:
        return variants
    estimates = [estimate_us(p, nbytes, params=params) for p in variants]
    times = {}
    for i, us in enumerate(estimates):
        far = us >= CLEAR * min(estimates)
        times[i] = (far, us if far else run(variants[i], nbytes, params=params).time_us)
    return [variants[i] for i in sorted(times, key=lambda i: (times[i], i))]


def protocol_variants(program: Program, nbytes: int) -> list[Program]:
    """The program by every protocol that some connection of it can have, each with its chunk size for ``nbytes``.

    They are not yet proven; see :func:`blinkcoll.schedules.protocols.with_protocol`.
    """
    made = [with_protocol(program, name) for name in EXECUTABLE]
    fitting = [p for name, p in zip(EXECUTABLE, made, strict=True) if name == "simple" or any(c.protocol == name for c in p.connections)]
    return [p.with_chunk_bytes(default_chunk_bytes(p, nbytes)) for p in fitting]


def _whole(program: Program, nbytes: int) -> int:
    unit = 4 * (program.nshards if program.equal_shards else 1)
    return nbytes // unit * unit
