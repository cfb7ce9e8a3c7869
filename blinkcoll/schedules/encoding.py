"""A program as bytes: the binary layout of ``csrc/blinkcoll/program.h``, which every executor and the simulator read.

The one thing computed here is the numbering of a connection's uses: in each iteration the side that reads and the side
that writes count their signals from 0, so a use's sequence number is ``base + iteration * uses + use``, and nothing has
to be counted while running.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import starmap
from typing import NamedTuple

from ..errors import ScheduleError
from .program import BUFFERS, OPS, PROTOCOLS, REGIONS, Operand, Program, Step
from .split import MOST_OPERANDS

MAGIC = 0x4C4F4342
VERSION = 3
_HEADER = struct.Struct("<21I")
_OP = {name: i for i, name in enumerate(OPS)}
#: The least and the most sources, and destinations, of an operation.
_OPERANDS = {"nop": ((0, 0), (0, 0)), "copy": ((1, 1), (1, MOST_OPERANDS)), "reduce": ((2, MOST_OPERANDS), (1, MOST_OPERANDS))}
_BUFFER = {name: i for i, name in enumerate(BUFFERS)}


class NumberedStep(NamedTuple):
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
    signalled: list[dict[int, int]] = []  # of each rank: connection -> signals so far
    share: dict[int, int] = {}
    steps: dict[tuple[int, int, int], NumberedStep] = {}
    for rank, channels in enumerate(program.ranks):
        counts: dict[int, int] = {}
        owner: dict[int, int] = {}  # connection -> channel
        signalled.append(counts)
        for c, channel in enumerate(channels):
            for s, step in enumerate(channel.steps):
                slots = [o.connection for o in (*step.srcs, *step.dsts) if o.connection is not None]
                used = {*step.wait, *step.signal, *slots}
                if [k for k in used if owner.get(k) != c or share.get(k) != step.share]:  # mostly none is new
                    for k in sorted(used):
                        _check_use(program, k, rank, c, step, owner, share, f"rank {rank}, channel {c}, step {s}")
                now = {k: counts.get(k, 0) for k in used}
                steps[rank, c, s] = NumberedStep(
                    step, tuple([(k, now[k]) for k in step.wait]), tuple([(k, now[k]) for k in step.signal]), {k: now[k] for k in slots}
                )
                for k in step.signal:
                    counts[k] = now[k] + 1
    uses = []
    for i, connection in enumerate(program.connections):
        if not (0 <= connection.src < len(signalled) and 0 <= connection.dst < len(signalled)):
            raise ScheduleError(f"connection c{i} {connection.src}→{connection.dst}: there are ranks 0..{len(signalled) - 1}")
        written, read = signalled[connection.src].get(i, 0), signalled[connection.dst].get(i, 0)
        if written != read:
            raise ScheduleError(
                f"connection c{i} {connection.src}→{connection.dst}: rank {connection.src} publishes {written} chunks an "
                f"iteration, rank {connection.dst} takes {read}"
            )
        uses.append(written)
    return Numbering(steps, tuple(uses), tuple(share.get(i, 0) for i in range(len(program.connections))))


def _check_use(
    program: Program, connection: int, rank: int, channel: int, step: Step,
    owner: dict[int, int], share: dict[int, int], where: str,
) -> None:  # fmt: skip
    if not 0 <= connection < len(program.connections):
        raise ScheduleError(f"{where}: there is no connection c{connection}")
    ends = program.connections[connection]
    if rank not in (ends.src, ends.dst):
        raise ScheduleError(f"{where}: uses c{connection}, which goes from rank {ends.src} to rank {ends.dst}")
    if owner.setdefault(connection, channel) != channel:
        raise ScheduleError(f"{where}: c{connection} is already used by channel {owner[connection]} of this rank")
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
                _check_step(program, rank, step, (rank, c, s))
                steps.append(
                    (_OP[step.op], int(step.postscaled), len(step.srcs), len(step.dsts), len(step.wait), len(step.signal), len(step.after),
                     step.share, step.shard, len(operands), len(syncs), len(afters))
                )  # fmt: skip
                operands += [_operand(o, rank, numbered) for o in (*step.srcs, *step.dsts)]
                syncs += numbered.waits
                syncs += numbered.signals
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
        return b"".join(starmap(entry.pack, rows))
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
        return _BUFFER["slot"], int(operand.prescaled), operand.connection, numbered.slots[operand.connection]
    if operand.region is not None:
        return _BUFFER["multicast"], int(operand.prescaled), REGIONS.index(operand.region), 0
    return _BUFFER[operand.buffer], int(operand.prescaled), rank if operand.rank is None else operand.rank, 0 if operand.shard is None else operand.shard + 1


def _check_step(program: Program, rank: int, step: Step, at: tuple[int, int, int]) -> None:
    """What any reader of the bytes may rely on."""
    wrong = _wrong_operands(step) or _wrong_names(program, rank, step)
    if wrong:
        raise ScheduleError(f"rank {at[0]}, channel {at[1]}, step {at[2]}: {wrong}")


def _wrong_operands(step: Step) -> str | None:
    """What is wrong with a step by itself: its operation, or how many operands it has, and of which kind."""
    nsrcs, ndsts = len(step.srcs), len(step.dsts)
    if step.op == "exchange":
        return "an exchange is opaque and runs on an engine only; expand_exchanges(program) makes connections of it that executors and the simulator take"
    if step.op not in OPS:
        return f"unknown operation {step.op!r}; known: {', '.join(OPS)}"
    added = [o for o in step.srcs if o.buffer == "multicast"]  # by a switch: the only source, and more than one value
    (least_srcs, most_srcs), (least_dsts, most_dsts) = _OPERANDS[step.op]
    if not least_srcs - len(added) <= nsrcs <= most_srcs or not least_dsts <= ndsts <= most_dsts:
        return f"a {step.op} cannot have {nsrcs} sources and {ndsts} destinations"
    if nsrcs + ndsts > MOST_OPERANDS:
        return f"{nsrcs + ndsts} operands, at most {MOST_OPERANDS} are supported"
    if added and (step.op != "reduce" or nsrcs != 1):
        return f"what a switch adds is the only source of a reduce, this is a {step.op} of {nsrcs}"
    if len([o for o in step.dsts if o.buffer == "multicast"]) > 1:
        return "at most one destination of a step is of all ranks"
    for operand in (*step.srcs, *step.dsts):
        buffer = operand.buffer
        if (buffer == "slot") != (operand.connection is not None) or buffer not in _BUFFER:
            return f"malformed operand {operand}"
        if (buffer == "multicast") != (operand.region is not None) or operand.region not in (None, *REGIONS):
            return f"malformed operand {operand}"
    return None


def _wrong_names(program: Program, rank: int, step: Step) -> str | None:
    """What a step names and its program does not have."""
    if not 0 <= step.share < len(program.weights):
        return f"there is no share {step.share}"
    if not 0 <= step.shard < program.nshards:
        return f"there is no shard {step.shard}"
    for operand in (*step.srcs, *step.dsts):
        if operand.shard is not None and (operand.buffer not in REGIONS or not 0 <= operand.shard < program.nshards):
            return f"malformed operand {operand}: only a buffer has a shard, of {program.nshards}"
        if operand.rank is not None and not 0 <= operand.rank < program.nexecutors:
            return f"there is no rank {operand.rank}"
    for after in step.after:
        if not 0 <= after.channel < len(program.ranks[rank]) or not 0 <= after.step < len(program.ranks[rank][after.channel].steps):
            return f"after names channel {after.channel} step {after.step}, which does not exist"
    return None
