"""What makes a three-phase plan's partitions valid, checked from the plan and the topology alone.

The model of load is that all phases of all partitions run at once, chunk after chunk (as programs do): what up trees, down
trees and exchanges of all partitions put on a link adds up, and has to fit its capacity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import TYPE_CHECKING

from ..errors import PackingError
from ..topology import BETWEEN_SERVERS, Path, Topology

if TYPE_CHECKING:
    from .plan import Partition, Plan

PathCheck = Callable[[Path, str, Topology], None]
Load = Callable[[Iterable[Path], Fraction], None]


def check_partitions(plan: Plan, halves: tuple[bool, bool], check_path: PathCheck, add: Load) -> None:
    """Raise :class:`PackingError` unless every partition reaches all ranks as its roots and hub say, and rates add up.

    ``halves``: whether the collective has an up half and a down half. ``add`` counts what paths carry.
    """
    if plan.trees or plan.flows:
        raise PackingError("plan: it has partitions, and trees or flows beside them")
    total = Fraction(0)
    for i, partition in enumerate(plan.partitions):
        _Check(plan, partition, f"plan: partition {i} (hub {partition.hub})", check_path).check(halves)
        for paths in (partition.up or (), partition.down or (), partition.exchange):
            add(paths, partition.rate)
        total += partition.rate
    if total != plan.rate:
        raise PackingError(f"plan: the partitions' rates add up to {total}, the plan says {plan.rate}")


class _Check:
    def __init__(self, plan: Plan, partition: Partition, where: str, check_path: PathCheck) -> None:
        self.plan, self.partition, self.where, self.check_path = plan, partition, where, check_path
        topology = plan.topology
        self.server = [device.server for device in topology.devices]
        self.servers = sorted(set(self.server))
        self.home = {s.name: s.server for s in topology.switches} | {d.name: d.server for d in topology.relays}

    def refuse(self, what: str) -> None:
        raise PackingError(f"{self.where}: {what}")

    def check(self, halves: tuple[bool, bool]) -> None:
        partition, plan = self.partition, self.plan
        if partition.rate <= 0 or partition.weight * plan.rate != partition.rate:
            self.refuse(f"rate {partition.rate} and weight {partition.weight} do not fit the plan's rate {plan.rate}")
        here = [self.server[r] if isinstance(r, int) and 0 <= r < len(self.server) else None for r in partition.roots]
        if here != self.servers:
            self.refuse(f"roots {partition.roots} are not one rank of each server, in their order")
        if partition.hub not in partition.roots:
            self.refuse("its hub is none of its roots")
        for paths, wanted, towards in ((partition.up, halves[0], True), (partition.down, halves[1], False)):
            if (paths is not None) != wanted:
                self.refuse(f"a {plan.collective} and a partition whose {'up' if towards else 'down'} half is {paths!r}")
            if paths is not None:
                self.check_forest(paths, towards)
        self.check_exchange(halves)

    def check_forest(self, paths: tuple[Path, ...], towards: bool) -> None:
        """One path for every rank but its server's end, all inside servers, and no cycles."""
        plan, parent = self.plan, dict[int, int]()
        name = "up" if towards else "down"
        ends = {self.server[r]: r for r in self.partition.roots}
        if plan.root is not None:
            ends[self.server[plan.root]] = plan.root
        for path in paths:
            self.check_path(path, self.where, plan.topology)
            first, last = path[0], path[-1]
            assert isinstance(first, int) and isinstance(last, int)
            if any(self.home_of(v) != self.server[first] for v in path):
                self.refuse(f"{name}: path {path} leaves its server")
            above, below = (last, first) if towards else (first, last)
            if below in parent or below == ends[self.server[below]]:
                self.refuse(f"{name}: rank {below} has two parents, or is its server's end and has one")
            parent[below] = above
        for rank in range(plan.topology.nranks):
            at, steps = rank, 0
            while at != ends[self.server[rank]]:
                if at not in parent or steps > plan.topology.nranks:
                    self.refuse(f"{name}: rank {rank} is not connected to rank {ends[self.server[rank]]}")
                at, steps = parent[at], steps + 1

    def check_exchange(self, halves: tuple[bool, bool]) -> None:
        """Every other root's sum gets to the hub once (up), and the hub's data to every other root once (down).

        What only one server is to have (a reduce's sum), or has at first (a broadcast's data), goes from the hub to that
        server's root, or from it to the hub.
        """
        partition, plan = self.partition, self.plan
        hub, others = partition.hub, [r for r in partition.roots if r != partition.hub]
        home = None if plan.root is None else next(r for r in partition.roots if self.server[r] == self.server[plan.root])
        wanted = []
        for r in others:
            if halves[0]:
                wanted.append((hub, r) if r == home else (r, hub))
            if halves[1]:
                wanted.append((r, hub) if r == home else (hub, r))
        for path in partition.exchange:
            self.check_path(path, self.where, self.plan.topology)
            first, last = self.home_of(path[0]), self.home_of(path[-1])
            if any(self.home_of(v) not in (first, last, BETWEEN_SERVERS) for v in path):
                self.refuse(f"exchange: path {path} passes a third server")
        found = [(path[0], path[-1]) for path in partition.exchange]
        if sorted(found, key=str) != sorted(wanted, key=str):
            self.refuse(f"exchange: paths join {found}, expected {wanted}")

    def home_of(self, vertex: int | str) -> int:
        return self.server[vertex] if isinstance(vertex, int) else self.home.get(vertex, BETWEEN_SERVERS)
