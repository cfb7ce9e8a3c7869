"""The public functions: they join the rooms and add nothing of their own."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from typing import Any

from . import packing, schedules
from .schedules import Program, verify
from .schedules.trees import CHANNEL_GB_S, MAX_CHANNELS
from .topology import Topology

__all__ = ["Plan", "plan", "schedule", "simulate", "verify"]


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
        Rank i of the plan is ``topology.devices[i]``.
    collective
        broadcast, reduce, allreduce, allgather, reducescatter, gather, scatter or alltoall.
    root
        A rank; required by broadcast, reduce, gather and scatter.
    method
        ``"auto"``: rate equal to the bound.
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
    made = packing.make_plan(topology, collective, root=root, method=method, links=links, **options)
    return Plan(**{f.name: getattr(made, f.name) for f in fields(made)})


def schedule(
    plan: packing.Plan, *, nbytes: int, max_channels: int = MAX_CHANNELS, channel_gb_s: Fraction = CHANNEL_GB_S, slots: int = 4, uneven: bool = False
) -> Program:
    """The verified program of a plan.

    Parameters
    ----------
    nbytes
        The size it is meant for: it picks the default chunk size, nothing else.
    max_channels
        The most channels (thread blocks on a GPU) that any rank may run.
    channel_gb_s
        What one channel moves. Trees get channels of one equal rate, at most this, where the budget allows.
    slots
        Slots of each connection.
    uneven
        The program is to take unequal shards at launch. Those of all-gather, reduce-scatter, gather and scatter do anyway; an
        all-to-all becomes an ``alltoallv``.

    Raises
    ------
    ScheduleError
        Where the trees do not fit the budget, or (never, unless there is a bug) the verifier refuses the program.
    """
    from .cost.chunks import default_chunk_bytes

    program = schedules.lower(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s, uneven=uneven)
    verify(program, repeated=True)
    return program.with_chunk_bytes(default_chunk_bytes(program, nbytes))


def simulate(program: Program, nbytes: int, **options: Any) -> Any:
    """Time a program on its topology without hardware; the result is a simulation and says so.

    Parameters
    ----------
    nbytes
        The size in the collective's sense (a rank's buffer for all-reduce, broadcast and reduce).

    Returns
    -------
    SimulationResult
        ``.time_us .algbw .busbw`` (GB/s) ``.link_utilisation .trace``.
    """
    from . import simulator

    return simulator.run(program, nbytes, **options)
