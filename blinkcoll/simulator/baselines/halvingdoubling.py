"""Recursive vector halving and distance doubling (Thakur, Rabenseifner and Gropp, IJHPCA 2005, the all-reduce for long vectors).

The first and largest exchange is between neighbours, the last and smallest at half the number of ranks; the way back is
the same in reverse. The lowering counts distances down, so ranks take the places of their bit-reversed numbers. Where
their number is no power of two, neighbours fold in pairs first, as many as are too many, and of a pair one takes part.
"""

from __future__ import annotations

from functools import lru_cache

from ...schedules.halvingdoubling import lower_halving_doubling
from ...schedules.program import Program
from ...schedules.relabel import lower_in_order
from ...topology import Topology
from .channels import copies


def halving_doubling(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """The all-reduce in 2 log2 n exchanges, two more where n is no power of two.

    Raises
    ------
    TopologyError
        Where nothing leads from a rank to a partner of its.
    """
    del collective, root, nbytes  # all-reduce alone, the same at every size
    return _built(topology)


@lru_cache(maxsize=64)
def _built(topology: Topology) -> Program:
    shares = copies(topology)
    return lower_in_order(topology, nearest_first(topology.nranks), lambda reordered: lower_halving_doubling(reordered, shares=shares))


def nearest_first(nranks: int) -> list[int]:
    """Which rank stands at each place of the lowering, whose first exchange is between places half apart.

    Place p has the rank whose number among those that take part is p with its bits reversed; the places beyond have the
    ranks that fold, each the neighbour just above the rank it folds into.
    """
    inside = 1 << (nranks.bit_length() - 1)
    bits = inside.bit_length() - 1
    reversed_bits = [int(f"{p:0{bits}b}"[::-1], 2) if bits else 0 for p in range(inside)]
    extra = nranks - inside
    folds = set(reversed_bits[:extra])  # place p takes in place p + inside
    taking_part, rank = {}, 0
    for number in range(inside):
        taking_part[number] = rank
        rank += 2 if number in folds else 1
    order = [taking_part[number] for number in reversed_bits]
    return order + [order[p] + 1 for p in range(extra)]
