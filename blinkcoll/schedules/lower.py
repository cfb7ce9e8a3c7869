"""Which lowering a plan takes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial

from ..errors import ScheduleError
from ..packing.plan import Plan
from .contract import SHARDED
from .forests import lower_forest
from .nvls import lower_nvls
from .program import Program
from .sharded import lower_flows, lower_sharded_trees
from .split import split_wide_steps
from .threephase import lower_three_phase
from .trees import CHANNEL_GB_S, MAX_CHANNELS, fits, lower_trees


def lower(plan: Plan, *, slots: int = 4, max_channels: int = MAX_CHANNELS, channel_gb_s: Fraction = CHANNEL_GB_S, uneven: bool = False) -> Program:
    """The program of any plan.

    See :func:`lower_trees`, :func:`lower_forest`, :func:`lower_nvls`, :func:`lower_sharded_trees`, :func:`lower_flows` and :func:`lower_three_phase`.

    Raises
    ------
    ScheduleError
        Where the plan's trees do not fit ``max_channels``, or the plan lacks a tree or flow that its collective needs.
    """
    if uneven and plan.collective not in SHARDED:
        raise ScheduleError(f"{plan.collective} has no shards of its callers' that could be uneven")
    if any(tree.switch is not None for tree in plan.trees):
        return lower_nvls(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s)
    if plan.partitions:
        return split_wide_steps(lower_three_phase(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s))
    lowering: Callable[..., Program] = lower_trees if fits(plan, max_channels) else lower_forest
    if plan.collective in ("gather", "scatter", "alltoall"):
        lowering = partial(lower_flows, uneven=uneven)
    elif plan.collective in ("allgather", "reducescatter"):
        lowering = lower_sharded_trees
    return split_wide_steps(lowering(plan, slots=slots, max_channels=max_channels, channel_gb_s=channel_gb_s))
