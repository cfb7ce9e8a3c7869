"""A program as bytes: the binary layout of ``csrc/blinkcoll/program.h``, which every executor and the simulator read.

The one thing computed here is the numbering of a connection's uses: in each iteration the side that reads and the side
that writes count their signals from 0, so a use's sequence number is ``base + iteration * uses + use``, and nothing has
to be counted while running.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ScheduleError
from .program import BUFFERS, OPS, PROTOCOLS, REGIONS, Operand, Program, Step
from .split import MOST_OPERANDS

MAGIC = 0x4C4F4342
VERSION = 3
_HEADER = struct.Struct("<21I")


@dataclass(frozen=True)
class NumberedStep:
    """A step with the use (0, 1 ... within an iteration) of each connection that it names."""

    step: Step
    waits: tuple[tuple[int, int], ...]
    signals: tuple[tuple[int, int], ...]
    slots: dict[int, int]


@dataclass(frozen=True)
class Numbering:
    """Every step's uses, and how often each connection is used in an iteration, and for which share."""

    steps: dict[tuple[int, int, int], NumberedStep]  # (rank, channel, step)
    uses: tuple[int, ...]
    share: tuple[int, ...]


def number_uses(program: Program) -> Numbering:
    """Number each connection's uses on both sides.

    Raises
    ------
    ScheduleError
        Where a connection is touched by a rank that is neither end of it, by two channels of one rank, for two shares,
        or unequally often by its two ends; names rank, channel and step.
    """
    signalled: dict[tuple[int, int], int] = {}  # (connection, rank) -> signals so far
    owner: dict[tuple[int, int], int] = {}  # (connection, rank) -> channel
    share: dict[int, int] = {}
    steps: dict[tuple[int, int, int], NumberedStep] = {}
    for rank, channels in enumerate(program.ranks):
        for c, channel in enumerate(channels):
            for s, step in enumerate(channel.steps):
                where = f"rank {rank}, channel {c}, step {s}"
                slots = {o.connection for o in (*step.srcs, *step.dsts) if o.connection is not None}
                for used in sorted({*step.wait, *step.signal, *slots}):
                    _check_use(program, used, rank, c, step, owner, share, where)
                now = {k: signalled.get((k, rank), 0) for k in {*step.wait, *step.signal, *slots}}
                steps[rank, c, s] = NumberedStep(
                    step, tuple((k, now[k]) for k in step.wait), tuple((k, now[k]) for k in step.signal), {k: now[k] for k in slots}
                )
                for used in step.signal:
                    signalled[used, rank] = now[used] + 1
    uses = []
    for i, connection in enumerate(program.connections):
        written, read = signalled.get((i, connection.src), 0), signalled.get((i, connection.dst), 0)
        if written != read:
            raise ScheduleError(
                f"connection c{i} {connection.src}→{connection.dst}: rank {connection.src} publishes {written} chunks an "
                f"iteration, rank {connection.dst} takes {read}"
            )
        uses.append(written)
    return Numbering(steps, tuple(uses), tuple(share.get(i, 0) for i in range(len(program.connections))))


def _check_use(
    program: Program, connection: int, rank: int, channel: int, step: Step,
    owner: dict[tuple[int, int], int], share: dict[int, int], where: str,
) -> None:  # fmt: skip
    if not 0 <= connection < len(program.connections):
        raise ScheduleError(f"{where}: there is no connection c{connection}")
    ends = program.connections[connection]
    if rank not in (ends.src, ends.dst):
        raise ScheduleError(f"{where}: uses c{connection}, which goes from rank {ends.src} to rank {ends.dst}")
    if owner.setdefault((connection, rank), channel) != channel:
        raise ScheduleError(f"{where}: c{connection} is already used by channel {owner[connection, rank]} of this rank")
    if share.setdefault(connection, step.share) != step.share:
        raise ScheduleError(f"{where}: c{connection} carries share {share[connection]}, this step is of share {step.share}")


def encode(program: Program) -> bytes:
    """The bytes of a program; equal programs have equal bytes.

    Raises
    ------
    ScheduleError
        Where the program is malformed (see :func:`number_uses`) or exceeds what the layout can hold.
    """
    numbering = number_uses(program)
    ranks: list[tuple[int, ...]] = []
    channels: list[tuple[int, ...]] = []
    steps: list[tuple[int, ...]] = []
    operands: list[tuple[int, ...]] = []
    syncs: list[tuple[int, ...]] = []
    afters: list[tuple[int, ...]] = []
    for rank, of_rank in enumerate(program.ranks):
        watched = {a.channel for channel in of_rank for step in channel.steps for a in step.after}
        ranks.append((len(channels), len(of_rank)))
        for c, channel in enumerate(of_rank):
            channels.append((len(steps), len(channel.steps), int(c in watched)))
            for s, step in enumerate(channel.steps):
                numbered = numbering.steps[rank, c, s]
                where = f"rank {rank}, channel {c}, step {s}"
                _check_step(program, rank, step, where)
                steps.append(
                    (OPS.index(step.op), int(step.postscaled), len(step.srcs), len(step.dsts), len(step.wait), len(step.signal), len(step.after),
                     step.share, step.shard, len(operands), len(syncs), len(afters))
                )  # fmt: skip
                operands += [_operand(o, rank, numbered) for o in (*step.srcs, *step.dsts)]
                syncs += [*numbered.waits, *numbered.signals]
                afters += [(a.channel, a.step, a.lag) for a in step.after]
    connections = [
        (c.src, c.dst, c.slots, numbering.uses[i], numbering.share[i], _protocol(program, i)) for i, c in enumerate(program.connections)
    ]
    cumulative = [0]
    for weight in program.weights:
        cumulative.append(cumulative[-1] + weight)
    tables = [
        _table("<2I", ranks), _table("<6I", connections), _table("<I", [(c,) for c in cumulative]), _table("<3I", channels),
        _table("<2B7H3I", steps), _table("<2H2I", operands), _table("<2I", syncs), _table("<3I", afters),
    ]  # fmt: skip
    offsets, at = [], _HEADER.size
    for table in tables:
        offsets.append(at)
        at += len(table)
    header = _HEADER.pack(
        MAGIC, VERSION, at, program.nexecutors, len(connections), len(program.weights), program.nshards, len(channels),
        len(steps), len(operands), len(syncs), len(afters), *offsets, int(program.equal_shards),
    )  # fmt: skip
    return header + b"".join(tables)


def _table(form: str, rows: Iterable[tuple[int, ...]]) -> bytes:
    entry = struct.Struct(form)
    try:
        return b"".join(entry.pack(*row) for row in rows)
    except struct.error as error:
        raise ScheduleError(f"program too large for its binary layout: {error}") from None


def _protocol(program: Program, i: int) -> int:
    """A connection's protocol by number; what carries nothing only signals, by a counter, whatever its protocol is called."""
    name = program.connections[i].protocol
    if name not in PROTOCOLS:
        raise ScheduleError(f"c{i} has protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS.index(name) if i in program.carrying else 0


def _operand(operand: Operand, rank: int, numbered: NumberedStep) -> tuple[int, int, int, int]:
    if operand.connection is not None:
        return BUFFERS.index("slot"), int(operand.prescaled), operand.connection, numbered.slots[operand.connection]
    if operand.region is not None:
        return BUFFERS.index("multicast"), int(operand.prescaled), REGIONS.index(operand.region), 0
    return BUFFERS.index(operand.buffer), int(operand.prescaled), rank if operand.rank is None else operand.rank, 0 if operand.shard is None else operand.shard + 1


def _check_step(program: Program, rank: int, step: Step, where: str) -> None:
    """What any reader of the bytes may rely on."""
    if step.op == "exchange":
        raise ScheduleError(f"{where}: an exchange is opaque and runs on an engine only; expand_exchanges(program) makes connections of it that executors and the simulator take")
    if step.op not in OPS:
        raise ScheduleError(f"{where}: unknown operation {step.op!r}; known: {', '.join(OPS)}")
    added = any(o.buffer == "multicast" for o in step.srcs)  # by a switch: the only source, and more than one value
    least = {"nop": (0, 0), "copy": (1, 1), "reduce": (1 if added else 2, 1)}[step.op]
    most_srcs = {"nop": 0, "copy": 1, "reduce": MOST_OPERANDS}[step.op]
    most_dsts = 0 if step.op == "nop" else MOST_OPERANDS
    if not least[0] <= len(step.srcs) <= most_srcs or not least[1] <= len(step.dsts) <= most_dsts:
        raise ScheduleError(f"{where}: a {step.op} cannot have {len(step.srcs)} sources and {len(step.dsts)} destinations")
    if len(step.srcs) + len(step.dsts) > MOST_OPERANDS:
        raise ScheduleError(f"{where}: {len(step.srcs) + len(step.dsts)} operands, at most {MOST_OPERANDS} are supported")
    if not 0 <= step.share < len(program.weights):
        raise ScheduleError(f"{where}: there is no share {step.share}")
    if not 0 <= step.shard < program.nshards:
        raise ScheduleError(f"{where}: there is no shard {step.shard}")
    if added and (step.op != "reduce" or len(step.srcs) != 1):
        raise ScheduleError(f"{where}: what a switch adds is the only source of a reduce, this is a {step.op} of {len(step.srcs)}")
    if sum(o.buffer == "multicast" for o in step.dsts) > 1:
        raise ScheduleError(f"{where}: at most one destination of a step is of all ranks")
    for operand in (*step.srcs, *step.dsts):
        if (operand.buffer == "slot") != (operand.connection is not None) or operand.buffer not in BUFFERS:
            raise ScheduleError(f"{where}: malformed operand {operand}")
        if (operand.buffer == "multicast") != (operand.region is not None) or operand.region not in (None, *REGIONS):
            raise ScheduleError(f"{where}: malformed operand {operand}")
        if operand.shard is not None and (operand.buffer not in REGIONS or not 0 <= operand.shard < program.nshards):
            raise ScheduleError(f"{where}: malformed operand {operand}: only a buffer has a shard, of {program.nshards}")
        if operand.rank is not None and not 0 <= operand.rank < program.nexecutors:
            raise ScheduleError(f"{where}: there is no rank {operand.rank}")
    for after in step.after:
        if not 0 <= after.channel < len(program.ranks[rank]) or not 0 <= after.step < len(program.ranks[rank][after.channel].steps):
            raise ScheduleError(f"{where}: after names channel {after.channel} step {after.step}, which does not exist")
