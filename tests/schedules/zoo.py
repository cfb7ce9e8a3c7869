"""One program of every family for every collective and world size that it has, by name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache, lru_cache

from servers import boxes

import blinkcoll as bc
from blinkcoll.packing import make_plan
from blinkcoll.schedules import (
    Program,
    expand_exchanges,
    in_one_channel,
    lower_barrier,
    lower_both_ways,
    lower_direct,
    lower_double_trees,
    lower_forest,
    lower_halving_doubling,
    lower_nvls,
    lower_one_shot,
    lower_rings,
    lower_sendrecv,
    lower_star,
    lower_two_shot,
    split_wide_steps,
)  # fmt: skip
from blinkcoll.schedules.forests import lower_forest_allreduce
from blinkcoll.schedules.hierarchical import lower_hierarchical
from blinkcoll.schedules.protocols import with_protocol
from blinkcoll.topology import Device, Link, Topology, host_topology, load_topology

ROOTED = frozenset({"broadcast", "reduce", "gather", "scatter", "sendrecv"})
PLANNED = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter", "gather", "scatter", "alltoall")
EVERY = frozenset(range(1, 17))
SEVERAL = EVERY - {1}
DGX1 = frozenset(range(2, 9))
#: Of eight GPUs, four a socket, without peer access between the two.
TWO_SOCKETS = frozenset(range(5, 9))
#: Whose ranks read each other's inputs, so that none knows all factors of a pre-multiplied sum.
DIRECT = "direct"
#: What a switch adds; the second carries no marks of scaling, since the switch reads its callers' inputs as they are.
STAGED, REGISTERED = "nvls", "nvls, registered"
Make = Callable[[int, str, "int | None"], Program]


@cache
def complete(n: int) -> Topology:
    """Every pair joined."""
    devices = tuple(Device(f"gpu{i}") for i in range(n))
    links = tuple(Link(a.name, b.name, "NVLINK", Fraction(20)) for a in devices for b in devices if a is not b)
    return Topology(f"complete{n}", devices, (), links)


def machine(n: int) -> Topology:
    """n GPUs of a DGX-1, of a DGX-2 where there are more."""
    return load_topology("dgx1-v100" if n <= 8 else "dgx2").subset(range(n))


def _planned(topology: Topology, collective: str, root: int | None, protocol: str = "simple", max_channels: int | None = None, uneven: bool = False, **options) -> Program:
    max_channels = max_channels or (16 if topology.nranks <= 8 else 8)  # each is a thread, and hundreds of them on few cores take long
    return bc.plan(topology, collective, root=root, **options).schedule(nbytes=1 << 20, protocol=protocol, max_channels=max_channels, uneven=uneven)


def _uneven(n: int, protocol: str = "simple") -> Program:
    return _planned(machine(n), "alltoall", None, protocol, uneven=True)


def _pairs(n: int) -> Program:
    half = n // 2
    return lower_hierarchical(complete(n), [range(half), range(half, n)], [range(half), range(half)][: 1 + half % 2])


def _forest(n: int) -> Program:
    return lower_forest_allreduce(make_plan(machine(n), "reducescatter"), make_plan(machine(n), "allgather"), max_channels=16)


def _rings(n: int, collective: str, root: int | None) -> Program:
    return lower_rings(complete(n), [range(n), range(n - 1, -1, -1)], collective=collective, root=root)


def _over_a_switch(n: int, collective: str, root: int | None, **options) -> Program:
    """Heads of a switch that copies and adds, in two shares."""
    return lower_nvls(bc.plan(load_topology("gb200-nvl72").subset(range(n)), collective, root=root, method="nvls"), max_channels=6, **options)


def _opaque(n: int, collective: str, root: int | None) -> Program:
    """Servers of 1, 2, 3, 1 ... GPUs whose roots exchange by an engine."""
    sizes = [1 + i % 3 for i in range(n)]
    while sum(sizes) > n:
        sizes[-1:] = [sizes[-1] - 1] if sizes[-1] > 1 else []
    return bc.plan(boxes(sizes), collective, root=root, method="three-phase").schedule(nbytes=1 << 20, max_channels=24, engine="c10d")


def _in_lines(make: Make) -> Make:
    return lambda n, c, root: with_protocol(make(n, c, root), "LL")


TREES = ("allreduce", "broadcast", "reduce", "allgather", "reducescatter")
BOTH_WAYS = ("broadcast", "gather", "scatter", "allgather")
ACROSS = ("allreduce", "broadcast", "reduce")
RINGS = ("allreduce", "allgather", "reducescatter", "broadcast")
#: The classic families of all-reduce on graphs in which every pair is joined.
CLASSIC: dict[str, Make] = {
    "one-shot": lambda n, c, root: lower_one_shot(complete(n), shares=2),
    "two-shot": lambda n, c, root: lower_two_shot(complete(n)),
    "halving-doubling": lambda n, c, root: lower_halving_doubling(complete(n)),
    "double-trees": lambda n, c, root: lower_double_trees(complete(n)),
}
#: (family, collective) -> world sizes, and what makes its program for ranks, collective and root.
FAMILIES: dict[tuple[str, str], tuple[frozenset[int], Make]] = {
    **{("plan", c): (SEVERAL, lambda n, c, root: _planned(machine(n), c, root)) for c in PLANNED},
    **{("plan, LL", c): (SEVERAL, lambda n, c, root: _planned(machine(n), c, root, "LL")) for c in PLANNED},
    **{("plan, LL128", c): (SEVERAL, lambda n, c, root: _planned(machine(n), c, root, "LL128")) for c in PLANNED},
    **{("plan, few channels", c): (SEVERAL, lambda n, c, root: _planned(machine(n), c, root, max_channels=3)) for c in PLANNED},
    **{("plan, narrow steps", c): (DGX1, lambda n, c, root: split_wide_steps(_planned(load_topology("hgx-h100").subset(range(n)), c, root), 3)) for c in PLANNED},
    **{("plan, equal trees", c): (DGX1, lambda n, c, root: _planned(machine(n), c, root, equal_trees=16)) for c in ("allreduce", "allgather", "reducescatter")},
    **{("forest", c): (DGX1, lambda n, c, root: lower_forest(make_plan(machine(n), c, root), max_channels=4)) for c in ACROSS},
    **{("hybrid", c): (DGX1, lambda n, c, root: _planned(machine(n), c, root, method="hybrid")) for c in TREES},
    **{("plan, host memory", c): (TWO_SOCKETS, lambda n, c, root: _planned(load_topology("rtx4090x8").subset(range(n)), c, root)) for c in PLANNED},
    **{("plan, one channel", c): (SEVERAL, lambda n, c, root: in_one_channel(bc.plan(host_topology(n), c, root=root).schedule(nbytes=1))) for c in PLANNED[3:]},
    ("plan", "alltoallv"): (SEVERAL, lambda n, c, root: _uneven(n)),
    ("plan, LL", "alltoallv"): (SEVERAL, lambda n, c, root: _uneven(n, "LL")),
    ("plan, LL128", "alltoallv"): (SEVERAL, lambda n, c, root: _uneven(n, "LL128")),
    ("forest of two plans", "allreduce"): (DGX1, lambda n, c, root: _forest(n)),
    **{("ring", c): (EVERY, _rings) for c in RINGS},
    **{("ring, LL", c): (EVERY, _in_lines(_rings)) for c in RINGS},
    **{(name, "allreduce"): (EVERY, make) for name, make in CLASSIC.items()},
    **{(f"{name}, LL", "allreduce"): (EVERY, _in_lines(make)) for name, make in CLASSIC.items()},
    ("two-shot, staged", "allreduce"): (EVERY, lambda n, c, root: lower_two_shot(complete(n), shares=2, staged=True)),
    ("two-shot, narrow steps", "allreduce"): (EVERY, lambda n, c, root: split_wide_steps(lower_two_shot(complete(n)), 4)),
    ("hierarchical", "allreduce"): (frozenset(range(2, 17, 2)), lambda n, c, root: _pairs(n)),
    **{(STAGED, c): (SEVERAL, _over_a_switch) for c in TREES},
    **{(REGISTERED, c): (SEVERAL, lambda n, c, root: _over_a_switch(n, c, root, registered=True)) for c in TREES},
    **{("three-phase", c): (SEVERAL, _opaque) for c in ACROSS},
    **{("three-phase, expanded", c): (SEVERAL, lambda n, c, root: expand_exchanges(_opaque(n, c, root))) for c in ACROSS},
    **{(DIRECT, c): (EVERY, lambda n, c, root: lower_direct(complete(n), c, root)) for c in PLANNED},
    **{("both-ways", c): (SEVERAL, lambda n, c, root: lower_both_ways(complete(n), c, root)) for c in BOTH_WAYS},
    **{
        (name, c): (SEVERAL, lambda n, c, root, w=weights: lower_both_ways(complete(n), c, root, pieces=1, read=w[0], written=w[1]))
        for name, weights in (("both-ways, 3 to 2", (3, 2)), ("both-ways, read only", (1, 0)), ("both-ways, written only", (0, 1)))
        for c in BOTH_WAYS
    },
    **{("star", c): (EVERY, lambda n, c, root: lower_star(complete(n), c, root)) for c in ("broadcast", "reduce", "barrier")},
    ("dissemination", "barrier"): (EVERY, lambda n, c, root: lower_barrier(complete(n))),
    ("one way", "sendrecv"): (frozenset({2}), lambda n, c, root: lower_sendrecv(complete(2), root, shares=2)),
}


@lru_cache(maxsize=512)
def program(family: str, collective: str, nranks: int, root: int | None) -> Program:
    """The program, proven."""
    made = FAMILIES[family, collective][1](nranks, collective, root)
    bc.verify(made, repeated=family != "hierarchical")
    return made
