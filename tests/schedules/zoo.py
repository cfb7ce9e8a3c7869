"""One program of every family for every collective and world size that it has, by name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache, lru_cache

import blinkcoll as bc
from blinkcoll.packing import make_plan
from blinkcoll.schedules import (
    Program,
    lower_barrier,
    lower_double_trees,
    lower_forest,
    lower_halving_doubling,
    lower_one_shot,
    lower_rings,
    lower_sendrecv,
    lower_two_shot,
    split_wide_steps,
)  # fmt: skip
from blinkcoll.schedules.forests import lower_forest_allreduce
from blinkcoll.schedules.hierarchical import lower_hierarchical
from blinkcoll.topology import Device, Link, Topology, load_topology

ROOTED = frozenset({"broadcast", "reduce", "gather", "scatter", "sendrecv"})
PLANNED = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter", "alltoall")
EVERY = frozenset(range(1, 17))
SEVERAL = EVERY - {1}
DGX1 = frozenset(range(2, 9))


@cache
def complete(n: int) -> Topology:
    """Every pair joined."""
    devices = tuple(Device(f"gpu{i}") for i in range(n))
    links = tuple(Link(a.name, b.name, "NVLINK", Fraction(20)) for a in devices for b in devices if a is not b)
    return Topology(f"complete{n}", devices, (), links)


def machine(n: int) -> Topology:
    """n GPUs of a DGX-1, of a DGX-2 where there are more."""
    return load_topology("dgx1-v100" if n <= 8 else "dgx2").subset(range(n))


def _planned(topology: Topology, collective: str, root: int | None, **options) -> Program:
    return bc.plan(topology, collective, root=root, **options).schedule(nbytes=1 << 20)


def _few_channels(n: int, collective: str, root: int | None) -> Program:
    return bc.plan(machine(n), collective, root=root).schedule(nbytes=1 << 20, max_channels=3)


def _pairs(n: int) -> Program:
    half = n // 2
    return lower_hierarchical(complete(n), [range(half), range(half, n)], [range(half), range(half)][: 1 + half % 2])


def _forest(n: int) -> Program:
    return lower_forest_allreduce(make_plan(machine(n), "reducescatter"), make_plan(machine(n), "allgather"), max_channels=16)


def _rings(n: int, collective: str, root: int | None) -> Program:
    return lower_rings(complete(n), [range(n), range(n - 1, -1, -1)], collective=collective, root=root)


Make = Callable[[int, str, "int | None"], Program]
#: (family, collective) -> world sizes, and what makes its program for ranks, collective and root.
FAMILIES: dict[tuple[str, str], tuple[frozenset[int], Make]] = {
    **{("plan", c): (SEVERAL, lambda n, c, root: _planned(machine(n), c, root)) for c in PLANNED},
    **{("plan, few channels", c): (SEVERAL, _few_channels) for c in PLANNED},
    **{("plan, narrow steps", c): (DGX1, lambda n, c, root: split_wide_steps(_planned(load_topology("hgx-h100").subset(range(n)), c, root), 3)) for c in PLANNED},
    **{("plan, equal trees", c): (DGX1, lambda n, c, root: _planned(machine(n), c, root, equal_trees=16)) for c in ("allreduce", "allgather", "reducescatter")},
    **{("forest", c): (DGX1, lambda n, c, root: lower_forest(make_plan(machine(n), c, root), max_channels=4)) for c in ("allreduce", "broadcast", "reduce")},
    ("plan", "alltoallv"): (SEVERAL, lambda n, c, root: bc.plan(machine(n), "alltoall").schedule(nbytes=1 << 20, uneven=True)),
    ("forest of two plans", "allreduce"): (DGX1, lambda n, c, root: _forest(n)),
    **{("ring", c): (EVERY, _rings) for c in ("allreduce", "allgather", "reducescatter", "broadcast")},
    ("one-shot", "allreduce"): (EVERY, lambda n, c, root: lower_one_shot(complete(n), shares=2)),
    ("two-shot", "allreduce"): (EVERY, lambda n, c, root: lower_two_shot(complete(n))),
    ("two-shot, narrow steps", "allreduce"): (EVERY, lambda n, c, root: split_wide_steps(lower_two_shot(complete(n)), 4)),
    ("halving-doubling", "allreduce"): (EVERY, lambda n, c, root: lower_halving_doubling(complete(n))),
    ("double-trees", "allreduce"): (EVERY, lambda n, c, root: lower_double_trees(complete(n))),
    ("hierarchical", "allreduce"): (frozenset(range(2, 17, 2)), lambda n, c, root: _pairs(n)),
    ("dissemination", "barrier"): (EVERY, lambda n, c, root: lower_barrier(complete(n))),
    ("direct", "sendrecv"): (frozenset({2}), lambda n, c, root: lower_sendrecv(complete(2), root, shares=2)),
}


@lru_cache(maxsize=512)
def program(family: str, collective: str, nranks: int, root: int | None) -> Program:
    """The program, proven."""
    made = FAMILIES[family, collective][1](nranks, collective, root)
    bc.verify(made, repeated=family != "hierarchical")
    return made
