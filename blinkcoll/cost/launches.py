"""How many kernels one process launches for a call, one after the other."""

from __future__ import annotations

from collections import Counter

from ..schedules.program import Program


def ranks_of_one_process(program: Program) -> int:
    """The most ranks that one process can launch for: those of a server."""
    return max(Counter(device.server for device in program.topology.devices).values())


def launches(program: Program) -> int:
    """For those ranks and the relays that have work; a rank has one launch, whatever executors stand for its halves."""
    executors = min(program.nexecutors, program.nranks + len(program.topology.relays))
    return ranks_of_one_process(program) + executors - program.nranks
