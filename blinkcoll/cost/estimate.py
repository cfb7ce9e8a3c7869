"""A program's time in closed form, for quick choices: filling plus periods of a pipeline.

One iteration of a share's steps is a graph: a step follows the one before it in its channel and those that publish what
it reads. Its longest path L is what the first chunk takes; each further iteration adds the period P of the slowest
channel: from its first step to its last, or what the slots allow. A run of k iterations takes ``L + (k - 1) P``, the
slowest share's. A hop costs α (wire and flag) and its step β c plus synchronisation (Hockney, Parallel Computing 1994,
with the pipelining of Träff, Ripke, Siebert, Balaji, Thakur and Gropp, EuroPVM/MPI 2008). Links are taken to be divided
by the shares' weights all the time; the simulator knows better.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from .._core import Partition
from ..errors import SimulationError
from ..schedules.encoding import NumberedStep, number_uses
from ..schedules.program import Program
from ..schedules.transports import host_parts
from ..topology import Path, route
from .groups import group_of, group_rates, protocol_of
from .launches import launches
from .parameters import Parameters, parameters_for

_Node = tuple[int, int, int]  # rank, channel, step


def estimate_us(
    program: Program, nbytes: int, *, elem_size: int = 4, chunk_bytes: int | None = None, rates: str = "planning",
    params: Parameters | None = None,
) -> float:  # fmt: skip
    """The time of one call in microseconds: the simulator's for rings, chains and single trees, near it for several.

    Parameters
    ----------
    program, nbytes, elem_size, chunk_bytes, rates, params
        As :func:`blinkcoll.simulator.run` takes them.

    Raises
    ------
    SimulationError
        Where a path uses a link that the topology does not have, or the steps of an iteration wait for each other.

    Notes
    -----
    Linear in the program's steps; neither contention that differs over time nor ``after`` between shares is looked at.
    """
    params = params or parameters_for(program.topology)
    chunk_bytes = chunk_bytes or program.chunk_bytes
    graph = _Graph(program, rates, params)
    partition = Partition(nbytes // elem_size, elem_size, program.nshards, program.weights, chunk_bytes)
    slowest = 0.0
    for share in range(len(program.weights)):
        share_bytes = max(partition.share_range(shard, share)[1] for shard in range(program.nshards)) * elem_size
        if share_bytes:
            chunk = max(partition.chunk_range(shard, share, 0)[1] for shard in range(program.nshards)) * elem_size
            slowest = max(slowest, graph.share_time_us(share, chunk, share_bytes / chunk))
    return params.launch.time_us(launches(program)) + slowest


@dataclass(frozen=True)
class _StepCost:
    """A step's cost for c bytes: ``busy_us + c / rate``."""

    busy_us: float
    bytes_per_us: float

    def us(self, nbytes: float) -> float:
        return self.busy_us + (nbytes / self.bytes_per_us if self.bytes_per_us else 0.0)


class _Graph:
    """The steps of one iteration, what each costs and which it waits for."""

    def __init__(self, program: Program, rates: str, params: Parameters) -> None:
        self.program, self.params = program, params
        self.capacities = program.topology.capacities(rates)
        self.group = group_of(program, params)
        self.numbered = number_uses(program).steps
        self.latency = self._latencies()
        self.crossing = self._crossing()
        self.group_rates = [] if self.group is None else group_rates(program, self.group, self.capacities)
        self.costs = {node: self._cost(node[0], step) for node, step in self.numbered.items()}
        self.writers = {
            (c, use): node
            for node, step in self.numbered.items()
            for c, use in step.signals
            if program.connections[c].src == node[0]
        }
        self.order = self._topological()

    def share_time_us(self, share: int, chunk: float, iterations: float) -> float:
        """Filling, then ``iterations - 1`` periods (not rounded up: the last chunk is ragged)."""
        own = [node for node in self.order if self.numbered[node].step.share == share]
        ends = self._ends(own, chunk, None)
        fill = max(ends.values(), default=0.0)
        return fill + (iterations - 1) * self._period(own, chunk)

    def _period(self, own: list[_Node], chunk: float) -> float:
        period = 0.0
        channels: dict[tuple[int, int], list[_Node]] = {}
        for node in own:
            channels.setdefault(node[:2], []).append(node)
        longest = max((len(nodes) for nodes in channels.values()), default=0)
        for nodes in channels.values():
            period = max(period, sum(self.costs[node].us(chunk) for node in nodes))
        if longest > 1:  # all such channels go round together: look at one
            nodes = next(nodes for nodes in channels.values() if len(nodes) == longest)
            period = max(period, self._ends(own, chunk, min(nodes, key=lambda n: n[2]))[max(nodes, key=lambda n: n[2])])
        else:
            for node in own:
                for c, use in self.numbered[node].waits:
                    connection = self.program.connections[c]
                    if connection.dst == node[0] and (c, use) in self.writers:
                        there = self.costs[self.writers[c, use]].us(chunk)
                        period = max(period, (there + self.costs[node].us(chunk) + 2 * self.latency[c]) / connection.slots)
        return period

    def _ends(self, own: list[_Node], chunk: float, start: _Node | None) -> dict[_Node, float]:
        """When each step of an iteration ends, all beginning at 0; only what follows ``start`` where that is given."""
        ends: dict[_Node, float] = {}
        for node in own:
            before = [ends[n] + delay for n, delay in self._before(node) if n in ends]
            if start is None or node == start or before:
                ends[node] = max(before, default=0.0) + self.costs[node].us(chunk)
        return ends

    def _before(self, node: _Node) -> list[tuple[_Node, float]]:
        rank, channel, step = node
        before = [((rank, channel, step - 1), 0.0)] if step else []
        for c, use in self.numbered[node].waits:
            if self.program.connections[c].dst == rank and (c, use) in self.writers:
                before.append((self.writers[c, use], self.latency[c]))
        return before

    def _topological(self) -> list[_Node]:
        waiting = {node: len(self._before(node)) for node in self.numbered}
        after: dict[_Node, list[_Node]] = {}
        for node in self.numbered:
            for n, _ in self._before(node):
                after.setdefault(n, []).append(node)
        ready = [node for node, n in waiting.items() if n == 0]
        order = []
        while ready:
            node = ready.pop()
            order.append(node)
            for n in after.get(node, ()):
                waiting[n] -= 1
                if waiting[n] == 0:
                    ready.append(n)
        if len(order) < len(waiting):
            raise SimulationError(f"{self.program.algorithm}: {len(waiting) - len(order)} steps of an iteration wait for each other")
        return order

    def _latencies(self) -> list[float]:
        wire: dict[tuple[int | str, int | str], float] = {}
        topology = self.program.topology
        for link in topology.links:
            hop = (topology.vertex(link.src), topology.vertex(link.dst))
            wire[hop] = max(wire.get(hop, 0.0), float(link.latency_us))

        def along(path: Path) -> float:
            return sum(wire.get(hop, 0.0) for hop in pairwise(path))

        # A flag in host memory is seen by a read: half a round trip on average until it is sent, and its answer.
        return [
            self.params.protocol(protocol_of(self.program, i)).flag_us + along(c.path) + (along(host_parts(topology, c.path)[1]) if c.transport == "host" else 0.0)
            for i, c in enumerate(self.program.connections)
        ]

    def _crossing(self) -> dict[tuple[int | str, int | str], int]:
        """The weights of the shares that cross each link, added up."""
        shares: dict[tuple[int | str, int | str], set[int]] = {}
        for (rank, _, _), numbered in self.numbered.items():
            for path, _ in self._paths(rank, numbered):
                for hop in pairwise(path):
                    shares.setdefault(hop, set()).add(numbered.step.share)
        return {hop: sum(self.program.weights[s] for s in of) for hop, of in shares.items()}

    def _paths(self, rank: int, numbered: NumberedStep) -> list[tuple[Path, float]]:
        """The ways a step's data takes, and the protocol's efficiency on each."""
        step = numbered.step
        paths: list[tuple[Path, float]] = []
        for operand in step.dsts:
            if operand.connection is not None and self.program.connections[operand.connection].src == rank:
                connection = self.program.connections[operand.connection]
                stored = host_parts(self.program.topology, connection.path)[0] if connection.transport == "host" else connection.path
                paths.append((stored, self.params.protocol(connection.protocol).efficiency))
            elif operand.rank is not None and operand.rank != rank:
                paths.append((route(self.program.topology, rank, operand.rank), 1.0))
        for operand in step.srcs:
            if operand.connection is not None and self.program.connections[operand.connection].transport == "host":
                connection = self.program.connections[operand.connection]
                paths.append((host_parts(self.program.topology, connection.path)[1], self.params.protocol(connection.protocol).efficiency))
        paths += [(route(self.program.topology, o.rank, rank), 1.0) for o in step.srcs if o.rank is not None and o.rank != rank]
        return paths

    def _cost(self, rank: int, numbered: NumberedStep) -> _StepCost:
        step = numbered.step
        protocols = [self.params.protocol(protocol_of(self.program, c)) for c in {*step.wait, *step.signal}]
        busy_us = max((p.busy_us for p in protocols), default=0.0)
        if step.op == "nop":
            return _StepCost(busy_us, 0.0)
        slowest = min((p.rate for p in protocols), default=1.0) * self.params.channel_gb_s
        if any(o.buffer == "multicast" for o in (*step.srcs, *step.dsts)):
            slowest = min(slowest, self.group_rates[step.share])
        for path, efficiency in self._paths(rank, numbered):
            for hop in pairwise(path):
                if hop not in self.capacities:
                    raise SimulationError(f"topology {self.program.topology.name} has no link {hop[0]}→{hop[1]}")
                part = self.program.weights[step.share] / self.crossing[hop]
                slowest = min(slowest, float(self.capacities[hop]) * part * efficiency)
        return _StepCost(busy_us, slowest * 1e3)
