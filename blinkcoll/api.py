"""The public functions: they join the rooms and add nothing of their own."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from typing import Any

from . import packing, schedules
from .errors import ScheduleError
from .schedules import Program, verify
from .schedules.trees import CHANNEL_GB_S, MAX_CHANNELS
from .topology import Topology

__all__ = ["Plan", "pareto", "plan", "schedule", "simulate", "verify"]


class Plan(packing.Plan):
    """A plan that can be lowered: :class:`blinkcoll.packing.Plan` with :meth:`schedule`."""

    def schedule(self, *, nbytes: int, **options: Any) -> Program:
        """The same as :func:`schedule` on this plan."""
        return schedule(self, nbytes=nbytes, **options)


def plan(topology: Topology, collective: str, root: int | None = None, method: str = "auto", links: Any = "fastest", **options: Any) -> Plan:
    """Trees (or flows) for a collective, with the bound they are held to and its proof.

    Parameters
    ----------
    topology
        Rank i of the plan is ``topology.devices[i]``; its relays may forward, copy and add.
    collective
        broadcast, reduce, allreduce, allgather, reducescatter, gather, scatter or alltoall.
    root
        A rank; required by broadcast, reduce, gather and scatter.
    method
        ``"auto"``: rate equal to the bound over the links chosen. ``"blink"``: the paper's pipeline, with its stages in
        ``plan.stages``. ``"hybrid"``: PCIe and CPU interconnects beside NVLink, on ways that the driver offers, judged by
        the bound over all links. ``"nvls"``: switches that copy and add. ``"three-phase"``: several servers.
    links
        ``"fastest"``: the fastest classes of links that connect the set; or a list of kinds.

    Raises
    ------
    PackingError
        Where links do not connect the set, or a rooted collective has no root.

    Examples
    --------
    >>> import blinkcoll as bc
    >>> bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce").rate
    Fraction(20, 1)
    """
    return _lowerable(packing.make_plan(topology, collective, root=root, method=method, links=links, **options))


def pareto(topology: Topology, collective: str, root: int | None = None, links: Any = "fastest", budget_s: float = 10.0, **options: Any) -> tuple[Plan, ...]:
    """The trade-offs between rate, number of trees and depth: plans none of which is beaten in all three; fastest first.

    ``budget_s`` is the time that the search may take in all; see :func:`blinkcoll.packing.pareto`.
    """
    return tuple(_lowerable(made) for made in packing.pareto(topology, collective, root=root, links=links, budget_s=budget_s, **options))


def _lowerable(made: packing.Plan) -> Plan:
    return Plan(**{f.name: getattr(made, f.name) for f in fields(made)})


def schedule(
    plan: packing.Plan, *, nbytes: int, protocol: str | None = None, max_channels: int = MAX_CHANNELS,
    channel_gb_s: Fraction = CHANNEL_GB_S, slots: int = 4, uneven: bool = False, engine: str | None = None,
) -> Program:  # fmt: skip
    """The verified program of a plan.

    Parameters
    ----------
    nbytes
        The size it is meant for: it picks the protocol and the default chunk size, nothing else. The program is right
        for every size.
    protocol
        ``"simple"``, ``"LL"`` or ``"LL128"``; the one that is simulated to finish ``nbytes`` first where None.
    max_channels
        The most channels (thread blocks on a GPU) that any rank may run.
    channel_gb_s
        What one channel moves. Trees get channels of one equal rate, at most this, where the budget allows.
    slots
        Slots of each connection.
    uneven
        The program is to take unequal shards at launch. Those of all-gather, reduce-scatter, gather and scatter do anyway; an
        all-to-all becomes an ``alltoallv``.
    engine
        What carries three-phase plans' exchanges between servers: ``"c10d"`` leaves them opaque steps for that engine;
        None makes one-hop connections over the network of them, which executors and the simulator take.

    Raises
    ------
    ScheduleError
        Where the trees do not fit the budget, there is no such protocol, or (never, unless there is a bug) the
        verifier refuses the program.
    """
    from .cost.chunks import default_chunk_bytes
    from .schedules.protocols import with_protocol
    from .simulator.protocols import fastest_protocol

    if engine not in (None, "c10d"):
        raise ScheduleError(f"engine={engine!r}: expected None or 'c10d'")
    program = schedules.lower(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s, uneven=uneven)
    expanded = schedules.expand_exchanges(program, slots=slots)
    if expanded is program and not program.multicasts:
        if protocol is None:
            return fastest_protocol(program, nbytes)
        program = expanded = with_protocol(program, protocol)
    elif protocol not in (None, "simple"):
        raise ScheduleError(f"protocol={protocol!r}: a program over switches that add, or with exchanges between servers, runs by the simple protocol")
    verify(program, repeated=True)
    if expanded is not program:
        verify(expanded, repeated=True)
    return (expanded if engine is None else program).with_chunk_bytes(default_chunk_bytes(expanded, nbytes))


def simulate(program: Program, nbytes: int | None = None, **options: Any) -> Any:
    """Time a program on its topology without hardware; the result is a simulation and says so.

    Parameters
    ----------
    nbytes
        The size in the collective's sense (a rank's buffer for all-reduce, broadcast and reduce). Not needed with ``counts=``:
        elements of each rank's shard, for all-gather, reduce-scatter, gather and scatter of unequal shards; a row of what each
        rank sends to each for a program lowered with ``uneven=True``.
    options
        ``counts``, ``elem_size``, ``chunk_bytes``, ``rates``, ``params`` and ``trace``: see :func:`blinkcoll.simulator.run`.

    Returns
    -------
    SimulationResult
        ``.time_us .algbw .busbw`` (GB/s) ``.link_utilisation .trace``.
    """
    from . import simulator

    return simulator.run(program, nbytes, **options)
