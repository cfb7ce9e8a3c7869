"""Which links a step crosses, and how many bytes of wire a byte of payload takes on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from ..cost.groups import group_of
from ..cost.parameters import Parameters, parameters_for
from ..schedules.program import Program, Step
from ..schedules.transports import host_parts
from ..topology import Path, route

Hop = tuple["int | str", "int | str"]
#: A way that data takes: over connection i into its slot ("into", i, rank), out of one in host memory ("out of", i, rank), from
#: rank a to b where one of them touches the other's buffer ("pair", a, b), or by the operands of all ranks of a step ("all",
#: rank, which they are: 1 sources, 2 destinations, 3 both).
Crossing = tuple[str, int, int]


def links_crossed(program: Program, rank: int, step: Step, params: Parameters | None = None) -> dict[Hop, float]:
    """Bytes on the wire per payload byte of ``step`` on each link, for the rank that runs it."""
    return links_loaded(program, Counter(crossings(program, rank, step)), params)


def crossings(program: Program, rank: int, step: Step) -> list[Crossing]:
    """The ways that the data of a step takes."""
    found: list[Crossing] = []
    of_all = 0
    for side, operands in ((1, step.srcs), (2, step.dsts)):
        for operand in operands:
            i, peer = operand.connection, operand.rank
            if i is not None:
                connection = program.connections[i]
                if connection.dst != rank:
                    found.append(("into", i, rank))
                elif connection.transport == "host":
                    found.append(("out of", i, rank))
            elif peer is not None and peer != rank:
                found.append(("pair", peer, rank) if side == 1 else ("pair", rank, peer))
            elif operand.buffer == "multicast":
                of_all |= side
    return [*found, ("all", rank, of_all)] if of_all else found


def links_loaded(program: Program, parts: Mapping[Crossing, float], params: Parameters | None = None) -> dict[Hop, float]:
    """Bytes on the wire of each link, where ways have so much payload to carry."""
    params = params or parameters_for(program.topology)
    load: dict[Hop, float] = {}
    for crossing, part in parts.items():
        for hop, wire in _wire(program, crossing, params).items():
            load[hop] = load.get(hop, 0.0) + part * wire
    return load


def _wire(program: Program, crossing: Crossing, params: Parameters) -> dict[Hop, float]:
    kind, a, b = crossing
    if kind == "all":
        group = group_of(program, params)
        assert group is not None
        return group.loads(a, bool(b & 1), bool(b & 2))
    if kind == "pair":
        return _along(route(program.topology, a, b), 1.0)
    connection = program.connections[a]
    path = connection.path
    if connection.transport == "host":
        path = host_parts(program.topology, path)[kind == "out of"]
    return _along(path, params.protocol(connection.protocol).efficiency)


def _along(path: Path, efficiency: float) -> dict[Hop, float]:
    return {hop: count / efficiency for hop, count in Counter(pairwise(path)).items()}
