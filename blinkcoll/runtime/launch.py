"""What every executor sets up: the memory a rank needs beside its data, and the record it is launched with.

The structs mirror ``csrc/blinkcoll/launch.h`` byte for byte. All addresses are offsets from a base that the caller
gives per rank, so that one layout serves memory of this process, a segment mapped anywhere, and device memory.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ExecutionError
from ..schedules import Program
from ..schedules.contract import REDUCING
from ..schedules.program import PROTOCOLS
from .buffers import check_count
from .shards import Shards, table_bytes

LINE_BYTES = 128
_SLOT_ALIGNMENT = 256
#: Numbers of ``enum DType``; any other dtype is only copied (0).
DTYPES = {
    "float32": 1, "float64": 2, "float16": 3, "bfloat16": 4, "int64": 5, "int32": 6, "int16": 7, "int8": 8, "uint8": 9, "bool": 10,
}  # fmt: skip
#: Numbers of ``enum ReduceOp``: ``avg`` is a sum divided by the number of ranks, ``premul_sum`` one of scaled inputs.
OPS = {"sum": 0, "prod": 1, "min": 2, "max": 3, "band": 4, "bor": 5, "bxor": 6, "avg": 0, "premul_sum": 0}
_ON_CONNECTION, _ON_CHANNEL = 1, 2
UNREACHABLE, OTHER_CALL = 3, 4  # of enum RecordCode
BUFFER_ORDER = ("input", "output", "scratch")


class LaunchRecord(ctypes.Structure):
    """``struct Launch``."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("program", "buffers", "connections", "cursors", "progress", "records", "abort", "doorbell")),
        *((name, ctypes.c_uint64) for name in ("bounds", "places", "count", "chunk_bytes", "slot_bytes", "skewed", "spots", "timeout_ns")),
        ("prescale", ctypes.c_double),
        *((name, ctypes.c_uint32) for name in ("rank", "elem_size", "dtype", "op", "epoch", "divisor")),
        ("multicast", ctypes.c_uint64 * 3),
    ]


class BufferAddresses(ctypes.Structure):
    """``struct BufferAddresses``."""

    _fields_ = [(name, ctypes.c_uint64) for name in BUFFER_ORDER]


class ConnectionAddresses(ctypes.Structure):
    """``struct ConnectionAddresses``."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("slots", "tail", "head")]


class CounterLine(ctypes.Structure):
    """``struct CounterLine``."""

    _fields_ = [
        ("value", ctypes.c_uint64), ("doorbell", ctypes.c_int32), ("pad", ctypes.c_uint32), ("call", ctypes.c_uint64 * 4), ("skew", ctypes.c_uint8 * 16),
        ("waited", ctypes.c_uint32),
    ]  # fmt: skip


class ChannelRecord(ctypes.Structure):
    """``struct ChannelRecord``."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("code", "step", "kind", "index")),
        *((name, ctypes.c_uint64) for name in ("iteration", "target", "seen")),
    ]


@dataclass(frozen=True)
class Work:
    """One call: how many elements of what, and how they are cut."""

    count: int
    elem_size: int
    dtype: int
    op: int
    chunk_bytes: int
    slot_bytes: int
    divisor: int = 1
    shards: Shards | None = None


def describe_work(
    program: Program, count: int, max_count: int, dtype: str, elem_size: int, op: str, chunk_bytes: int, *,
    uneven: bool = False, shards: Shards | None = None,
) -> Work:  # fmt: skip
    """Check what is asked for and turn it into the numbers that a launch carries.

    Slots are sized for ``max_count`` elements, all of them in one shard where calls may be ``uneven``.

    Raises
    ------
    ExecutionError
        Where the count does not suit the collective, the chunk is empty, or the executors cannot reduce this dtype with
        this operation.
    """
    from .._core import Partition

    check_count(program, count, shards is not None)
    if chunk_bytes < 1:
        raise ExecutionError(f"chunk_bytes is {chunk_bytes}, expected at least 1")
    _check_operation(program, dtype, op)
    bounds = () if shards is None else shards.bounds
    partition = Partition(count, elem_size, program.nshards, program.weights, chunk_bytes, program.equal_shards, bounds)
    steps = max((len(channel.steps) for channels in program.ranks for channel in channels), default=0)
    iterations = max(partition.iterations(share) for share in range(len(program.weights)))
    if iterations * steps >= 1 << 32:
        raise ExecutionError(f"{iterations} iterations of {steps} steps are more than a launch can count; raise chunk_bytes (now {chunk_bytes})")
    one_has_all = (0, *[max_count] * program.nshards) if uneven else ()
    largest = Partition(max_count, elem_size, program.nshards, program.weights, chunk_bytes, program.equal_shards, one_has_all)
    longest = max(largest.share_range(shard, share)[1] for shard in range(program.nshards) for share in range(len(program.weights)))
    slot_bytes = _round_up(max(min(longest, largest.chunk_elements), 1) * elem_size, _SLOT_ALIGNMENT)
    return Work(count, elem_size, DTYPES.get(dtype, 0), OPS[op], chunk_bytes, slot_bytes, program.nranks if op == "avg" else 1, shards)


def _check_operation(program: Program, dtype: str, op: str) -> None:
    from .._core import can_reduce, can_reduce_in_switch

    if op not in OPS:
        raise ExecutionError(f"operation {op!r} is not supported; known: {', '.join(OPS)}")
    if program.collective not in REDUCING:
        return
    if dtype not in DTYPES:
        raise ExecutionError(f"{program.collective} of {dtype} is not supported; dtypes that can be reduced: {', '.join(DTYPES)}")
    if (op == "avg" and not program.averages) or (op == "premul_sum" and not program.premultiplies):
        raise ExecutionError(f"program {program.hash} does not mark where inputs and results are scaled: it cannot do {op}")
    if not can_reduce(DTYPES[dtype], OPS[op], op == "premul_sum", op == "avg"):
        raise ExecutionError(f"{op} of {dtype} is not supported")
    if any(not written for _, written in program.multicasts) and not can_reduce_in_switch(DTYPES[dtype], OPS[op]):
        raise ExecutionError(f"{op} of {dtype} cannot be computed in a switch, as program {program.hash} has it (docs/nvls.md lists what can); use one by trees or rings")


@dataclass(frozen=True)
class Arena:
    """Where a rank's words, tables and slots lie, as offsets from the arena's base. It starts as zeros.

    ``slot_counters``: where connections that arrive have one in front of each slot (:func:`lay_out`, ``headed``), all but the first.
    """

    abort: int
    doorbell: int
    records: int
    progress: int
    cursors: int
    buffers: int
    connections: int
    program: int
    shards: int
    heads: dict[int, int]
    tails: dict[int, int]
    slots: dict[int, int]
    slots_begin: int
    slot_counters: tuple[int, ...]
    nbytes: int


def lay_out(program: Program, code: bytes, rank: int, slot_bytes: int, *, headed: bool = False, shared: bool = False) -> Arena:
    """The arena of one rank: counters it polls on lines of their own, tables, the program, slots it reads.

    ``headed``: slots have their counters in front of them (``launch.h``), which only executors on hosts understand. ``shared``: of connections
    that are written alike only the first one has slots, which all their readers look at.
    """
    if headed and shared:
        raise ValueError("slots with counters in front of them have one reader each")
    at = 0

    def take(nbytes: int, alignment: int = LINE_BYTES) -> int:
        nonlocal at
        start = _round_up(at, alignment)
        at = start + nbytes
        return start

    from .._core import headed_stride, slot_stride

    nchannels, nconnections = len(program.ranks[rank]), len(program.connections)
    stride = [headed_stride(slot_bytes) if headed else slot_stride(PROTOCOLS.index(c.protocol), slot_bytes) for c in program.connections]
    leaving = [i for i, c in enumerate(program.connections) if c.src == rank and c.transport != "host"]
    arriving = [i for i, c in enumerate(program.connections) if c.dst == rank and c.transport != "host"]
    tables = {
        "abort": 4, "doorbell": 4, "records": nchannels * ctypes.sizeof(ChannelRecord), "progress": nchannels * LINE_BYTES, "cursors": nconnections * 8,
        "buffers": program.nexecutors * ctypes.sizeof(BufferAddresses), "connections": nconnections * ctypes.sizeof(ConnectionAddresses),
        "program": len(code), "shards": table_bytes(program),
    }  # fmt: skip
    places = {name: take(nbytes) for name, nbytes in tables.items()}
    in_front = [i for i in arriving if headed and i in program.carrying]
    heads = {i: take(8) for i in leaving}
    tails = {i: take(8) for i in arriving if i not in in_front}
    slots_begin = take(0, _SLOT_ALIGNMENT)
    own = [i for i in arriving if not shared or program.written_alike.get(i, i) == i]
    slots = {i: take(program.connections[i].slots * stride[i] if i in program.carrying else 0, _SLOT_ALIGNMENT) for i in own}
    tails |= {i: slots[i] for i in in_front}
    others = tuple(slots[i] + slot * stride[i] for i in in_front for slot in range(1, program.connections[i].slots))
    return Arena(**places, heads=heads, tails=tails, slots=slots, slots_begin=slots_begin, slot_counters=others, nbytes=_round_up(at, _SLOT_ALIGNMENT))


def counter_lines(arena: Arena) -> list[tuple[int, bytes]]:
    """What the lines of the counters that a rank polls begin as, and where: each says where the rank's doorbell is.

    Those of its own channels' progress too: the rank that waits for them is the one that raises them, and needs no ring.
    """
    polled = (*range(arena.progress, arena.cursors - LINE_BYTES + 1, LINE_BYTES), *arena.heads.values(), *arena.tails.values(), *arena.slot_counters)
    return [(at, bytes(CounterLine(doorbell=arena.doorbell - at))[: CounterLine.call.offset]) for at in polled]


@dataclass(frozen=True)
class HostArena:
    """Where the slots and counters of connections of transport ``"host"`` lie in one CPU's memory. It starts as zeros.

    Both counters lie here too: the ends of such a connection may not be able to reach each other's memory. A GPU that
    polls one sends a read over PCIe each time. The kernel is the same as for device memory, for these are addresses like
    others: its release and acquire are of system scope, which spans all GPUs and the host (PTX ISA, memory consistency
    model, scope ``.sys``), and loads and stores of aligned words up to 8 bytes in mapped host memory are atomic at that
    scope on every platform; only read-modify-writes need hostNativeAtomicSupported (CUDA C++ memory model, atomicity:
    nvidia.github.io/cccl/libcudacxx/extended_api/memory_model.html), and the protocol has none.
    """

    cpu: str
    heads: dict[int, int]
    tails: dict[int, int]
    slots: dict[int, int]
    nbytes: int


def lay_out_host(program: Program, slot_bytes: int) -> list[HostArena]:
    """An arena for every CPU in whose memory connections have their slots; none where no connection does."""
    peers = program.topology.peers
    on_cpu: dict[str, list[int]] = {}
    for i, c in enumerate(program.connections):
        if c.transport == "host":
            on_cpu.setdefault(str(c.path[peers.staging_place(c.path) or 0]), []).append(i)
    made = []
    for cpu in sorted(on_cpu):
        here, slots, at = on_cpu[cpu], {}, _round_up(2 * LINE_BYTES * len(on_cpu[cpu]), _SLOT_ALIGNMENT)
        for i in here:
            slots[i] = at
            at += program.connections[i].slots * slot_bytes
        heads, tails = ({i: (2 * k + side) * LINE_BYTES for k, i in enumerate(here)} for side in (0, 1))
        made.append(HostArena(cpu, heads, tails, slots, at))
    return made


def connection_table(
    program: Program, arenas: Sequence[Arena], bases: Sequence[int], host: Sequence[HostArena] = (), host_bases: Sequence[int] = (),
    slot_bases: Sequence[int] | None = None,
) -> bytes:  # fmt: skip
    """Addresses of every connection as seen by who sees rank i's arena at ``bases[i]``, and host arena k at ``host_bases[k]``.

    ``slot_bases``: where each rank's slots lie, if not at the end of its arena.
    """
    table = (ConnectionAddresses * len(program.connections))()
    for arena, base in zip(host, host_bases, strict=True):
        for i, at in arena.slots.items():
            table[i] = ConnectionAddresses(base + at, base + arena.tails[i], base + arena.heads[i])
    begins = slot_bases or [base + arena.slots_begin for base, arena in zip(bases, arenas, strict=True)]
    for i, c in enumerate(program.connections):
        if c.transport == "host":
            continue
        has_slots = i if i in arenas[c.dst].slots else program.written_alike[i]
        place = program.connections[has_slots].dst
        slots_at = begins[place] + arenas[place].slots[has_slots] - arenas[place].slots_begin
        table[i] = ConnectionAddresses(slots_at, bases[c.dst] + arenas[c.dst].tails[i], bases[c.src] + arenas[c.src].heads[i])
    return bytes(table)


def buffer_table(buffers: Sequence[tuple[int, int, int]]) -> bytes:
    """Addresses of every rank's input, output and scratch."""
    return bytes((BufferAddresses * len(buffers))(*(BufferAddresses(*b) for b in buffers)))


def launch_record(
    work: Work, rank: int, arena: Arena, base: int, epoch: int, timeout_s: float, prescale: float = 1.0, multicast: tuple[int, int, int] = (0, 0, 0)
) -> LaunchRecord:
    """The record of one rank whose arena the executing side sees at ``base``."""
    return LaunchRecord(
        program=base + arena.program,
        buffers=base + arena.buffers,
        connections=base + arena.connections,
        cursors=base + arena.cursors,
        progress=base + arena.progress,
        records=base + arena.records,
        abort=base + arena.abort,
        doorbell=base + arena.doorbell,
        bounds=base + arena.shards if work.shards is not None else 0,
        places=base + arena.shards + 8 * len(work.shards.bounds) if work.shards is not None and work.shards.places is not None else 0,
        count=work.count,
        chunk_bytes=work.chunk_bytes,
        slot_bytes=work.slot_bytes,
        timeout_ns=int(timeout_s * 1e9),
        rank=rank,
        elem_size=work.elem_size,
        dtype=work.dtype,
        op=work.op,
        prescale=prescale,
        epoch=epoch,
        divisor=work.divisor,
        multicast=multicast,
    )


def explain_records(program: Program, records: Sequence[bytes], timeout_s: float) -> str:
    """Who waited for whom, from the channel records that a failed launch left in each rank's arena.

    First, ranks that are waited for and wait for nobody: what is wrong began there. Then the channels that ran out of
    time, then those that left because a sibling had.
    """
    lines: list[tuple[int, int, str]] = []
    missing: set[int] = set()
    for rank in range(len(records)):
        for channel, note in enumerate(channel_records(program, rank, records)):
            if not note.code:
                continue
            lines.append((note.code, rank, _explain(program, rank, channel, note, timeout_s)))
            if note.kind == _ON_CONNECTION:
                missing.add(_peer(program, rank, note.index))
    missing -= {rank for _, rank, _ in lines}
    names = ", ".join(program.executor_name(rank) for rank in sorted(missing))
    first = [f"{names}: waited for, and left no word: never started, ended, or stuck elsewhere"] if missing else []
    lines.sort(key=lambda line: line[:2])
    more = [f"... and {len(lines) - 8} more channels"] if len(lines) > 8 else []
    return "\n  ".join([*first, *(text for *_, text in lines[:8]), *more]) or "no channel left a record"


def channel_records(program: Program, rank: int, records: Sequence[bytes]) -> list[ChannelRecord]:
    """A rank's records, by channel."""
    return [ChannelRecord.from_buffer_copy(records[rank], channel * ctypes.sizeof(ChannelRecord)) for channel in range(len(program.ranks[rank]))]


def _peer(program: Program, rank: int, connection: int) -> int:
    ends = program.connections[connection]
    return ends.src if ends.dst == rank else ends.dst


def _explain(program: Program, rank: int, channel: int, note: ChannelRecord, timeout_s: float) -> str:
    who = f"{program.executor_name(rank)}, channel {channel}, step {note.step}, iteration {note.iteration}"
    if note.code == UNREACHABLE:
        return f"{who}: the memory of rank {note.index} was out of reach: {os.strerror(note.seen)}"
    if note.code == OTHER_CALL:
        from .callword import describe

        c = program.connections[note.index]
        return f"{who}: {program.executor_label(c.src)} calls {describe(note.seen) if note.seen else 'something else'}"
    ended = f"no progress for {timeout_s:g} s" if note.code == 1 else "told to leave"
    if note.kind == _ON_CHANNEL:
        return f"{who}: {ended}, waiting for channel {note.index} of its own rank"
    if note.kind != _ON_CONNECTION:
        return f"{who}: {ended}; what it waited for came while it left"
    c = program.connections[note.index]
    if c.dst == rank:
        return f"{who}: {ended}, waiting for chunk {note.target} of c{note.index} from {program.executor_label(c.src)}, which has published {note.seen}"
    return f"{who}: {ended}, waiting for a free slot of c{note.index} to {program.executor_label(c.dst)}, which has taken {note.seen} chunks ({note.target} needed)"


def _round_up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
