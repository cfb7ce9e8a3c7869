"""How large the chunks of a program should be, from its shape alone.

A chunk that is D hops deep in a pipeline of k chunks of c bytes arrives after ``(k + D - 1)`` periods; where a period is
``c/B + s`` microseconds that is least for ``c = sqrt(S s B / (D - 1))`` (Blink, section 4.2.1, finds the same trade-off by
trial: too small pays per chunk, too large delays the tree's leaves). For small chunks what a period costs besides its
bytes is the way of a credit there and back, divided by the slots that are filled meanwhile. Programs whose channels take
several dependent steps an iteration, as rings do, gain nothing from cutting: every iteration goes around anew, so their
chunks are as large as slots allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt
from typing import TypedDict

from ..schedules.identity import ButProtocols, once_a_program
from ..schedules.program import Program
from .groups import group_of, group_rates, protocol_of
from .parameters import Parameters, parameters_for

#: No chunk is larger: four slots of it are the 4 MiB a channel and peer that NCCL takes by default (NCCL_BUFFSIZE).
MOST_CHUNK_BYTES = 1 << 20
#: Where chunks lie in no slots.
_LARGEST_CHUNK_BYTES = 1 << 40
#: No chunk is smaller, unless the share itself is.
LEAST_CHUNK_BYTES = 1 << 12
#: The same in lines, where a chunk costs no fence: eight bytes for each of a block's 256 threads.
LEAST_CHUNK_BYTES_IN_LINES = 1 << 11


@dataclass(frozen=True)
class PipelineShape:
    """What the choice of a chunk size looks at.

    Parameters
    ----------
    largest_share
        The part of the buffer that the heaviest share of a shard has.
    depth
        Hops from the first rank that sends a chunk of it to the last that receives it; the most, of shares as heavy.
    rate_gb_s
        What the narrowest link leaves to that share where all shares run at once.
    lockstep
        Whether an iteration goes through several dependent steps of a channel.
    busy_us
        A channel's own synchronisation a chunk.
    round_trip_us
        From a chunk's store to its slot's being free again, besides the bytes, divided by the slots.
    slots
        Slots of a connection.
    in_slots
        Whether chunks lie in slots, whose memory limits their size.
    least_chunk_bytes
        No chunk is smaller, unless the share itself is.
    """

    largest_share: float
    depth: int
    rate_gb_s: float
    lockstep: bool
    busy_us: float
    round_trip_us: float
    slots: int
    in_slots: bool = True
    least_chunk_bytes: int = LEAST_CHUNK_BYTES


class _Synchronisation(TypedDict):
    busy_us: float
    round_trip_us: float
    slots: int


@once_a_program
def pipeline_shape(program: Program, params: Parameters | None = None) -> PipelineShape:
    """The shape of a program's heaviest share."""
    params = params or parameters_for(program.topology)
    heaviest = max(range(len(program.weights)), key=lambda i: program.weights[i])
    longest = max((len(channel.steps) for channels in program.ranks for channel in channels), default=0)
    shape = PipelineShape(
        largest_share=program.weights[heaviest] / sum(program.weights) / program.nshards,
        depth=max(depth for depth, weight in zip(_depths(program), program.weights, strict=True) if weight == program.weights[heaviest]),
        rate_gb_s=_rate(program, heaviest, params),
        lockstep=longest > 1,
        **_synchronisation(program, params),
        least_chunk_bytes=LEAST_CHUNK_BYTES_IN_LINES if all(c.protocol != "simple" for c in program.connections) else LEAST_CHUNK_BYTES,
    )
    group = group_of(program, params)
    if group is None:
        return shape
    # Over switches that add and copy, through scratch: a channel's steps are one a shard and wait for no other of them;
    # chunks lie in no slots. Where nothing is staged, a rank's steps wait for all others', once a chunk.
    staged = any(region == "scratch" for region, _ in program.multicasts)
    rate = group_rates(program, group, program.topology.capacities())[heaviest]
    return replace(shape, rate_gb_s=rate, lockstep=not staged, busy_us=shape.busy_us * longest, in_slots=False)


def default_chunk_bytes(program: Program, nbytes: int) -> int:
    """The chunk size for a buffer of ``nbytes``, a multiple of 16 bytes; up to 1 MiB where chunks lie in slots.

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
        best = min(max(_pipelined(shape, share_bytes), shape.least_chunk_bytes), share_bytes)
    most = MOST_CHUNK_BYTES if shape.in_slots else _LARGEST_CHUNK_BYTES
    niterations = -(-share_bytes // min(best, most))  # equal chunks, rather than a ragged last one
    return min(most, int(-(-share_bytes // niterations) + 31) // 16 * 16)


def _pipelined(shape: PipelineShape, share_bytes: float) -> float:
    """Where filling and periods balance; chunks too small for the slots to cover a round trip cost more each."""
    rate = shape.rate_gb_s * 1e3
    per_us = share_bytes * rate / max(1, shape.depth - 1)
    long_enough = sqrt(per_us * shape.busy_us)
    covered = rate * (shape.round_trip_us - shape.busy_us) / (1 - 2 / shape.slots) if shape.slots > 2 else float("inf")
    return long_enough if long_enough >= covered else min(covered, sqrt(per_us * shape.round_trip_us))


def _synchronisation(program: Program, params: Parameters) -> _Synchronisation:
    """Of the dearest connection."""
    wire = program.topology.latencies_us
    dearest = _Synchronisation(busy_us=0.0, round_trip_us=0.0, slots=1)
    for i, connection in enumerate(program.connections):
        protocol = params.protocol(protocol_of(program, i))
        alpha_us = protocol.flag_us + sum(wire.get(hop, 0.0) for hop in pairwise(connection.path))
        round_trip_us = 2 * (protocol.busy_us + alpha_us) / connection.slots
        if round_trip_us >= dearest["round_trip_us"]:
            dearest = _Synchronisation(busy_us=protocol.busy_us, round_trip_us=round_trip_us, slots=connection.slots)
    return dearest


def _find_depths(program: Program) -> list[int]:
    """Of every share the most connections that follow one another, a step's waits before its signals."""
    steps: list[tuple[list[int], list[int]]] = []  # what a step reads, and what it goes on to write
    sources: list[set[int]] = [set() for _ in program.weights]
    starts, arrives = [c.src for c in program.connections], [c.dst for c in program.connections]
    for rank, channels in enumerate(program.ranks):
        for channel in channels:
            for step in channel.steps:
                writes = [c for c in step.signal if starts[c] == rank]
                if writes:
                    sources[step.share].update(writes)
                if reads := [c for c in step.wait if arrives[c] == rank]:
                    steps.append((reads, writes))
    depth = _ways_on_without_cycles(len(starts), steps)
    if depth is None:
        ends: dict[int, list[int]] = {}  # connection -> connections that the steps reading it go on to write
        for reads, writes in steps:
            for c in reads:
                ends.setdefault(c, []).extend(writes)
        depth = _ways_on(set().union(*sources), ends)
    return [max((depth[c] for c in of_share), default=0) for of_share in sources]


_depths = once_a_program(_find_depths, ButProtocols)


def _ways_on_without_cycles(nconnections: int, steps: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[int, int] | None:
    """The longest way on from each connection, ends first; None where ways come back to themselves. Takes as long as steps name connections."""
    depth = dict.fromkeys(range(nconnections), 1)
    unread, unwritten = [0] * nconnections, [len(writes) for _, writes in steps]
    writers: list[list[int]] = [[] for _ in range(nconnections)]
    for s, (reads, writes) in enumerate(steps):
        for c in reads:
            unread[c] += 1
        for c in writes:
            writers[c].append(s)
    ready = [c for c in range(nconnections) if unread[c] == 0]
    done = [s for s, left in enumerate(unwritten) if left == 0]
    known = 0
    while ready or done:
        while done:
            reads, writes = steps[done.pop()]
            deepest = 1 + max([depth[c] for c in writes], default=0)
            for c in reads:
                if deepest > depth[c]:
                    depth[c] = deepest
                unread[c] -= 1
                if unread[c] == 0:
                    ready.append(c)
        while ready:
            known += 1
            for s in writers[ready.pop()]:
                unwritten[s] -= 1
                if unwritten[s] == 0:
                    done.append(s)
    return depth if known == nconnections else None


def _ways_on(sources: Set[int], ends: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """The longest way on from each; a way that comes back to itself ends there. Without recursion: chains are as long as ranks are many."""
    depth: dict[int, int] = {}
    for source in sorted(sources):
        path = {} if source in depth else {source: (iter(ends.get(source, ())), 0)}
        while path:
            c, (further, deepest) = path.popitem()
            into = next((d for d in further if d not in path and d != c), None)
            if into is None:
                depth[c] = 1 + deepest
            elif into in depth:
                path[c] = further, max(deepest, depth[into])
                continue
            else:
                path[c] = further, deepest
                path[into] = iter(ends.get(into, ())), 0
                continue
            if path:
                above, (rest, known) = path.popitem()
                path[above] = rest, max(known, depth[c])
    return depth


def _rate(program: Program, share: int, params: Parameters) -> float:
    """GB/s of payload that the narrowest link leaves to a share, the shares on it taking theirs by weight."""
    capacities = program.topology.capacities()
    signalled = {(c, step.share) for channels in program.ranks for channel in channels for step in channel.steps for c in step.signal}
    crossing: dict[tuple[int | str, int | str], set[int]] = {}
    efficiency: dict[tuple[int | str, int | str], float] = {}
    for c, of_share in signalled:
        connection = program.connections[c]
        payload = params.protocol(connection.protocol).efficiency
        for hop in pairwise(connection.path):
            crossing.setdefault(hop, set()).add(of_share)
            efficiency[hop] = min(efficiency.get(hop, 1.0), payload)
    rates = [
        float(capacities[hop]) * efficiency[hop] * program.weights[share] / sum(program.weights[s] for s in shares)
        for hop, shares in crossing.items()
        if share in shares
    ]
    return min(rates, default=1.0)
