"""What a step with operands of all ranks loads: the ports of the switches that add and copy, each once.

One multicast object lies over all switches that join the ranks, its addresses spread evenly over their ports; so each
switch gets the part of every transfer that its ports have of all ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from ..errors import SimulationError
from ..schedules.identity import once_a_program
from ..schedules.program import Program, Step
from ..topology import group_switches
from .parameters import Parameters

Hop = tuple["int | str", "int | str"]
#: Directed pairs of vertices, and bytes on the wire of each per payload byte.
Loads = tuple[tuple[Hop, float], ...]
PROTOCOL = "multicast"


@dataclass(frozen=True)
class Group:
    """Per rank, what a transfer from it to the switches loads, and one from them to it; the switches' share it evenly."""

    out: tuple[Loads, ...]
    back: tuple[Loads, ...]

    def loads(self, rank: int, reads: bool, writes: bool) -> dict[Hop, float]:
        """What ``rank`` loads by a step that reads a place of all ranks, that writes one, or both."""
        load: dict[Hop, float] = {}
        for does, one, all_ in ((reads, self.back, self.out), (writes, self.out, self.back)):
            for hop, part in (*one[rank], *(entry for loads in all_ for entry in loads)) if does else ():
                load[hop] = load.get(hop, 0.0) + part
        return load


@once_a_program
def group_of(program: Program, params: Parameters) -> Group | None:
    """The group of a program's multicast operands; None where it has none.

    Raises
    ------
    SimulationError
        Where no switch joins all ranks that does what its steps need.
    """
    if not program.multicasts:
        return None
    topology = program.topology
    adds, copies = (any(written == wanted for _, written in program.multicasts) for wanted in (False, True))
    switches = group_switches(topology, adds=adds, copies=copies)
    if not switches:
        raise SimulationError(f"topology {topology.name} has no switch that adds or copies and is linked to all ranks")
    capacities = topology.capacities()
    ports = {s: sum(float(capacities[hop]) for r in range(topology.nranks) for hop in ((r, s), (s, r))) for s in switches}
    efficiency = params.protocol(PROTOCOL).efficiency
    parts = [(s, ports[s] / sum(ports.values()) / efficiency) for s in switches]
    ranks = range(topology.nranks)
    return Group(tuple(tuple(((r, s), part) for s, part in parts) for r in ranks), tuple(tuple(((s, r), part) for s, part in parts) for r in ranks))


def group_rates(program: Program, group: Group, capacities: Mapping[Hop, Fraction]) -> list[float]:
    """Per share, the GB/s of payload that each of its steps over the switches gets while all of them run at once."""
    total: dict[Hop, float] = {}
    for rank, channels in enumerate(program.ranks):
        for channel in channels:
            turns = [(step.share, *sides) for step in channel.steps if any(sides := _of_all(step))]  # a channel's steps take turns
            for share, reads, writes in turns:
                for hop, part in group.loads(rank, reads, writes).items():
                    total[hop] = total.get(hop, 0.0) + part * program.weights[share] / len(turns)
    slowest = min((float(capacities[hop]) / load for hop, load in total.items() if load > 0), default=0.0)
    return [slowest * weight for weight in program.weights]


def protocol_of(program: Program, connection: int) -> str:
    """The protocol whose costs a connection has: signals among the ranks of a group have the group's."""
    if program.multicasts and connection not in program.carrying:
        return PROTOCOL
    return program.connections[connection].protocol


def _of_all(step: Step) -> tuple[bool, bool]:
    """Whether a step reads a place of all ranks, and whether it writes one."""
    return any(o.buffer == "multicast" for o in step.srcs), any(o.buffer == "multicast" for o in step.dsts)
