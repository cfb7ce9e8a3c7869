"""How large the chunks of a program should be, from its shape alone.

A chunk that is D hops deep in a pipeline of k chunks of c bytes arrives after ``(k + D - 1)`` chunk times; with s
microseconds of synchronisation a chunk and rate B that is ``S/c (c/B + s) + D c/B``, least where ``c = sqrt(S s B / D)``
(Blink, section 4.2.1, finds the same trade-off by trial: too small pays per chunk, too large delays the tree's leaves).
Programs whose channels take several dependent steps an iteration, as rings do, gain nothing from cutting: every
iteration goes around anew, so their chunks are as large as slots allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

from ..schedules.program import Program

#: No chunk is larger: four slots of it are the 4 MiB a channel and peer that NCCL takes by default (NCCL_BUFFSIZE).
MOST_CHUNK_BYTES = 1 << 20
#: No chunk is smaller, unless the share itself is.
LEAST_CHUNK_BYTES = 1 << 12
#: Synchronisation that a channel pays a chunk, µs: see ``simulator/parameters.py``.
SYNC_US = 1.0


@dataclass(frozen=True)
class PipelineShape:
    """What the choice of a chunk size looks at.

    Parameters
    ----------
    largest_share
        The part of the buffer that the heaviest share of a shard has.
    depth
        Hops from the first rank that sends a chunk of it to the last that receives it.
    rate_gb_s
        What the narrowest link leaves to that share where all shares run at once.
    lockstep
        Whether an iteration goes through several dependent steps of a channel.
    """

    largest_share: float
    depth: int
    rate_gb_s: float
    lockstep: bool


def pipeline_shape(program: Program) -> PipelineShape:
    """The shape of a program's heaviest share."""
    heaviest = max(range(len(program.weights)), key=lambda i: program.weights[i])
    return PipelineShape(
        largest_share=program.weights[heaviest] / sum(program.weights) / program.nshards,
        depth=_depth(program, heaviest),
        rate_gb_s=_rate(program, heaviest),
        lockstep=any(len(channel.steps) > 1 for channels in program.ranks for channel in channels),
    )


def default_chunk_bytes(program: Program, nbytes: int) -> int:
    """The chunk size for a buffer of ``nbytes``, a multiple of 16 bytes up to 1 MiB.

    Examples
    --------
    >>> from blinkcoll.schedules import lower_rings
    >>> from blinkcoll.topology import load_topology
    >>> default_chunk_bytes(lower_rings(load_topology("dgx1-v100"), [list(range(8))]), 1 << 30)
    1048576
    """
    return chunk_bytes_for(pipeline_shape(program), nbytes)


def chunk_bytes_for(shape: PipelineShape, nbytes: int) -> int:
    """The chunk size for a shape and a size; see the module's text."""
    share_bytes = max(16.0, nbytes * shape.largest_share)
    best = share_bytes
    if not shape.lockstep:
        best = sqrt(share_bytes * SYNC_US * shape.rate_gb_s * 1e3 / max(1, shape.depth))
        best = min(max(best, LEAST_CHUNK_BYTES), share_bytes)
    niterations = -(-share_bytes // min(best, MOST_CHUNK_BYTES))  # equal chunks, rather than a ragged last one
    return min(MOST_CHUNK_BYTES, int(-(-share_bytes // niterations) + 31) // 16 * 16)


def _depth(program: Program, share: int) -> int:
    """The most connections of a share that follow one another, a step's waits before its signals."""
    ends: dict[int, list[int]] = {}  # connection -> connections that the step reading it goes on to write
    sources: set[int] = set()
    for rank, channels in enumerate(program.ranks):
        for channel in channels:
            for step in channel.steps:
                if step.share != share:
                    continue
                reads = [c for c in step.wait if program.connections[c].dst == rank]
                writes = [c for c in step.signal if program.connections[c].src == rank]
                for c in reads:
                    ends.setdefault(c, []).extend(writes)
                sources.update(writes)
    depth: dict[int, int] = {}

    def longest(c: int, above: frozenset[int]) -> int:
        if c not in depth:
            further = [longest(d, above | {c}) for d in ends.get(c, ()) if d not in above and d != c]
            depth[c] = 1 + max(further, default=0)
        return depth[c]

    return max((longest(c, frozenset()) for c in sorted(sources)), default=0)


def _rate(program: Program, share: int) -> float:
    """GB/s that the narrowest link leaves to a share, the shares on it taking theirs by weight."""
    capacities = program.topology.capacities()
    crossing: dict[tuple[int | str, int | str], set[int]] = {}
    for channels in program.ranks:
        for channel in channels:
            for step in channel.steps:
                for c in step.signal:
                    path = program.connections[c].path
                    for hop in pairwise(path):
                        crossing.setdefault(hop, set()).add(step.share)
    rates = [
        float(capacities[hop]) * program.weights[share] / sum(program.weights[s] for s in shares)
        for hop, shares in crossing.items()
        if share in shares
    ]
    return min(rates, default=1.0)
