"""From a program and a size to a simulated time: prepares the machine for the C++ core (``csrc/simulator``)."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

from ..cost.groups import Loads, group_of, protocol_of
from ..cost.launches import launches, ranks_of_one_process
from ..cost.parameters import Parameters, Protocol, parameters_for
from ..errors import ScheduleError, SimulationError
from ..packing.collectives import ROOTED
from ..schedules.encoding import encode
from ..schedules.identity import ButProtocols, once_a_program
from ..schedules.program import Connection, Program
from ..schedules.transports import host_parts
from ..schedules.unequal import Counts, shard_bounds
from ..topology import Path, Topology, route
from .hostways import HostWays
from .result import SimulationResult, StepRecord

#: Rates beyond this (bytes/µs) are not told apart from infinite ones.
_FASTEST = 1e15
_MOST_ELEMENTS = 1 << 40  # csrc/blinkcoll/partition.h
_CAUSES = ("start", "channel", "arrival", "credit", "after")
_NO_RECORD = 0xFFFFFFFF

_Hop = tuple["int | str", "int | str"]
_Route = tuple[list[int], float, float, list[int], float]  # links, latency, efficiency; of reads from host memory, links and round trip


def run(
    program: Program, nbytes: int | None = None, *, elem_size: int = 4, chunk_bytes: int | None = None, rates: str = "planning",
    params: Parameters | None = None, trace: bool = False, counts: Counts | None = None,
) -> SimulationResult:  # fmt: skip
    """Time one call of a program.

    Parameters
    ----------
    program
        What all ranks execute; its connections' paths lie in its topology.
    nbytes
        The collective's size as nccl-tests counts it (the total of all shards for gather, scatter, all-gather and
        reduce-scatter; of all n x n pieces for ``alltoallv``). What ``counts`` say, where they are given.
    elem_size
        Bytes of an element.
    chunk_bytes
        The most bytes of a chunk; the program's own where None.
    rates
        ``"planning"`` or ``"measured"``: which capacity of the links. By measured rates data between GPUs without peer
        access goes through host memory, and peer traffic that turns round in an Intel CPU pays for it.
    params
        The devices' parameters; those of the topology's architecture where None.
    trace
        Whether to keep every step.
    counts
        Elements of each rank's shard where they are not equal, as :meth:`blinkcoll.runtime.executor.Executor.run` takes them.

    Raises
    ------
    SimulationError
        Where ``nbytes`` is missing or not what ``counts`` say, the program does not take such counts, ``nbytes`` is no whole number of elements, a connection's path uses a link that the topology does not
        have, the program deadlocks, or ``rates`` or a protocol is unknown.

    Notes
    -----
    Links are shared max-min fairly between the flows that cross them; neither packets, nor retries, nor traffic of
    others, nor any cost of sharing itself is modelled.
    """
    bounds = () if counts is None else _bounds(program, counts)
    if bounds and nbytes is None:
        nbytes = bounds[-1] * elem_size
    if nbytes is None:
        raise SimulationError("neither nbytes nor counts say how much data there is")
    if bounds and nbytes != bounds[-1] * elem_size:
        raise SimulationError(f"counts make {bounds[-1]} elements of {elem_size} bytes, nbytes={nbytes}")
    if elem_size < 1 or nbytes < 0 or nbytes % elem_size or nbytes // elem_size > _MOST_ELEMENTS:
        raise SimulationError(f"nbytes={nbytes} is not a whole number of elements of {elem_size} bytes, at most 2^40 of them")
    if rates not in ("planning", "measured"):
        raise SimulationError(f"rates={rates!r}; expected 'planning' or 'measured'")
    if params is None:
        params = parameters_for(program.topology)
    if chunk_bytes is None:
        chunk_bytes = program.chunk_bytes
    if chunk_bytes <= 0:
        raise SimulationError(f"chunk_bytes={chunk_bytes}, expected at least 1")
    try:
        prepared = _prepare(program, rates, params)
        measured = prepared.start(nbytes // elem_size, elem_size, chunk_bytes, trace, bounds)
        measured.advance(inf)
    except RuntimeError as error:
        raise SimulationError(f"{program.collective} by {program.algorithm}, {nbytes} bytes: {error}") from None
    launch_us = params.launch.time_us(launches(program))
    time_us = launch_us + measured.makespan_us
    carried = dict(zip(prepared.links, measured.link_bytes(), strict=True))
    capacity = dict(zip(prepared.links, prepared.link_rate, strict=True))
    # Ranks may be busy for less than a link that they take turns on.
    busiest_us = max((carried[hop] / capacity[hop] for hop in carried), default=0.0)
    period_us = params.launch.period_us(ranks_of_one_process(program), waits=program.collective not in ROOTED) + measured.longest_rank_us
    return SimulationResult(
        collective=program.collective,
        nranks=program.nranks,
        nbytes=nbytes,
        chunk_bytes=chunk_bytes,
        time_us=time_us,
        period_us=max(period_us, busiest_us),
        link_bytes=carried,
        link_utilisation={hop: carried[hop] / (capacity[hop] * time_us) if time_us > 0 else 0.0 for hop in carried},
        nsteps=measured.steps_run,
        trace=_trace(program, measured.records(), launch_us) if trace else None,
    )


def _bounds(program: Program, counts: Counts) -> tuple[int, ...]:
    try:
        return shard_bounds(program, counts)
    except ScheduleError as error:
        raise SimulationError(str(error)) from None


class Attempt:
    """One call of a program, simulated for as long as it may still be fast enough. Elements of 4 bytes, planning rates.

    Parameters
    ----------
    program, nbytes, chunk_bytes
        As :func:`run` takes them.
    """

    def __init__(self, program: Program, nbytes: int, chunk_bytes: int) -> None:
        params = parameters_for(program.topology)
        self._what = f"{program.collective} by {program.algorithm}, {nbytes} bytes"
        self._launch_us = params.launch.time_us(launches(program))
        try:
            self._run = _prepare(program, "planning", params).start(nbytes // 4, 4, chunk_bytes)
        except RuntimeError as error:
            raise SimulationError(f"{self._what}: {error}") from None

    @property
    def least_us(self) -> float:
        """The time is no less than this, as far as is known: what a resource or a channel has left, with what must come before and after."""
        least_end_us: float = self._run.least_end_us
        return self._launch_us + least_end_us

    def advance(self, within_us: float) -> float | None:
        """The time of the call, µs, as :func:`run` has it; None as soon as it is sure to be more than ``within_us``.

        That may show late, or never where the time is just above: a run within the limit is always seen to its end. After
        None, the run may go on within more.
        """
        try:
            done = self._run.advance(within_us - self._launch_us)
        except RuntimeError as error:
            raise SimulationError(f"{self._what}: {error}") from None
        return self._launch_us + self._run.makespan_us if done else None


_encode = once_a_program(encode, ButProtocols)  # the core is told of protocols by costs and ways


class _Prepared:
    """The C++ simulation of a program, and what its links are called."""

    def __init__(self, program: Program, rates: str, params: Parameters) -> None:
        from .. import _core

        topology = program.topology
        self.links: list[_Hop] = []
        self.link_rate: list[float] = []
        table = _Links(topology, rates, self.links, self.link_rate)
        connections: list[_Route] = []
        costs: list[tuple[float, float, float]] = []
        channel_rate = min(params.channel_gb_s * 1e3, _FASTEST)
        alike: dict[tuple[Path, str, str], _Route] = {}
        for i, connection in enumerate(program.connections):
            name = protocol_of(program, i)
            protocol, way = params.protocol(name), (connection.path, connection.transport, name)
            if way not in alike:
                alike[way] = _route_of(connection, table, protocol, f"c{i}")
            connections.append(alike[way])
            costs.append((protocol.busy_us, channel_rate * protocol.rate, channel_rate * protocol.rate))
        costs.append((params.protocol("simple").busy_us, channel_rate, channel_rate))
        pairs = _pairs(program, table)
        group = group_of(program, params)
        out, back = (table.loads(group.out), table.loads(group.back)) if group else ([], [])
        latency_us = max((2 * table.latencies[hop] for loads in group.out for hop, _ in loads), default=0.0) if group else 0.0
        memory = [min(params.memory_gb_s * 1e3, _FASTEST)] * program.nexecutors
        self._core: Any = _core.Simulation(_encode(program), self.link_rate, memory, connections, costs, pairs, out, back, latency_us)

    def start(self, count: int, elem_size: int, chunk_bytes: int, trace: bool = False, bounds: tuple[int, ...] = ()) -> Any:
        """A run that stands still, of the C++ core; its times are from the channels' start. ``bounds``: where unequal shards begin, or nothing."""
        from .. import _core

        return _core.SimulatedRun(self._core, count, elem_size, chunk_bytes, trace, bounds)


@once_a_program
def _prepare(program: Program, rates: str, params: Parameters) -> _Prepared:
    return _Prepared(program, rates, params)


class _Links:
    """Numbers the links as programs name them, and what else a way between two ranks takes.

    By measured rates a machine is taken as it is: see :mod:`blinkcoll.simulator.hostways`.
    """

    def __init__(self, topology: Topology, rates: str, names: list[_Hop], link_rate: list[float]) -> None:
        self.topology = topology
        self.host = HostWays(topology) if rates == "measured" else None
        self.capacities = topology.capacities(rates)
        self.networks = frozenset(switch.name for switch in topology.switches if switch.kind == "network")
        self.latencies: dict[_Hop, float] = {}
        for link in self.host.links if self.host is not None else topology.links:
            hop = (topology.vertex(link.src), topology.vertex(link.dst))
            self.capacities.setdefault(hop, link.rate(rates))
            self.latencies[hop] = max(self.latencies.get(hop, 0.0), float(link.latency_us))
        self.numbers: dict[_Hop, int] = {}
        self.names, self.link_rate = names, link_rate

    def measured_through_host(self, path: Path) -> bool:
        """Whether what such a way through host memory reaches as a whole is known."""
        return self.host is not None and self.host.refuses(path)

    def between(self, path: Path, what: str) -> tuple[list[int], float, float]:
        """Links, latency and payload per byte of the way from a path's first rank to its last."""
        if self.host is None:
            return (*self.along(path, what), 1.0)
        way = self.host.way(path)
        links, latency_us = self.along(way.path, what)
        if way.medium is not None:
            links.append(self._number(way.medium, min(self.link_rate[k] for k in links)))
        return links, latency_us, way.efficiency

    def _number(self, hop: _Hop, rate: float) -> int:
        if hop not in self.numbers:
            self.numbers[hop] = len(self.names)
            self.names.append(hop)
            self.link_rate.append(rate)
        return self.numbers[hop]

    def along(self, path: Path, what: str) -> tuple[list[int], float]:
        """The links of a path, and their latencies' sum in µs."""
        links, latency_us = [], 0.0
        for hop in pairwise(path):
            if hop not in self.capacities:
                raise SimulationError(f"{what}: topology {self.topology.name} has no link {hop[0]}→{hop[1]}")
            links.append(self._number(hop, min(float(self.capacities[hop]) * 1e3, _FASTEST)))
            latency_us += self.latencies[hop]
        return links, latency_us

    def loads(self, of_ranks: tuple[Loads, ...]) -> list[list[tuple[int, float]]]:
        """Each rank's loads, by the numbers of the links."""
        return [[(self._number(hop, min(float(self.capacities[hop]) * 1e3, _FASTEST)), part) for hop, part in loads] for loads in of_ranks]


def _route_of(connection: Connection, table: _Links, protocol: Protocol, what: str) -> _Route:
    """A connection's way, in two parts where its slots lie in host memory.

    There the flag is seen by a read over the second part: the one that sees it is on average half a round trip under way
    when the flag arrives, and then answered. The other direction (a slot given back) is taken to cost the same.
    """
    if connection.transport != "host" or table.measured_through_host(connection.path):
        links, latency_us, efficiency = table.between(connection.path, what)
        over_network = protocol.network_us if table.networks.intersection(connection.path) else 0.0
        return links, latency_us + protocol.flag_us + over_network, protocol.efficiency * efficiency, [], 0.0
    up, down = host_parts(table.topology, connection.path)
    links, up_us = table.along(up, what)
    read_links, down_us = table.along(down, what)
    return links, up_us + 2 * down_us + protocol.flag_us, protocol.efficiency, read_links, 2 * down_us


def _pairs(program: Program, table: _Links) -> list[_Route]:
    """Ways for operands that lie in a peer's buffers; empty where no step has any."""
    ways: dict[tuple[int, int], _Route] = {}
    for rank, channels in enumerate(program.ranks):
        for channel in channels:
            for step in channel.steps:
                for operands, pulls in ((step.srcs, True), (step.dsts, False)):
                    for operand in operands:
                        if operand.rank is None or operand.rank == rank:
                            continue
                        pair = (operand.rank, rank) if pulls else (rank, operand.rank)
                        if pair not in ways:
                            ways[pair] = (*table.between(route(program.topology, *pair), f"rank {rank}"), [], 0.0)
    if not ways:
        return []
    n = program.nexecutors
    return [ways.get((i // n, i % n), ([], 0.0, 1.0, [], 0.0)) for i in range(n * n)]


def _trace(program: Program, records: list[tuple[Any, ...]], launch_us: float) -> tuple[StepRecord, ...]:
    """The core's records, with channels counted within their rank and times from the call."""
    home = [(rank, c) for rank, channels in enumerate(program.ranks) for c in range(len(channels))]
    return tuple(
        StepRecord(
            rank=home[channel][0],
            channel=home[channel][1],
            step=step,
            iteration=iteration,
            ready_us=ready + launch_us,
            start_us=start + launch_us,
            end_us=end + launch_us,
            nbytes=round(nbytes),
            cause=_CAUSES[cause],
            cause_index=None if cause_record == _NO_RECORD else cause_record,
        )
        for channel, step, iteration, cause, cause_record, ready, start, end, nbytes in records
    )
