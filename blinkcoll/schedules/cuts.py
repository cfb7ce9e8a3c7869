"""One cut of every shard for trees or paths that divide different shards differently.

A program has one list of shares for all shards. Where the trees of root 0 carry 1/2 and 1/2 of its shard and those of
root 1 carry 1/3 and 2/3, the shards are cut at 1/3 and 1/2: share 1 of shard 0 goes down the first tree, of shard 1 down
the second.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from .shares import integer_weights

Key = TypeVar("Key", bound=Hashable)
#: Grids to fall back to where exact cuts are too many: at most this many shares.
_GRIDS = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)


def common_cut(rates: Mapping[Key, Sequence[Fraction]], most: int) -> tuple[tuple[int, ...], dict[Key, list[int]]]:
    """Weights of the shares, and which of its ways each key takes for each share.

    Parameters
    ----------
    rates
        Per key (a root, a pair), the rates of its ways; each key's are taken as parts of their sum.
    most
        The most shares. Where the exact cut has more, cuts are moved to the finest grid that has at most so many: links
        may then be loaded by up to half of a grid step of each shard more than planned.
    """
    exact = {key: _ends([r / sum(ways) for r in ways]) for key, ways in rates.items()}
    chosen = exact
    if len({end for ends in exact.values() for end in ends}) > most:
        for grid in _GRIDS:
            chosen = {key: [Fraction(round(end * grid), grid) for end in ends] for key, ends in exact.items()}
            if len({end for ends in chosen.values() for end in ends} - {Fraction(0)}) <= most:
                break
    ends = sorted({end for of_key in chosen.values() for end in of_key} - {Fraction(0)})
    begins = [Fraction(0), *ends[:-1]]
    takes = {key: [next(i for i, end in enumerate(of_key) if end > begin) for begin in begins] for key, of_key in chosen.items()}
    return integer_weights([end - begin for begin, end in zip(begins, ends, strict=True)]), takes


def _ends(parts: Sequence[Fraction]) -> list[Fraction]:
    ends, at = [], Fraction(0)
    for part in parts:
        at += part
        ends.append(at)
    return ends
