"""What a packer returns: trees (or flows) with exact rates, the bound they are held to, and the proof of that bound."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from ..errors import PackingError
from ..topology import Path, Topology

if TYPE_CHECKING:
    from .treebound import TreeBound


class Certificate(Protocol):
    """A proof that no algorithm of a named class beats ``bound`` (a cut, a partition or an LP dual)."""

    @property
    def bound(self) -> Fraction:
        """The rate it proves to be the most, algbw in GB/s."""

    @property
    def model(self) -> str:
        """The class of algorithms it speaks of."""

    def check(self, topology: Topology) -> None:
        """Recompute the bound from the topology alone; raise :class:`PackingError` where it does not follow."""

    def describe(self, topology: Topology) -> str:
        """The proof in words, one line."""


@dataclass(frozen=True)
class Tree:
    """One tree of a plan.

    ``up`` carries partial results to ``root`` and ``down`` carries data away from it; each is a tuple of paths
    ``(rank, switch..., rank)`` in the direction of travel, or None where the collective has no such half; a path may also
    begin or end at a relay, by name.
    ``rate`` is in GB/s, ``weight`` the share of the data this tree carries.

    ``switch``: the switch that adds and copies for this tree. Each half then holds one path a rank between it and the
    root over that switch. All ranks' ports to it carry the rate once (the root's too: a multicast group includes its
    head), and the switch's port to the root (up), or the root's to the switch (down), once and not once a rank.
    """

    root: int
    rate: Fraction
    weight: Fraction
    up: tuple[Path, ...] | None = None
    down: tuple[Path, ...] | None = None
    switch: str | None = None


@dataclass(frozen=True)
class Flow:
    """Data of one pair on one path, ``rate`` in GB/s (gather, scatter, all-to-all)."""

    src: int
    dst: int
    rate: Fraction
    path: Path


@dataclass(frozen=True)
class Stage:
    """What one stage of a method reached: so many trees, and their rate in GB/s (``method="blink"``)."""

    name: str
    trees: int
    rate: Fraction


@dataclass(frozen=True)
class Partition:
    """A part of the data of a three-phase plan, with a root of its own in every server.

    Parameters
    ----------
    rate, weight
        GB/s, and the share of the data.
    roots
        A rank for each server, in the order of ``Device.server``: the one that takes part in the exchange.
    hub
        Which of them adds up what the others send and sends them what they are to have; what begins or ends in the server of
        a broadcast's or reduce's root comes from there to the hub, or goes from the hub to there.
    up, down
        Paths of one tree inside each server, in the direction of travel, as those of :class:`Tree`: partial sums to the
        server's root, data away from it. In the server of a reduce's or broadcast's own root the tree leads to or from
        that rank instead, and the partition's root is any rank of it. None where the collective has no such half.
    exchange
        Paths between servers: from roots to the hub, and from the hub to roots, in the direction of travel.
    """

    rate: Fraction
    weight: Fraction
    roots: tuple[int, ...]
    hub: int
    up: tuple[Path, ...] | None
    down: tuple[Path, ...] | None
    exchange: tuple[Path, ...]


@dataclass(frozen=True)
class Plan:
    """Trees or flows for one collective on one topology. Rates are algbw in GB/s, exact.

    ``bound`` is over the links in ``links`` (kinds), ``bound_all`` over all links together; ``root`` is a rank.
    ``certificate`` proves the one, ``certificate_all`` the other, where ``links`` are not all kinds anyway.
    Plans by the three-phase method have ``partitions`` in place of trees.
    """

    topology: Topology
    collective: str
    method: str
    rate: Fraction
    bound: Fraction
    bound_all: Fraction
    certificate: Certificate
    links: tuple[str, ...]
    root: int | None = None
    trees: tuple[Tree, ...] = ()
    flows: tuple[Flow, ...] = ()
    rates: str = "planning"
    certificate_all: Certificate | None = None
    stages: tuple[Stage, ...] = ()
    partitions: tuple[Partition, ...] = ()

    def check(self) -> None:
        """Prove this plan without trusting the packer: spanning trees, capacities kept, rates that add up.

        Raises
        ------
        PackingError
            Naming the tree or link that breaks a rule.
        """
        from .check import check_plan

        check_plan(self)

    @property
    def optimal(self) -> bool:
        """Whether the rate meets the bound exactly."""
        return self.rate == self.bound

    @property
    def gap(self) -> Fraction:
        """By what part of the bound the rate falls short of it; 0 where the plan is optimal."""
        return 1 - self.rate / self.bound

    @cached_property
    def tree_bound_proof(self) -> TreeBound:
        """The best lower bound that is proven on the number of trees of any plan of this rate, and what proves it."""
        from .treebound import fewest_trees

        return fewest_trees(self)

    @property
    def tree_bound(self) -> int:
        """Proven: no plan of this rate over these links has fewer trees; 0 where there are flows."""
        return self.tree_bound_proof.count

    @property
    def depth(self) -> int:
        """Ranks passed between a root and the rank farthest from it, in the deepest tree; 0 where there are flows."""
        from .weights import tree_depth

        return max(map(tree_depth, self.trees), default=0)


__all__ = ["Certificate", "Flow", "PackingError", "Partition", "Plan", "Stage", "Tree"]
