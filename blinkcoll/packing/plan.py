"""What a packer returns: trees (or flows) with exact rates, the bound they are held to, and the proof of that bound."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from ..errors import PackingError
from ..topology import Path, Topology


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
    """

    root: int
    rate: Fraction
    weight: Fraction
    up: tuple[Path, ...] | None = None
    down: tuple[Path, ...] | None = None


@dataclass(frozen=True)
class Flow:
    """Data of one pair on one path, ``rate`` in GB/s (gather, scatter, all-to-all)."""

    src: int
    dst: int
    rate: Fraction
    path: Path


@dataclass(frozen=True)
class Plan:
    """Trees or flows for one collective on one topology. Rates are algbw in GB/s, exact.

    ``bound`` is over the links in ``links`` (kinds), ``bound_all`` over all links together; ``root`` is a rank.
    ``certificate`` proves the one, ``certificate_all`` the other, where ``links`` are not all kinds anyway.
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


__all__ = ["Certificate", "Flow", "PackingError", "Plan", "Tree"]
