"""The allocations that tests run over: one of each connected class of 3-8 GPUs of both DGX-1s, 60 in all."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any

import pytest

from blinkcoll.topology import Topology, load_topology, unique_subsets

LAYOUTS = ("dgx1-p100", "dgx1-v100")


@lru_cache(maxsize=1)
def classes() -> tuple[Topology, ...]:
    return tuple(t for name in LAYOUTS for k in range(3, 9) for t in unique_subsets(load_topology(name), k))


def name_of(topology: Topology) -> str:
    return f"{topology.name}-{''.join(str(d.index) for d in topology.devices)}"


def spread(n: int) -> list[Topology]:
    """n of the classes, of every size, evenly chosen."""
    every = classes()
    return [every[i * (len(every) - 1) // (n - 1)] for i in range(n)]


def diagonals(k: int, *axes: Any) -> list[Any]:
    """The product of some axes as parameters: every k-th diagonal runs by default, the rest is slow.

    Of two axes every value of each is among the default ones where the other has k values; of three, every pair.
    """
    made = []
    for at in product(*(range(len(axis)) for axis in axes)):
        values = [axis[i] for axis, i in zip(axes, at, strict=True)]
        names = (name_of(value) if isinstance(value, Topology) else str(value) for value in values)
        made.append(pytest.param(*values, marks=() if sum(at) % k == 0 else pytest.mark.slow, id="-".join(names)))
    return made
