"""One cut of every shard for trees or paths that divide different shards differently.

A program has one list of shares for all shards. Where the trees of root 0 carry 1/2 and 1/2 of its shard and those of
root 1 carry 1/3 and 2/3, the shards are cut into six equal shares: three of shard 0 go down each of its trees, of shard 1
two and four. The shares are equal because links are shared fairly among channels, not by what they carry (``shares.py``).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import ceil, lcm
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def common_cut(rates: Mapping[Key, Sequence[Fraction]], most: int) -> dict[Key, list[int]]:
    """Which of its ways each key takes for each of the equal shares.

    Parameters
    ----------
    rates
        Per key (a root, a pair), the rates of its ways; each key's are taken as parts of their sum.
    most
        The most shares. Where the exact cut needs more, cuts are moved to the nearest of ``most`` equal ones: a way may
        then carry up to one share more or less of each shard than planned, so links may be loaded unevenly.
    """
    ends = {key: _ends(ways) for key, ways in rates.items()}
    grid = min(exact_parts(rates.values()), most)
    return {key: [next(way for way, end in enumerate(of_key) if round(end * grid) > i) for i in range(grid)] for key, of_key in ends.items()}


def exact_parts(rates: Iterable[Sequence[Fraction]]) -> int:
    """How many equal shares cut every key's ways exactly."""
    return lcm(*(end.denominator for ways in rates for end in _ends(ways)))


def _ends(rates: Sequence[Fraction]) -> list[Fraction]:
    """Where each way's part of a shard ends."""
    ends, at = [], Fraction(0)
    for rate in rates:
        at += rate / sum(rates)
        ends.append(at)
    return ends


def repeats(nshares: int, ngroups: int, rate: Fraction, channel_gb_s: Fraction, max_channels: int) -> int:
    """How often to cut each share once more, so that enough channels run at once.

    Every byte is moved by a channel when it is sent and by another when it arrives; ``ngroups`` channels of a share run.
    """
    used = nshares * ngroups
    return max(1, min(max_channels // used, ceil(2 * rate / channel_gb_s / used)))
