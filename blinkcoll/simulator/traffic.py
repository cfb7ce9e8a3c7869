"""Which links a step crosses, and how many bytes of wire a byte of payload takes on each."""

from __future__ import annotations

from itertools import pairwise

from ..cost.groups import group_of
from ..cost.parameters import Parameters, parameters_for
from ..schedules.program import Program, Step
from ..schedules.transports import host_parts
from ..topology import route

Hop = tuple["int | str", "int | str"]


def links_crossed(program: Program, rank: int, step: Step, params: Parameters | None = None) -> dict[Hop, float]:
    """Bytes on the wire per payload byte of ``step`` on each link, for the rank that runs it."""
    params = params or parameters_for(program.topology)
    group = group_of(program, params)
    load: dict[Hop, float] = {} if group is None else group.loads(rank, step)

    def cross(path: tuple[int | str, ...], efficiency: float) -> None:
        for hop in pairwise(path):
            load[hop] = load.get(hop, 0.0) + 1 / efficiency

    for operand in (*step.srcs, *step.dsts):
        if operand.connection is not None:
            connection = program.connections[operand.connection]
            efficiency = params.protocol(connection.protocol).efficiency
            if connection.transport == "host":
                cross(host_parts(program.topology, connection.path)[connection.dst == rank], efficiency)
            elif connection.dst != rank:
                cross(connection.path, efficiency)
    for operands, pulls in ((step.srcs, True), (step.dsts, False)):
        for operand in operands:
            if operand.rank is not None and operand.rank != rank:
                cross(route(program.topology, *((operand.rank, rank) if pulls else (rank, operand.rank))), 1.0)
    return load
