"""Which lowering a plan takes."""

from __future__ import annotations

from fractions import Fraction

from ..packing.plan import Plan
from .nvls import lower_nvls
from .program import Program
from .sharded import lower_flows, lower_sharded_trees
from .threephase import lower_three_phase
from .trees import CHANNEL_GB_S, MAX_CHANNELS, lower_trees


def lower(plan: Plan, *, slots: int = 4, max_channels: int = MAX_CHANNELS, channel_gb_s: Fraction = CHANNEL_GB_S) -> Program:
    """The program of any plan; see :func:`lower_trees`, :func:`lower_nvls`, :func:`lower_sharded_trees`, :func:`lower_flows` and :func:`lower_three_phase`.

    Raises
    ------
    ScheduleError
        Where the plan's trees do not fit ``max_channels``, or the plan lacks a tree or flow that its collective needs.
    """
    if any(tree.switch is not None for tree in plan.trees):
        return lower_nvls(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s)
    if plan.partitions:
        return lower_three_phase(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s)
    if plan.collective in ("gather", "scatter", "alltoall"):
        return lower_flows(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s)
    if plan.collective in ("allgather", "reducescatter"):
        return lower_sharded_trees(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s)
    return lower_trees(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s)
