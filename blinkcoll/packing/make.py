"""The entry point: a plan for one collective on one topology, by the method asked for."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from .. import _core
from ..errors import PackingError
from ..topology import Topology
from .collectives import canonical, check_root
from .exact import exact_plan
from .links import choose_links
from .minimise import Wish
from .plan import Plan
from .progress import progress

METHODS = ("auto", "exact")


def make_plan(
    topology: Topology,
    collective: str,
    root: int | None = None,
    method: str = "auto",
    links: str | Iterable[str] = "fastest",
    rates: str = "planning",
    budget_s: float = 2.0,
    max_trees: int | None = None,
    tolerance: Fraction | float | str | None = None,
    minimise: bool = False,
    equal_trees: int | None = None,
    time_limit_s: float = 60.0,
    **options: Any,
) -> Plan:
    """A plan whose rate is proven, with the proof.

    Parameters
    ----------
    topology
        The machine, or the part of it that a job got; ``root`` and the plan speak of its ranks.
    collective
        One of the eight; underscored forms are accepted.
    root
        A rank, for broadcast, reduce, gather and scatter only.
    method
        ``"exact"`` meets the bound; ``"auto"`` is the same where that is fast.
    links
        ``"fastest"`` (classes from the fastest down until the ranks are connected), ``"all"``, or kinds.
    rates
        ``"planning"`` or ``"measured"``: which of a link's two rates to plan with.
    budget_s
        Seconds that the linear program of an all-to-all may take; out of time, an approximate plan is returned with
        the bound that is proven, and ``plan.optimal`` is False. Also what the search for few trees may take.
    max_trees
        The best rate found with at most so many trees.
    tolerance
        The fewest trees found that reach (1 - tolerance) of the bound.
    minimise
        The fewest trees found at the full rate.
    equal_trees
        For all-reduce (on symmetric links), all-gather and reduce-scatter without switches: at most so many trees, all of
        one rate, as fast as such can be. Fair links carry equal channels as planned; trees of unequal rates need more
        channels for that.
    time_limit_s
        Seconds that cuts and packings may take in all; 0: as long as they need.

    Raises
    ------
    PackingError
        Where the ranks are not connected, an argument is wrong, there is a single rank, or the time limit is reached.
    """
    name = canonical(collective)
    rank = check_root(name, root, topology.nranks)
    if method not in METHODS:
        raise PackingError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if rates not in ("planning", "measured"):
        raise PackingError(f"unknown rates {rates!r}; known: planning, measured")
    if options:
        raise PackingError(f"method {method!r} does not know the option {', '.join(sorted(options))}")
    if topology.nranks < 2:
        raise PackingError(f"topology {topology.name}: a single rank has nothing to exchange, so there is nothing to plan")
    chosen = choose_links(topology, name, rank, links)
    with progress(f"planning {name} for {topology.nranks} ranks of {topology.name}"):
        _core.set_time_limit(time_limit_s)
        try:
            return exact_plan(topology, name, rank, chosen, rates, budget_s, Wish.of(max_trees, tolerance, minimise), equal_trees)
        except _core.TimeLimitReached:
            raise PackingError(
                f"topology {topology.name}: no exact plan for {name} of {topology.nranks} ranks within time_limit_s={time_limit_s:g}; "
                "raise it, or plan on fewer links or ranks"
            ) from None
        finally:
            _core.set_time_limit(0)
