"""Is a program right, for every element count? The proof is C++ (``csrc/verifier``); ``docs/programs.md`` states it.

The verifier shares the IR's types with what makes programs, and nothing else: it neither lowers nor encodes, and takes
the partition's ranges as data.
"""

from __future__ import annotations

from itertools import pairwise

from ..errors import ScheduleError
from .program import PROTOCOLS, Connection, Program

#: More slots than this are of no use to any pipeline here.
MOST_SLOTS = 32
TRANSPORTS = ("peer",)
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
    """Connections lead from rank to rank over links that the topology has."""
    if len(program.ranks) != program.topology.nranks:
        raise ScheduleError(f"the program has {len(program.ranks)} ranks, its topology {program.topology.nranks}")
    if program.chunk_bytes < 1:
        raise ScheduleError(f"chunk_bytes is {program.chunk_bytes}, expected at least 1")
    links = set(program.topology.capacities())
    forwarders = {s.name for s in program.topology.switches} | {d.name for d in program.topology.relays}
    for i, connection in enumerate(program.connections):
        _check_path(f"connection c{i} {connection.src}→{connection.dst}", connection, links, forwarders)


def _check_path(name: str, connection: Connection, links: set[tuple[int | str, int | str]], forwarders: set[str]) -> None:
    if not 1 <= connection.slots <= MOST_SLOTS:
        raise ScheduleError(f"{name}: has {connection.slots} slots, needs 1 to {MOST_SLOTS}")
    if connection.protocol not in PROTOCOLS or connection.transport not in TRANSPORTS:
        raise ScheduleError(f"{name}: unknown protocol {connection.protocol!r} or transport {connection.transport!r}")
    path = connection.path
    if len(path) < 2 or path[0] != connection.src or path[-1] != connection.dst or not all(v in forwarders for v in path[1:-1]):
        raise ScheduleError(f"{name}: its path {'→'.join(map(str, path))} does not lead through switches from one to the other")
    for hop in pairwise(path):
        if hop not in links:
            raise ScheduleError(f"{name}: its path uses {hop[0]}→{hop[1]}, where there is no link")
