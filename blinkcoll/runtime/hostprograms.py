"""Which programs ranks under one memory run, by collective and size.

Under one memory every pair of ranks is alike, so the classic direct families are the best there is: for all-reduce one
exchange where latency counts and two where traffic does; for the rest, every rank hands its data to whoever needs it in
one hop. Ranks under several memories (NUMA nodes) get plans for what joins these. A machine named by ``BLINKCOLL_TOPO`` is planned as that machine instead, so that its programs can be tried on any
host.
"""

from __future__ import annotations

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
#: Where more than two ranks can use each other's memory, they do beyond these sizes. Below, the
#: system calls and the pinning of pages cost more than the second copy (measured: benchmarks/host.py). What two ranks add up comes through slots as fast at
#: any size, for it is read once from there, added, and stored where the other reads it.
#: All-gathers and all-to-alls do so only where inputs lie in huge pages (:attr:`HostProgram.huge_near`).
_DIRECT_BYTES = {
    "allreduce": 8 << 20, "reduce": 32 << 20, "reducescatter": 32 << 20, "allgather": 3 << 20, "alltoall": 8 << 20, "gather": 8 << 20, "scatter": 6 << 20,
}  # fmt: skip
#: Between two ranks: from the first size on. In all-gathers up to the second each reads one half and writes the other, since one array lies in
#: huge pages to another extent than the next (numpy's of 4 MiB: one half does, the other does not; 98 us, and 140 where each only reads).
#: Where cores share a last-level cache, slots serve beyond the third (64 MiB: 2.0 ms, and 2.9 by reading), and up to it, too, unless
#: most pages are huge (a MiB to each rank: 40 us through slots, 21 to 35 from huge pages, and 70 to 110 from small ones; where they share
#: none 65, 21, and 70 to 90).
_EXCHANGE_BYTES = (3 << 20, 10 << 20, 32 << 20)
#: Bytes that move from or to a root, between two ranks, from which on each copies a part, where they lie in huge pages: half of it up to the
#: second size (12 us a MiB, and 20 to 31 through slots), and beyond, where the cores share no cache, 3/5 are read and 2/5 written
#: (the kernel reads faster: broadcasts of 16 MiB 290 us, and 570 through slots; of 64 MiB 2.0 ms, and 2.6). Where they share none and only
#: what is sent lies in such pages, all is read, up to the third size (24 us a MiB).
_BOTH_WAYS_BYTES = (1 << 20, 10 << 20, 6 << 20)
#: More than all pages.
_NEVER = 101


@dataclass(frozen=True)
class HostProgram:
    """A program with the largest size that it is for.

    ``pooled``: its slots lie in the pool. ``huge_near``, ``huge_far``: how much of what ranks reach of each one's memory is to lie in huge pages for
    it to serve, in percent, where peers share a cache and where they do not; ``blind``: it does where the kernel does not tell. Calls of more
    than ``most_near`` bytes it serves only where they do not. Else one behind it that is for such sizes does, or the last one before that makes
    no conditions.
    """

    program: Program
    most_bytes: int
    chunk_bytes: int
    pooled: bool
    huge_near: int = 0
    huge_far: int = 0
    blind: bool = False
    most_near: int = LARGEST

    @property
    def conditional(self) -> bool:
        """Whether ranks have to agree that it serves."""
        return self.huge_near > 0 or self.huge_far > 0


def agreement_program(topology: Topology) -> HostProgram:
    """An all-gather of a byte a rank, by which ranks agree on the program of a call. Of one slot: each call looks at a counter of the
    peer's, and the second of two in a row so learns how near it is."""
    program = in_one_channel(lower(make_plan(topology, "allgather"), slots=1))
    verify(program, repeated=True)
    return HostProgram(program, LARGEST, 64, pooled=False)


def programs_for(topology: Topology, collective: str, root: int | None, *, direct: bool, crowded: bool = False) -> list[HostProgram]:
    """The programs of one collective, by rising size; all verified.

    ``direct``: ranks can read and write each other's memory. ``crowded``: there are more ranks than cores.
    """
    if topology.nranks == 1:
        return [HostProgram(_alone(topology, collective, root), LARGEST, _LEAST_CHUNK_BYTES, pooled=False)]
    hosts = all(device.kind == "host" for device in topology.devices)
    if collective == "barrier":
        made = _barrier(topology, crowded)
    else:
        made = _allreduce(topology) if hosts and collective == "allreduce" else _planned(topology, collective, root)
    if hosts and direct and len(_memories(topology)) == 1:
        made = _with_direct(made, topology, collective, root)
    for part in made:
        verify(part.program, repeated=True)
    return made


def _allreduce(topology: Topology) -> list[HostProgram]:
    n = topology.nranks
    if n > _MOST_DIRECT:
        return _by_size(n, lambda slots: lower_rings(topology, [list(range(n))], slots=slots))
    one = HostProgram(lower_one_shot(topology, slots=_SMALL_SLOTS[n > 2]), _ONE_SHOT_BYTES, _ONE_SHOT_BYTES, pooled=False)
    # Two ranks that have a core each keep chunks under way (measured, 4 MiB: 142 us and 151); more of them wait for turns anyway.
    two = _by_size(n, lambda slots: lower_two_shot(topology, slots=slots, staged=n == 2))[-1]
    if len(_memories(topology)) == 1:
        return [one, two]
    return [one, replace(two, most_bytes=_SPREAD_BYTES), _planned(topology, "allreduce", None)[-1]]


def _memories(topology: Topology) -> set[str]:
    """What ranks are attached to."""
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
    if collective in _STARS:
        program = lower_star(topology, collective, root, slots=_SMALL_SLOTS[topology.nranks > 2])
    elif len(_memories(topology)) == 1:  # and so one hop to everybody: nobody waits for what others are to pass on
        program = in_one_channel(small.program)
    else:
        return [small, large]
    return [replace(small, program=program), large]


def _with_direct(made: list[HostProgram], topology: Topology, collective: str, root: int | None) -> list[HostProgram]:
    """The same with those that use other ranks' buffers, where there are any for the collective and so many ranks."""
    n = topology.nranks
    if n == 2:
        return _with_direct_of_two(made, topology, collective, root)
    if collective not in _DIRECT_BYTES or n > _MOST_DIRECT:
        return made
    direct = HostProgram(lower_direct(topology, collective, root), LARGEST, CHUNK_BYTES, False)
    if collective in ("allgather", "alltoall"):
        direct = replace(direct, huge_near=50, huge_far=50, blind=True)
    return [*_up_to(_DIRECT_BYTES[collective], made), direct]


def _with_direct_of_two(made: list[HostProgram], topology: Topology, collective: str, root: int | None) -> list[HostProgram]:
    """In the order in which those for a size are preferred. How much has to be huge follows from what a MiB of either takes (above), not from a measurement of each."""

    def both_ways(most_bytes: int, *, near: int, far: int, pieces: int, read: int = 1, written: int = 1) -> HostProgram:
        program = lower_both_ways(topology, collective, root, pieces=pieces, read=read, written=written)
        return HostProgram(program, most_bytes, CHUNK_BYTES, False, huge_near=near, huge_far=far)

    if collective in ("allgather", "alltoall"):
        begin, halved, most_near = _EXCHANGE_BYTES
        read = HostProgram(lower_direct(topology, collective), LARGEST, CHUNK_BYTES, False, huge_near=90, huge_far=30, blind=True, most_near=most_near)
        halves = [both_ways(halved, near=70, far=30, pieces=2)] if collective == "allgather" else []
        return [*_up_to(begin, made), *halves, read]
    if collective in ("broadcast", "gather", "scatter"):
        begin, halved, all_read = (nbytes if collective == "broadcast" else 2 * nbytes for nbytes in _BOTH_WAYS_BYTES)
        # What is read is the sender's, what is written lies where it belongs; so the less of that is huge, the sooner all is read.
        return [
            *_up_to(begin, made),
            both_ways(halved, near=67, far=75, pieces=4),
            both_ways(all_read, near=_NEVER, far=90, pieces=1, written=0),
            both_ways(halved, near=_NEVER, far=45, pieces=4),
            both_ways(LARGEST, near=_NEVER, far=50, pieces=1, read=3, written=2),
            both_ways(all_read, near=_NEVER, far=67, pieces=1, written=0),
        ]
    return made


def _up_to(nbytes: int, parts: list[HostProgram]) -> list[HostProgram]:
    return [replace(part, most_bytes=min(part.most_bytes, nbytes)) for part in parts]


def _by_size(nranks: int, lowered: Callable[[int], Program]) -> list[HostProgram]:
    """The program twice: with small slots of its own, and with large ones in the pool, the larger the fewer peers there are."""
    chunk_bytes = max(_LEAST_CHUNK_BYTES, _CHUNKS_BYTES >> (nranks - 1).bit_length())
    return [HostProgram(lowered(_SMALL_SLOTS[nranks > 2]), _SMALL_BYTES, _SMALL_BYTES, pooled=False), HostProgram(lowered(_LARGE_SLOTS), LARGEST, chunk_bytes, pooled=True)]
