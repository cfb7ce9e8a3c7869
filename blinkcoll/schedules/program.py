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
from functools import cached_property
from typing import Any

from .. import __version__
from ..errors import ScheduleError, TopologyError
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
        return f"rank {executor}" if executor < self.nranks else f"relay {self.topology.relays[executor - self.nranks].name}"

    def executor_name(self, executor: int) -> str:
        """``rank 2 (gpu4)``, or ``relay gpu3``."""
        device = f" ({self.topology.devices[executor].name})" if executor < self.nranks else ""
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

    @property
    def nchannels(self) -> int:
        """The most channels that any rank runs (thread blocks on a GPU)."""
        return max((len(channels) for channels in self.ranks), default=0)

    def with_chunk_bytes(self, chunk_bytes: int) -> Program:
        """The same program (and hash) with another default chunk size."""
        other = replace(self, chunk_bytes=chunk_bytes)
        other.__dict__["hash"] = self.hash  # no part of it has changed: computed once for all sizes
        return other

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits over everything but ``chunk_bytes`` and names; of the topology, its fingerprint."""
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
            Where the text is not such JSON, or its hash is not that of its content.
        """
        try:
            body = json.loads(text)
            if body["schema"] != SCHEMA:
                raise ScheduleError(f"expected a program of schema {SCHEMA}, got {body['schema']!r}")
            program = cls(
                algorithm=str(body["algorithm"]),
                collective=str(body["collective"]),
                root=None if body["root"] is None else _integer("root", body["root"]),
                topology=Topology.from_json(json.dumps(body["topology"])),
                nshards=_integer("nshards", body["nshards"]),
                weights=tuple(_integer("weights", w) for w in body["weights"]),
                in_place=_boolean("in_place", body["in_place"]),
                chunk_bytes=_integer("chunk_bytes", body["chunk_bytes"]),
                connections=tuple(_connection(c) for c in body["connections"]),
                ranks=tuple(tuple(Channel(tuple(_step(s) for s in ch)) for ch in channels) for channels in body["ranks"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, (ScheduleError, TopologyError)):
                raise
            raise ScheduleError(f"program JSON: missing or malformed field: {error!r}") from None
        if program.topology.fingerprint != body.get("fingerprint", program.topology.fingerprint):
            raise ScheduleError(f"program JSON: its topology has fingerprint {program.topology.fingerprint}, the file says {body['fingerprint']}")
        if program.hash != body.get("hash"):
            raise ScheduleError(f"program JSON: its hash says {body.get('hash')}, its content hashes to {program.hash}")
        return program


def _plain(item: Operand | After | Step | Connection) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    body: dict[str, Any] = {}
    for f in fields(item):
        value = getattr(item, f.name)
        if value != f.default:
            nested = isinstance(value, tuple) and value and isinstance(value[0], (Operand, After))
            body[f.name] = [_plain(v) for v in value] if nested else list(value) if isinstance(value, tuple) else value
    return body


def _step(body: dict[str, Any]) -> Step:
    made = dict(body)
    for name in ("srcs", "dsts"):
        made[name] = tuple(Operand(**_typed(o, str_fields=("buffer", "region"))) for o in body.get(name, ()))
    made["after"] = tuple(After(**_typed(a)) for a in body.get("after", ()))
    for name in ("wait", "signal", "group", "over"):
        made[name] = tuple(_integer(name, c) for c in body.get(name, ()))
    return Step(**_typed(made, str_fields=("op",), skip=("srcs", "dsts", "after", "wait", "signal", "group", "over")))


def _connection(body: dict[str, Any]) -> Connection:
    path = tuple(v if isinstance(v, str) else _integer("path", v) for v in body["path"])
    return Connection(**_typed({**body, "path": path}, str_fields=("protocol", "transport"), skip=("path",)))


_FLAGS = ("prescaled", "postscaled")


def _typed(body: dict[str, Any], str_fields: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The same fields, where each is of its type: text for ``str_fields``, true or false for flags, whole numbers else."""
    for name, value in body.items():
        if name in _FLAGS:
            _boolean(name, value)
            continue
        if name in str_fields and not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}, expected text")
        if name not in str_fields and name not in skip:
            _integer(name, value)
    return body


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, expected true or false")
    return value


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, expected a whole number")
    return value
