"""Which programs ranks under one memory run, by collective and size.

Under one memory every pair of ranks is alike, so the classic direct families are the best there is: for all-reduce one
exchange where latency counts and two where traffic does; for the rest, every rank hands its data to whoever needs it in
one hop. Ranks under several memories (NUMA nodes) get plans for what joins these. A machine named by ``BLINKCOLL_TOPO`` is planned as that machine instead, so that its programs can be tried on any
host.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from .. import _core
from ..packing import make_plan
from ..schedules import (
    INPUT,
    OUTPUT,
    SCALED_INPUT,
    Channel,
    Program,
    Step,
    in_one_channel,
    lower,
    lower_barrier,
    lower_both_ways,
    lower_direct,
    lower_one_shot,
    lower_rings,
    lower_star,
    lower_two_shot,
    verify,
)
from ..schedules.contract import REDUCING
from ..schedules.direct import CHUNK_BYTES
from ..schedules.trees import MAX_CHANNELS
from ..topology import Topology

#: Chunks of large calls: 256 KiB between two ranks, 128 KiB among four, 64 KiB among more. What fewer chunks spare in waits counts
#: for more than what ranks do beside each other (measured at 64, 128 and 256 KiB, 2, 4 and 8 ranks).
_CHUNKS_BYTES, _LEAST_CHUNK_BYTES = 512 << 10, 64 << 10
#: Slots of a connection for large calls: a few chunks keep writer and reader apart, and are still in the caches when they are written
#: again (measured: 4, 8 and 16).
_LARGE_SLOTS = 4
#: Between two ranks all slots of one together are of this size, or larger: twice that of a core's second cache (1 MiB since 2017).
_LEAST_POOL_BYTES = 2 << 20
#: Slots of programs for small calls: between two ranks (the more, the seldomer the writer looks what has been taken, and with more
#: than eight of 8 KiB they outgrow the first cache), and among more, which may share cores: the more calls one rank can make ahead of
#: the others, the fewer turns they have to take.
_SMALL_SLOTS = (8, 16)
#: One exchange up to this size, then two: each rank adds up all inputs, or one part of them.
_ONE_SHOT_BYTES = 8 << 10
#: Where ranks are under several memories, two exchanges up to this size, then packed trees, which cross what joins the memories
#: less often (simulated, 4 and 8 ranks on 2 nodes at 16 GB/s: two exchanges are faster up to 4 MiB, trees from 8 MiB on).
_SPREAD_BYTES = 6 << 20
#: Slots of programs for small calls are their own; those of large calls lie in a pool that all such programs share.
_SMALL_BYTES = 8 << 10
#: Ranks that the exchanges of everybody with everybody are for.
_MOST_DIRECT = 32
LARGEST = 1 << 62
#: Smaller arrays lie in small pages throughout: nothing is gained by moving them in more parts than there are ranks to move them, and each costs a system
#: call (1 to 1.5 us; broadcasts of 256 KiB between two ranks in two parts 11.6 us, in eight 17.5).
_HUGE_PAGE_BYTES = 2 << 20
#: From this size on outputs may be too large to be left in the caches.
_LARGE_OUTPUT_BYTES = 8 << 20
#: Where ranks can use each other's memory, the size from which on more than two of them try to (below, a signal from everybody to everybody costs more than
#: the second copy); two do beyond small calls. Reduces and reduce-scatters come out in other bits than through slots, so their size alone decides (measured: benchmarks/host.py). What two ranks add up comes through slots as fast at any size, for
#: it is read once from there, added, and stored where the other reads it.
_DIRECT_BYTES, _DIRECT_SUM_BYTES = 128 << 10, 32 << 20

THROUGH_CACHES, SLOTS_PAST, OUTPUTS_PAST, ALL_PAST, BY_SIZE = _core.STORES
#: How chunks are stored and cut. What is best depends on the CPU, and on what its cores share.
_WAYS = ((THROUGH_CACHES, False), (THROUGH_CACHES, True), (SLOTS_PAST, True))
_LARGE_WAYS = (*_WAYS, (OUTPUTS_PAST, True), (ALL_PAST, True))


@dataclass(frozen=True)
class HostProgram:
    """A program with the largest size that it is for.

    ``pooled``: its slots lie in the pool. ``stores``: what it writes past the caches. ``spread``: chunks are smaller, and go round in all memory of the
    slots, of which each has ``room`` for so many of full size. Of those that are for the same sizes, and follow each
    other, ranks run the one that took the least time lately (``csrc/host/choice.h``); all give the same bits.
    """

    program: Program
    most_bytes: int
    chunk_bytes: int
    pooled: bool
    stores: int = BY_SIZE
    spread: bool = False
    room: int = 1

    @property
    def slot_bytes(self) -> int:
        """What slots have room for."""
        return self.chunk_bytes * self.room

    @property
    def placed_as(self) -> tuple[str, int, int, bool]:
        """Those that have this in common lie in the same memory."""
        return self.program.hash, self.chunk_bytes, self.room, self.pooled


def agreement_program(topology: Topology) -> HostProgram:
    """An all-gather of eight bytes a rank, by which ranks choose the programs of calls."""
    program = lower(make_plan(topology, "allgather"), slots=_SMALL_SLOTS[topology.nranks > 2])
    if len(memories_of(topology)) == 1:
        program = in_one_channel(program)
    verify(program, repeated=True)
    return HostProgram(program, LARGEST, 64, pooled=False)


def programs_for(topology: Topology, collective: str, root: int | None, *, direct: bool, crowded: bool = False) -> list[HostProgram]:
    """The programs of one collective, by rising size; all verified.

    ``direct``: ranks can read and write each other's memory. ``crowded``: there are more ranks than cores. Where the environment says
    ``BLINKCOLL_TUNE=0``, there is one for each size.
    """
    if topology.nranks == 1:
        return [HostProgram(_alone(topology, collective, root), LARGEST, _LEAST_CHUNK_BYTES, pooled=False)]
    hosts = all(device.kind == "host" for device in topology.devices)
    if collective == "barrier":
        made = _barrier(topology, crowded)
    else:
        made = _allreduce(topology) if hosts and collective == "allreduce" else _planned(topology, collective, root)
    if hosts and collective != "barrier":
        made = _in_all_ways(made, topology, collective, root, direct and len(memories_of(topology)) == 1)
    if os.environ.get("BLINKCOLL_TUNE") == "0":
        made = _first_of_each(made)
    for program in {part.program.hash: part.program for part in made}.values():
        verify(program, repeated=True)
    return made


def _allreduce(topology: Topology) -> list[HostProgram]:
    n = topology.nranks
    if n > _MOST_DIRECT:
        return _by_size(n, lambda slots: lower_rings(topology, [list(range(n))], slots=slots))
    one = HostProgram(lower_one_shot(topology, slots=_SMALL_SLOTS[n > 2]), _ONE_SHOT_BYTES, _ONE_SHOT_BYTES, pooled=False)
    # Two ranks that have a core each keep chunks under way (measured, 4 MiB: 142 us and 151); more of them wait for turns anyway.
    two = _by_size(n, lambda slots: lower_two_shot(topology, slots=slots, staged=n == 2))[-1]
    if len(memories_of(topology)) == 1:
        return [one, two]
    return [one, replace(two, most_bytes=_SPREAD_BYTES), _planned(topology, "allreduce", None)[-1]]


def memories_of(topology: Topology) -> set[str]:
    """What ranks are attached to: where there is one, all see the same memory alike."""
    ranks = {device.name for device in topology.devices}
    return {link.dst for link in topology.links if link.src in ranks}


def _barrier(topology: Topology, crowded: bool) -> list[HostProgram]:
    slots = 4  # nobody gets further ahead in any case
    program = lower_star(topology, "barrier", slots=slots) if crowded else lower_barrier(topology, slots=slots)
    return [HostProgram(program, LARGEST, 64, pooled=False)]


#: Of one hop to or from the root; what the exact plans have others pass on would only wait for them.
_STARS = ("broadcast", "reduce")


def _alone(topology: Topology, collective: str, root: int | None) -> Program:
    """One rank has nobody to talk to: its output is its input."""
    reduces = collective in REDUCING
    step = Step("nop", 0) if collective == "barrier" else Step("copy", 0, (SCALED_INPUT if reduces else INPUT,), (OUTPUT,), postscaled=reduces)
    return Program("alone", collective, topology, 1, (1,), (), ((Channel((step,)),),), root=root, in_place=collective != "alltoallv")


def _planned(topology: Topology, collective: str, root: int | None) -> list[HostProgram]:
    uneven = collective == "alltoallv"  # the others take unequal shards as they are
    plan = make_plan(topology, "alltoall" if uneven else collective, root=root)
    hosts, most = all(device.kind == "host" for device in topology.devices), MAX_CHANNELS
    if hosts and collective in (*_STARS, "allreduce"):
        # Channels take turns on one thread, so more than one for each half of a tree would carry nothing meanwhile.
        most = len(plan.trees) * (2 if collective == "allreduce" else 1)
    small, large = _by_size(topology.nranks, lambda slots: lower(plan, slots=slots, max_channels=most, uneven=uneven))
    if not hosts:
        return [small, large]
    one_memory = len(memories_of(topology)) == 1
    if collective == "broadcast" and topology.nranks > 2 and one_memory:  # written once, and read by all
        large = replace(large, program=lower_star(topology, collective, root, slots=_LARGE_SLOTS))
    if collective in _STARS:
        program = lower_star(topology, collective, root, slots=_SMALL_SLOTS[topology.nranks > 2])
    elif one_memory:  # and so one hop to everybody: nobody waits for what others are to pass on
        program = in_one_channel(small.program)
    else:
        return [small, large]
    return [replace(small, program=program), large]


def _in_all_ways(made: list[HostProgram], topology: Topology, collective: str, root: int | None, direct: bool) -> list[HostProgram]:
    """The same with what else serves large sizes: other ways to store and, if ``direct``, programs that use other ranks' buffers."""
    n, parts, least = topology.nranks, [], 0
    direct = direct and n <= _MOST_DIRECT
    others = _direct_ways(topology, collective, root) if direct else []
    ends = _DIRECT_SUM_BYTES if direct and n > 2 and collective in ("reduce", "reducescatter") else LARGEST
    for part in made:
        if part.pooled:
            parts += _in_ways(replace(part, most_bytes=min(part.most_bytes, ends)), least, others)
        else:
            parts.append(part)
        least = part.most_bytes
    if ends < LARGEST:
        parts.append(HostProgram(lower_direct(topology, collective, root), LARGEST, CHUNK_BYTES, pooled=False))
    return parts


@dataclass(frozen=True)
class _DirectWay:
    """A program that uses other ranks' buffers, and the sizes that it is tried for: above the one, up to the other."""

    program: Program
    above: int
    most_bytes: int = LARGEST


def _in_ways(part: HostProgram, least: int, others: list[_DirectWay]) -> list[HostProgram]:
    """Of a program whose slots lie in the pool, for calls of more than ``least`` bytes, and of others that serve the same calls."""
    # From here on chunks that go round are as large as any, and so are slots: it is all the same.
    alike = _core.SPREAD_CHUNKS * part.chunk_bytes if part.room == 1 else part.most_bytes
    inner = (alike, _LARGE_OUTPUT_BYTES, *(end for other in others for end in (other.above, other.most_bytes)))
    parts = []
    for begin, end in pairwise(sorted({least, *(cut for cut in inner if least < cut < part.most_bytes), part.most_bytes})):
        wanted = _WAYS if begin < _LARGE_OUTPUT_BYTES else _LARGE_WAYS
        ways = dict.fromkeys((stores, spread and begin < alike) for stores, spread in wanted)
        parts += [replace(part, most_bytes=end, stores=stores, spread=spread) for stores, spread in ways]
        parts += [HostProgram(other.program, end, CHUNK_BYTES, pooled=False) for other in others if other.above <= begin and end <= other.most_bytes]
    return parts


def _direct_ways(topology: Topology, collective: str, root: int | None) -> list[_DirectWay]:
    """Those that give the bits that slots do."""
    if collective in ("reduce", "reducescatter", "alltoallv") or (collective == "allreduce" and topology.nranks == 2):
        return []
    if topology.nranks > 2:
        return [_DirectWay(lower_direct(topology, collective, root), _DIRECT_BYTES)]
    if collective == "alltoall":
        return [_DirectWay(lower_direct(topology, collective), 0)]
    if collective == "allgather":  # one array lies in huge pages to another extent than the next
        return [_DirectWay(lower_direct(topology, collective), 0), _DirectWay(lower_both_ways(topology, collective, pieces=2), _HUGE_PAGE_BYTES)]
    # A core finds its own part in its own cache where parts are cut once; and the kernel reads faster than it writes.
    return [
        _DirectWay(lower_both_ways(topology, collective, root, pieces=1), 0, _HUGE_PAGE_BYTES),
        _DirectWay(lower_both_ways(topology, collective, root, pieces=4), _HUGE_PAGE_BYTES),
        _DirectWay(lower_both_ways(topology, collective, root, pieces=1, written=0), _HUGE_PAGE_BYTES),
        _DirectWay(lower_both_ways(topology, collective, root, pieces=1, read=3, written=2), _LARGE_OUTPUT_BYTES),
    ]


def _first_of_each(parts: list[HostProgram]) -> list[HostProgram]:
    """Of those that are for the same sizes, stored by size."""
    return [replace(part, stores=BY_SIZE) for i, part in enumerate(parts) if i == 0 or parts[i - 1].most_bytes != part.most_bytes]


def _by_size(nranks: int, lowered: Callable[[int], Program]) -> list[HostProgram]:
    """The program twice: with small slots of its own, and with large ones in the pool, the larger the fewer peers there are."""
    chunk_bytes = max(_LEAST_CHUNK_BYTES, _CHUNKS_BYTES >> (nranks - 1).bit_length())
    small, large = lowered(_SMALL_SLOTS[nranks > 2]), lowered(_LARGE_SLOTS)
    read = max(sum(c.slots for c in large.connections if c.dst == rank) for rank in range(nranks)) * chunk_bytes
    room = _LEAST_POOL_BYTES // read if nranks == 2 and 0 < read < _LEAST_POOL_BYTES else 1
    return [HostProgram(small, _SMALL_BYTES, _SMALL_BYTES, pooled=False), HostProgram(large, LARGEST, chunk_bytes, pooled=True, room=room)]
