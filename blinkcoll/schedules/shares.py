"""From the exact rates of a plan to the integer weights of a program's shares, and channels per tree.

A tree of rate w gets ``ceil(w / channel_gb_s)`` channels, each with an equal part of its data, within a budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, gcd, lcm

from ..errors import ScheduleError

#: Weights must add up to less than this (csrc/blinkcoll/partition.h).
_LIMIT = 1 << 31


def integer_weights(rates: Sequence[Fraction]) -> tuple[int, ...]:
    """Integers in the proportion of ``rates``: exact, or rounded to about one part in 2^30 where they do not fit."""
    scale = lcm(*(rate.denominator for rate in rates))
    whole = [int(rate * scale) for rate in rates]
    common = gcd(*whole)
    weights = [w // common for w in whole]
    total = sum(weights)
    if total >= _LIMIT:
        weights = [max(1, w * (_LIMIT // 2) // total) for w in weights]
    return tuple(weights)


def channels_per_tree(rates: Sequence[Fraction], channel_gb_s: Fraction, max_channels: int, per_tree: int) -> list[int]:
    """How many channel sets each tree gets.

    Parameters
    ----------
    rates
        Each tree's rate in GB/s.
    channel_gb_s
        What one channel moves.
    max_channels
        The most channels any rank may run.
    per_tree
        Channels that one copy of a tree takes on a rank (2 where up and down halves are apart).

    Raises
    ------
    ScheduleError
        Where even one channel set per tree exceeds the budget.
    """
    if per_tree * len(rates) > max_channels:
        raise ScheduleError(
            f"{len(rates)} trees of {per_tree} channels each do not fit in max_channels={max_channels}; "
            f"allow at least {per_tree * len(rates)} or ask for a plan with fewer trees"
        )
    copies = [max(1, ceil(rate / channel_gb_s)) for rate in rates]
    while per_tree * sum(copies) > max_channels:
        # Take one from the tree whose channels stay least loaded by it; the last such, so that the order is stable.
        i = min((i for i, n in enumerate(copies) if n > 1), key=lambda i: (rates[i] / (copies[i] - 1), -i))
        copies[i] -= 1
    return copies
