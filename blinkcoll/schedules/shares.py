"""From the exact rates of a plan to channels per tree, and to the integer weights of a program's shares.

Links are shared fairly among the channels that use them, not in proportion to what a plan has in mind. A channel that
is to carry 20 GB/s beside one that is to carry 5 gets no more than it while both run, and a step that feeds several
links runs at the slowest: programs whose channels carry unequal rates reach 77-85 % of some plans when simulated, with
equal rates 98 %. So a tree of rate w gets w / u channels of the same rate u where the budget allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def copies_to_spare(rates: Sequence[Fraction], channel_gb_s: Fraction, least_used: Fraction) -> list[int]:
    """Copies of every tree, all at one rate, so that a link has one channel more than fill it.

    A channel moves nothing while it synchronises; the others can then use all of its links (NCCL runs every ring of its search twice).

    Parameters
    ----------
    rates, channel_gb_s
        As for :func:`channels_per_tree`.
    least_used
        What the trees use together of the link that they use least of, GB/s.
    """
    common = _common_unit(rates)
    unit = common / ceil(common / channel_gb_s + common / least_used)
    return [int(rate / unit) for rate in rates]


def channels_per_tree(rates: Sequence[Fraction], channel_gb_s: Fraction, fits: Callable[[Sequence[int]], bool]) -> list[int]:
    """How many copies (each with channels of its own) every tree gets.

    Parameters
    ----------
    rates
        Each tree's rate in GB/s, positive.
    channel_gb_s
        What one channel moves: no channel gets a higher rate where the budget allows.
    fits
        Whether these numbers of copies are within the budget of channels.

    Returns
    -------
    list of int
        Copies at one equal rate if such fit; otherwise as close to equal as the budget allows.

    Raises
    ------
    ScheduleError
        Where even one copy of each tree does not fit.
    """
    if not fits([1] * len(rates)):
        raise ScheduleError(f"{len(rates)} trees do not fit in max_channels, even with one copy each; raise it or ask for a plan with fewer trees")
    unit = _common_unit(rates)
    unit /= ceil(unit / channel_gb_s)
    copies = [int(rate / unit) for rate in rates]
    # Rates without a common measure make very many copies: leave out at once all whose channels would stay below twice,
    # four times ... the unit. The loop below takes them in this very order.
    while not fits(fewer := [max(1, min(n, ceil(rate / (2 * unit)))) for rate, n in zip(rates, copies, strict=True)]):
        copies, unit = fewer, 2 * unit
    while not fits(copies):
        # Take one from the tree whose channels stay least loaded by it; the last such, so that the order is stable.
        i = min((i for i, n in enumerate(copies) if n > 1), key=lambda i: (rates[i] / (copies[i] - 1), -i))
        copies[i] -= 1
    return copies


def _common_unit(rates: Sequence[Fraction]) -> Fraction:
    """The largest rate that every rate is a whole multiple of."""
    scale = lcm(*(rate.denominator for rate in rates))
    return Fraction(gcd(*(int(rate * scale) for rate in rates)), scale)
