"""A time that no simulated run of a program falls below: what its busiest link carries, what its busiest channel does, and its depth in hops.

All three are known from the steps alone, whatever the chunks are, so one pass serves all sizes and protocols. A search for
the fastest program need not simulate those whose floor is above what another has reached.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from ..cost.depth import least_depth
from ..cost.groups import PROTOCOL
from ..cost.launches import launches
from ..cost.parameters import Parameters, parameters_for
from ..schedules.program import Program
from .traffic import Crossing, crossings, links_loaded

#: Ranges are cut between elements and aligned: a share may have so many bytes less than its part of the data, per
#: shard and share.
_ROUNDING = 64


class Floor:
    """The least time of a program by size.

    Parameters
    ----------
    program
        By any protocol; all its connections by the same.
    params
        The devices' parameters; those of the topology's architecture where None.
    """

    def __init__(self, program: Program, params: Parameters | None = None) -> None:
        params = self._params = params or parameters_for(program.topology)
        protocol = program.connections[0].protocol if program.connections else "simple"
        total = sum(program.weights) * program.nshards
        carried: dict[Crossing, float] = defaultdict(float)
        busiest: set[tuple[float, int]] = set()
        for rank, channels in enumerate(program.ranks):
            for channel in channels:
                moved, synchronised = 0.0, 0
                for step in channel.steps:
                    part = program.weights[step.share] / total
                    moved += part if step.op != "nop" else 0.0
                    synchronised += bool(step.wait or step.signal)
                    for crossing in crossings(program, rank, step):
                        carried[crossing] += part
                busiest.add((moved, synchronised))
        load = links_loaded(program, carried, params)
        efficiency = params.protocol(protocol).efficiency
        capacities = program.topology.capacities()
        self._link = max((part * efficiency / (float(capacities[hop]) * 1e3) for hop, part in load.items()), default=0.0)
        self._channels = sorted(busiest)
        self._channel_rate = params.channel_gb_s * 1e3
        self._group_busy_us = params.protocol(PROTOCOL).busy_us if program.multicasts else float("inf")
        self._rounding = _ROUNDING * program.nshards * len(program.weights)
        self._all_shares = 2 * _ROUNDING * total / min(program.weights)  # from here on every share has data: every step is run once at least
        self._launch_us = params.launch.time_us(launches(program))
        self._depth = least_depth(program)
        self._wire_us = _shortest_wire(program)

    def us(self, nbytes: int, protocol: str = "simple") -> float:
        """Microseconds that ``nbytes`` take at least, all connections by ``protocol``."""
        costs = self._params.protocol(protocol)
        surely = max(0, nbytes - self._rounding)
        busy_us = min(costs.busy_us, self._group_busy_us) if nbytes >= self._all_shares else 0.0
        rate = self._channel_rate * costs.rate
        busiest = max((steps * busy_us + moved * surely / rate for moved, steps in self._channels), default=0.0)
        return self._launch_us + max(surely * self._link / costs.efficiency, busiest, self._depth * (costs.busy_us + costs.flag_us + self._wire_us))


def _shortest_wire(program: Program) -> float:
    """The latency of the path that has the least."""
    wire = program.topology.latencies_us
    return min((sum(wire.get(hop, 0.0) for hop in pairwise(c.path)) for c in program.connections), default=0.0)
