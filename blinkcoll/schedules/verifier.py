"""Is a program right, for every element count? The proof is C++ (``csrc/verifier``); ``docs/programs.md`` states it.

The verifier shares the IR's types with what makes programs, and nothing else: it neither lowers nor encodes, and takes
the partition's ranges as data.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from ..errors import ScheduleError
from ..topology import group_switches
from ..topology.peers import Peers
from .program import PROTOCOLS, Connection, Program, executor_numbers
from .transports import TRANSPORTS

#: More slots than this are of no use to any pipeline here.
MOST_SLOTS = 32
#: As much as a buffer holds at most, in bytes of the largest elements.
MOST_CHUNK_BYTES = 1 << 44
#: Where the ranges that executors will use are laid out and checked: (count, bytes of an element, chunk_bytes).
PARTITION_CORNERS = ((0, 4, 64), (1, 4, 64), (5, 8, 16), (1021, 4, 256), (4099, 2, 1000), ((1 << 30) + 1, 4, 1 << 28))


def verify(program: Program, *, repeated: bool = False) -> None:
    """Prove a program for all element counts and chunk sizes, under every interleaving of its ranks.

    Parameters
    ----------
    repeated
        Prove also that a rank may begin its next call as soon as its own has ended, whatever the others do: peers'
        inputs and outputs are used only while their rank runs, and what a call does in a peer's scratch is over before
        the next call uses it. Not needed where all ranks begin and end a call together.

    Raises
    ------
    ScheduleError
        Naming rank, channel, step and iteration of the first thing that is wrong.

    Notes
    -----
    Two properties, each proven on its own: right with input and output apart, and, where ``program.in_place`` claims
    it, right with both in the same memory.
    """
    from .._core import verify_partition, verify_program

    _check_paths(program)
    _check_switches(program)
    _check_ways(program)
    try:
        complaint = verify_program(program, repeated)
        for count, elem_size, chunk_bytes in PARTITION_CORNERS:
            if program.equal_shards:
                count -= count % program.nshards
            complaint = complaint or verify_partition(program.nshards, program.weights, program.equal_shards, count, elem_size, chunk_bytes)
    except (TypeError, RuntimeError) as error:  # a field that is no number, or one that no machine can hold
        raise ScheduleError(f"malformed program: {error}") from None
    if complaint:
        raise ScheduleError(complaint)


def _check_paths(program: Program) -> None:
    """Connections lead from device to device over links that the topology has, and by a transport that fits the path."""
    numbers = executor_numbers(program.topology)
    if len(program.ranks) not in (program.nranks, len(numbers)):
        beside = f" and {len(program.topology.relays)} relays" if program.topology.relays else ""
        raise ScheduleError(f"the program has {len(program.ranks)} ranks, its topology {program.nranks}{beside}")
    if not 1 <= program.chunk_bytes <= MOST_CHUNK_BYTES:
        raise ScheduleError(f"chunk_bytes is {program.chunk_bytes}, expected 1 to {MOST_CHUNK_BYTES}")
    links = set(program.topology.capacities())
    forwarders = {s.name for s in program.topology.switches}
    fits: set[tuple[object, ...]] = set()  # all but a connection's slots, where it has been found right: many share it
    for i, connection in enumerate(program.connections):
        way = (connection.src, connection.dst, connection.path, connection.protocol, connection.transport)
        if way not in fits or not 1 <= connection.slots <= MOST_SLOTS:
            name = f"connection c{i} {connection.src}→{connection.dst}"
            _check_path(name, connection, numbers, links, forwarders)
            _check_transport(name, connection, program.topology.peers)
            fits.add(way)


def _check_switches(program: Program) -> None:
    """What is added or copied in a switch needs one that does so and is linked to all ranks."""
    for region, written in sorted(program.multicasts):
        if not group_switches(program.topology, adds=not written, copies=written):
            what = "stores to" if written else "adds"
            raise ScheduleError(f"a step {what} the {region} of all ranks in a switch, and topology {program.topology.name} has none that does so and is linked to all of them")


def _check_ways(program: Program) -> None:
    """What an engine carries is named by exchanges and nothing else, by both ends, and joins their group's first member to others."""
    carried = {i for i, c in enumerate(program.connections) if c.transport == "c10d"}
    if not carried and not any(step.over for channels in program.ranks for channel in channels for step in channel.steps):
        return
    ends: Counter[tuple[int, int]] = Counter()
    for rank, channels in enumerate(program.ranks):
        for c, channel in enumerate(channels):
            for s, step in enumerate(channel.steps):
                where = f"rank {rank}, channel {c}, step {s}"
                named = {*step.wait, *step.signal, *(o.connection for o in (*step.srcs, *step.dsts))}
                if carried & named:
                    raise ScheduleError(f"{where}: c{min(carried & named)} is carried by an engine: only exchanges go over it")
                if step.over and step.op != "exchange":
                    raise ScheduleError(f"{where}: a {step.op} goes over nothing of an engine's")
                for i in step.over:
                    pair = {program.connections[i].src, program.connections[i].dst} if i in carried else set()
                    if not {rank, *step.group[:1]} <= pair <= set(step.group):
                        raise ScheduleError(f"{where}: the exchange cannot go over c{i}, which joins its group's first member to no other by an engine")
                    ends[i, rank] += 1
    for i in sorted(carried):
        way = program.connections[i]
        if (ends[i, way.src], ends[i, way.dst]) != (1, 1):
            raise ScheduleError(f"connection c{i} {way.src}→{way.dst}: carried by an engine, and not named by one exchange at each end")


def _check_path(
    name: str, connection: Connection, numbers: dict[int | str, int], links: set[tuple[int | str, int | str]], forwarders: set[str]
) -> None:  # fmt: skip
    if not 1 <= connection.slots <= MOST_SLOTS:
        raise ScheduleError(f"{name}: has {connection.slots} slots, needs 1 to {MOST_SLOTS}")
    if connection.protocol not in PROTOCOLS or connection.transport not in TRANSPORTS:
        raise ScheduleError(f"{name}: unknown protocol {connection.protocol!r} or transport {connection.transport!r}")
    path = connection.path
    ends = (numbers.get(path[0]), numbers.get(path[-1])) if len(path) > 1 else None
    if ends != (connection.src, connection.dst) or not all(v in forwarders for v in path[1:-1]):
        raise ScheduleError(f"{name}: its path {'→'.join(map(str, path))} does not lead through switches from one to the other")
    for hop in pairwise(path):
        if hop not in links:
            raise ScheduleError(f"{name}: its path uses {hop[0]}→{hop[1]}, where there is no link")


def _check_transport(name: str, connection: Connection, peers: Peers) -> None:
    """Slots in host memory need a CPU on the way; peers' stores take NVLink where there is one, whatever the path says."""
    path = connection.path
    if connection.protocol != "simple" and connection.transport != "peer":
        raise ScheduleError(f"{name}: protocol {connection.protocol} is lines in the reader's memory, which transport {connection.transport!r} has not")
    way = "→".join(map(str, path))
    if connection.transport == "host" and peers.staging_place(path) is None:
        raise ScheduleError(f"{name}: its slots lie in host memory, and its path {way} crosses no CPU")
    if connection.transport == "peer" and peers.staged(path) and peers.fast(path[0], path[-1]):
        raise ScheduleError(f"{name}: its path {way} lies beside the NVLink that peer access takes; it needs transport 'host' and a CPU on the way")
