"""The IR: what each rank executes, as plain data that does not depend on the element count.

A program gives every rank a list of *channels*; a channel runs its *steps* in order, repeated over the iterations of
the chunk loop. Rank code never computes an offset: a step names a (shard, share) and the one partition function
(``csrc/blinkcoll/partition.h``) says which elements that is in iteration i. A *connection* is a FIFO of slots from one
rank to another; exactly one channel writes it and one reads it.

The semantics of synchronisation, for a channel of rank r and a connection c:

* ``wait=(c,)`` before the operation: where r reads c (``r == c.dst``), the next chunk has arrived; where r writes c,
  the next slot is free (*credit*).
* operand ``slot(c)``: the slot of that chunk.
* ``signal=(c,)`` after the operation: the reader gives the slot back, the writer publishes the chunk; c moves on to
  its next chunk.
* ``after=(After(channel, step, lag),)``: another channel of the same rank has completed that step of iteration
  ``i - lag``.

A connection that no operand names is a pure signal: a counter that one side raises and the other waits for.

A channel and a connection carry one share, so all their iterations are alike; what a channel has waited for it signals
within the same iteration.

Scaling: a program whose inputs are marked ``prescaled`` where they are read, and whose results are marked ``postscaled``
where they are complete, can average and pre-multiply; one that marks only its results can average, one without marks neither.
The factors come at launch, each rank's own: a rank that reads a peer's input cannot scale it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from typing import Any

from .. import __version__
from ..topology import Path, Topology
from .contract import SHARDED

SCHEMA = 2
#: Buffers an operand can lie in. "multicast": the same place of one of the first three on every rank at once.
BUFFERS = ("input", "output", "scratch", "slot", "multicast")
#: Buffers that every rank can have registered with a multicast object; numbered as the launch tables have them.
REGIONS = ("input", "output", "scratch")
#: How a connection's data and the news of it travel (``csrc/blinkcoll/protocol.h``).
PROTOCOLS = ("simple", "LL", "LL128")
#: What a step does: only synchronise, copy one source, reduce its sources in the order listed, or take part in an exchange.
OPS = ("nop", "copy", "reduce", "exchange")


@dataclass(frozen=True)
class Operand:
    """Where a step reads or writes: the step's range of a rank's buffer, or the current slot of a connection.

    ``rank`` is None for the executing rank's own buffer, another rank for a peer's (zero-copy). ``prescaled``: a source
    that is multiplied by the caller's factor while it is read. ``region``: for "multicast", which buffer of all ranks. As
    a source it is the only one of a reduce: a switch adds what all ranks hold there, in an order of its own, the same for
    all who get this sum. As a destination it is stored to on every rank; a step has one such at most. ``shard``: of a
    buffer, where it is another than the step's; only where all shards are of one size (all-to-all).
    """

    buffer: str
    connection: int | None = None
    rank: int | None = None
    prescaled: bool = False
    region: str | None = None
    shard: int | None = None


INPUT = Operand("input")
#: The input as a reduction takes it up.
SCALED_INPUT = Operand("input", prescaled=True)
OUTPUT = Operand("output")
SCRATCH = Operand("scratch")


def executor_numbers(topology: Topology) -> dict[int | str, int]:
    """Every device that may run a program, as paths name it, to its number: ranks, then relays."""
    numbers: dict[int | str, int] = {rank: rank for rank in range(topology.nranks)}
    numbers.update((relay.name, topology.nranks + j) for j, relay in enumerate(topology.relays))
    return numbers


@cache  # a connection's slot stands in several steps; a rack's programs have hundreds of thousands
def slot(connection: int) -> Operand:
    """The current slot of a connection."""
    return Operand("slot", connection=connection)


def multicast(region: str) -> Operand:
    """The step's range of that buffer on every rank: added by a switch as a source, stored to everywhere as a destination."""
    return Operand("multicast", region=region)


@dataclass(frozen=True)
class After:
    """Step ``step`` of channel ``channel`` of the same rank, in iteration ``i - lag``, is complete."""

    channel: int
    step: int
    lag: int = 0


@dataclass(frozen=True)
class Step:
    """One operation with its synchronisation; the range is chunk i of (shard, share).

    ``postscaled``: what it computes is divided by the caller's divisor before it is stored.

    An ``"exchange"`` is one collective call of the ranks in ``group`` that an engine carries out (c10d): each step of the
    group gives at most one source, and gets in its destinations the sum of all sources in the group's order. All give and
    all get, or only the first gets, or only the first gives. ``over``: connections of transport ``"c10d"`` between the
    first member and this one (at the first: all others), the ways that the exchange takes where it is expanded
    (:func:`blinkcoll.schedules.expand_exchanges`).
    """

    op: str
    share: int
    srcs: tuple[Operand, ...] = ()
    dsts: tuple[Operand, ...] = ()
    wait: tuple[int, ...] = ()
    signal: tuple[int, ...] = ()
    after: tuple[After, ...] = ()
    shard: int = 0
    postscaled: bool = False
    group: tuple[int, ...] = ()
    over: tuple[int, ...] = ()


@dataclass(frozen=True)
class Channel:
    """Steps that one progress context runs in order, every iteration."""

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Connection:
    """A FIFO from executor ``src`` to executor ``dst`` over ``path`` (device, switch..., device).

    Slots lie at the reader, or, with ``transport="host"``, in pinned memory of the first CPU on the path.
    """

    src: int
    dst: int
    path: Path
    slots: int = 4
    protocol: str = "simple"
    transport: str = "peer"


@dataclass(frozen=True)
class Program:
    """What all ranks execute for one collective; count, dtype, operation and chunk size come at launch.

    Parameters
    ----------
    algorithm
        What made it: ``"trees"``, ``"ring"`` ...
    collective, root
        The collective, and the rank that is its root (None where it has none).
    topology
        The machine its connections' paths lie in; rank i of the program is rank i of it.
    nshards
        Parts that the buffer is cut into first (1; one a rank for rings and where shards are the caller's).
    weights
        Each share's part of a shard, as integers.
    connections
        Connection i is called ``c<i>`` in the text view.
    ranks
        Each executor's channels: the ranks, then, where the program has work for them, all relays of the topology.
    in_place
        Whether it may be called with input and output in the same memory.
    chunk_bytes
        The chunk size to use where the caller names none; no part of the program's identity.
    """

    algorithm: str
    collective: str
    topology: Topology
    nshards: int
    weights: tuple[int, ...]
    connections: tuple[Connection, ...]
    ranks: tuple[tuple[Channel, ...], ...]
    root: int | None = None
    in_place: bool = True
    chunk_bytes: int = field(default=1 << 19, compare=False)

    @property
    def nranks(self) -> int:
        """How many ranks the collective has."""
        return self.topology.nranks

    @property
    def nexecutors(self) -> int:
        """How many devices run it: the ranks, and the relays if it has work for them (relay j is executor nranks + j)."""
        return len(self.ranks)

    def executor_label(self, executor: int) -> str:
        """``rank 2``, or ``relay gpu3``."""
        relays = self.topology.relays
        if self.nranks <= executor < self.nranks + len(relays):
            return f"relay {relays[executor - self.nranks].name}"
        return f"rank {executor}"

    def executor_name(self, executor: int) -> str:
        """``rank 2 (gpu4)``, or ``relay gpu3``."""
        device = f" ({self.topology.devices[executor].name})" if 0 <= executor < self.nranks else ""
        return self.executor_label(executor) + device

    @property
    def equal_shards(self) -> bool:
        """Whether shards are the caller's: exactly ``count / nshards`` elements each, or as the launch's table says."""
        return self.collective in SHARDED

    @cached_property
    def averages(self) -> bool:
        """Whether its steps carry the marks that an average needs."""
        return any(step.postscaled for channels in self.ranks for channel in channels for step in channel.steps)

    @cached_property
    def premultiplies(self) -> bool:
        """Whether its steps carry the marks that a pre-multiplied sum needs."""
        return any(o.prescaled for channels in self.ranks for channel in channels for step in channel.steps for o in step.srcs)

    @cached_property
    def multicasts(self) -> frozenset[tuple[str, bool]]:
        """Which buffers of all ranks its steps read (False) or write (True) by way of a switch; empty where none does."""
        steps = [step for channels in self.ranks for channel in channels for step in channel.steps]
        return frozenset((str(o.region), written) for s in steps for listed, written in ((s.srcs, False), (s.dsts, True)) for o in listed if o.buffer == "multicast")

    @cached_property
    def reaches_buffers(self) -> bool:
        """Whether some step reads or writes a buffer of another rank's."""
        return any(
            o.rank not in (None, rank)
            for rank, channels in enumerate(self.ranks) for channel in channels for step in channel.steps for o in (*step.srcs, *step.dsts)
        )  # fmt: skip

    @cached_property
    def carrying(self) -> frozenset[int]:
        """The connections whose slots some step names; the others carry signals only and need no slots."""
        steps = (step for channels in self.ranks for channel in channels for step in channel.steps)
        return frozenset(o.connection for step in steps for o in (*step.srcs, *step.dsts) if o.connection is not None)

    @cached_property
    def written_alike(self) -> dict[int, int]:
        """Each connection that carries data, and the first of those that the same steps write the same to: itself, mostly.

        The steps that write to them wait until all their readers have room, so where all see the same memory one slot serves for them.
        """
        uses: dict[int, list[tuple[int, int, int, bool, bool]]] = {}
        for rank, channels in enumerate(self.ranks):
            for c, channel in enumerate(channels):
                for s, step in enumerate(channel.steps):
                    written = [o.connection for o in step.dsts if o.connection is not None]
                    for i in {*written, *(i for i in (*step.wait, *step.signal) if self.connections[i].src == rank)}:
                        uses.setdefault(i, []).append((c, s, written.count(i), i in step.wait, i in step.signal))
        firsts: dict[object, int] = {}
        ends = ((i, self.connections[i]) for i in sorted(self.carrying))
        return {i: firsts.setdefault((c.src, c.slots, c.protocol, c.transport, tuple(uses[i])), i) for i, c in ends}

    @cached_property
    def single_uses(self) -> frozenset[int]:
        """The connections of whose uses each is one step on either side, which moves data by itself: it waits, names the slot once, and signals."""
        others: set[int] = set()
        for channels in self.ranks:
            for channel in channels:
                for step in channel.steps:
                    slots = [o.connection for o in (*step.srcs, *step.dsts) if o.connection is not None]
                    named = {*step.wait, *step.signal, *slots}
                    if step.op == "exchange" or any([o.buffer == "multicast" for o in (*step.srcs, *step.dsts)]):  # moves nothing by units
                        others |= named
                    elif not (len(named) == len(slots) == len({*slots}) and named.issubset(step.wait) and named.issubset(step.signal)):
                        others.update(k for k in named if slots.count(k) != 1 or k not in step.wait or k not in step.signal)
        return frozenset(range(len(self.connections))) - others

    def with_connections(self, connections: tuple[Connection, ...]) -> Program:
        """The same steps over other connections; what is known of the steps stays known."""
        other = replace(self, connections=connections)
        other.__dict__.update({name: self.__dict__[name] for name in _OF_STEPS if name in self.__dict__})
        return other

    @property
    def nchannels(self) -> int:
        """The most channels that any rank runs (thread blocks on a GPU)."""
        return max((len(channels) for channels in self.ranks), default=0)

    def with_chunk_bytes(self, chunk_bytes: int) -> Program:
        """The same program (and hash) with another default chunk size."""
        other = replace(self, chunk_bytes=chunk_bytes)
        other.__dict__.update({name: self.__dict__[name] for name in _OF_STEPS if name in self.__dict__})
        other.__dict__["_hashed_as"] = self.__dict__.get("_hashed_as", self)
        return other

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits over everything but ``chunk_bytes`` and names; of the topology, its fingerprint."""
        if "_hashed_as" in self.__dict__:  # differs in its chunk size alone: computed once for all, and only where it is looked at
            return str(self.__dict__["_hashed_as"].hash)
        body = self._as_dict()
        del body["chunk_bytes"]
        body["topology"] = self.topology.fingerprint
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]

    # -- JSON ---------------------------------------------------------------------------------------------------

    def _as_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "algorithm": self.algorithm,
            "collective": self.collective,
            "root": self.root,
            "nshards": self.nshards,
            "in_place": self.in_place,
            "weights": list(self.weights),
            "chunk_bytes": self.chunk_bytes,
            "connections": [_plain(c) for c in self.connections],
            "ranks": [[[_plain(s) for s in channel.steps] for channel in channels] for channels in self.ranks],
        }

    def to_json(self) -> str:
        """This program as JSON, the topology included; sorted keys, the same bytes for equal programs.

        It says by which version it was made, and the topology's fingerprint; neither is part of what is executed.
        """
        body = self._as_dict() | {"hash": self.hash, "topology": json.loads(self.topology.to_json())}
        body |= {"fingerprint": self.topology.fingerprint, "generator": f"blinkcoll {__version__}"}
        return json.dumps(body, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Program:
        """The program that :meth:`to_json` wrote.

        Raises
        ------
        ScheduleError
            Where the text is not such JSON, or its hash is not that of its content; names what is malformed, and where.
        """
        from .reading import read_program

        return read_program(text)


#: Cached properties that depend on nothing but steps, as long as connections are as many.
_OF_STEPS = ("averages", "premultiplies", "multicasts", "reaches_buffers", "carrying", "single_uses")


#: Fields that hold items with fields, and every field's default, taken once: programs over switches have a hundred thousand records.
_NESTED = ("srcs", "dsts", "after")
_DEFAULTS = {kind: tuple((f.name, f.default) for f in fields(kind)) for kind in (Operand, After, Step, Connection)}


def _plain(item: Operand | After | Step | Connection) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    body: dict[str, Any] = {}
    for name, default in _DEFAULTS[type(item)]:
        value = getattr(item, name)
        if value is default or value == default:
            continue
        if name in _NESTED:
            body[name] = [_plain(v) for v in value]
        else:
            body[name] = list(value) if type(value) is tuple else value
    return body
