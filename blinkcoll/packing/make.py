"""The entry point: a plan for one collective on one topology, by the method asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from typing import Any

from .. import _core
from ..errors import PackingError
from ..topology import Topology
from .blink import blink_plan
from .collectives import FLOWS, canonical, check_root
from .exact import exact_plan
from .links import choose_links
from .minimise import Wish
from .nvls import nvls_plan
from .onfastlinks import has_lost_ways, onto_fast_links
from .plan import Plan
from .progress import progress
from .threephase import COLLECTIVES, three_phase_plan
from .treeplan import hybrid_plan, relay_plan

METHODS = ("auto", "exact", "blink", "hybrid", "nvls", "three-phase")
#: Options that only one method knows.
_OPTIONS = {"blink": {"epsilon", "threshold"}, "three-phase": {"local"}}


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
    minimise: bool | str = False,
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
        ``"exact"`` meets the bound; ``"auto"`` is the same where that is fast: both plan trees over switches that only
        forward. Where these count a switch beside a pair's NVLink that has no room (some sets of GPUs of several servers),
        ``"auto"`` is ``"three-phase"`` or ``"hybrid"``, whichever reaches the same rate; where neither does, lowering refuses
        the plan by name. ``"hybrid"`` uses all links, each hop on a way that the driver offers, and is judged by the bound over all
        links. ``"nvls"`` uses switches that copy and add (NVLink SHARP) and is held to the bound for these;
        ``plan.certificate.model`` names the class that a bound speaks of, and no method changes it by itself.
        ``"blink"`` is the pipeline of the Blink paper: multiplicative weights (``epsilon``, 0.05: what may be missing of
        the optimum there), an integer program, and fractions only as far as needed to come within ``threshold`` (1/20)
        of the optimum; see ``packing/blink.py``. ``"three-phase"`` (several servers; broadcast, reduce, allreduce): the
        best plan of Blink's form, as partitions; its option ``local`` is ``"fastest"`` (trees inside a server use the
        fastest classes that join its ranks) or ``"all"``.
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
        ``"trees"`` (or True): the fewest trees found at the full rate, or at that of ``tolerance``, and of those the
        shallowest. ``"depth"``: the shallowest found (depth: ranks passed between a root and the farthest rank), and
        of those the fewest. With ``max_trees``, ``"depth"`` looks for shallow trees at the rate that so many reach.
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
    unknown = set(options) - _OPTIONS.get(method, set())
    if unknown:
        raise PackingError(f"method {method!r} does not know the option {', '.join(sorted(unknown))}")
    if topology.nranks < 2:
        raise PackingError(f"topology {topology.name}: a single rank has nothing to exchange, so there is nothing to plan")
    chosen = choose_links(topology, name, rank, links)
    if method == "nvls":
        if (max_trees, tolerance, minimise, equal_trees) != (None, None, False, None):
            raise PackingError("method 'nvls' has a tree for each head; max_trees, tolerance, minimise and equal_trees do not apply")
        return nvls_plan(topology, name, rank, chosen, rates)
    with progress(f"planning {name} for {topology.nranks} ranks of {topology.name}"):
        _core.set_time_limit(time_limit_s)
        try:
            if method == "three-phase":
                _refuse_for_three_phase(max_trees=max_trees, tolerance=tolerance, minimise=minimise, equal_trees=equal_trees)
                return three_phase_plan(topology, name, rank, chosen, rates, budget_s, options.get("local", "fastest"))
            wish = Wish.of(max_trees, tolerance, minimise)
            if method == "blink" and (wish is not None or equal_trees is not None):
                raise PackingError("method 'blink' chooses few trees itself: give threshold=, not max_trees, tolerance, minimise or equal_trees")
            if equal_trees is not None and topology.relays:
                raise PackingError("trees of one rate are packed for ranks alone, not with relays")
            if method == "hybrid":
                return hybrid_plan(topology, name, rank, rates, budget_s, wish, equal_trees)
            if topology.relays and name not in FLOWS:
                if method == "blink":
                    raise PackingError("method 'blink' plans for ranks alone, not with relays")
                return onto_fast_links(relay_plan(topology, name, rank, chosen, rates, budget_s, wish))
            plan = onto_fast_links(exact_plan(topology, name, rank, chosen, rates, budget_s, wish, equal_trees))
            if method == "auto" and links == "fastest" and equal_trees is None and name not in FLOWS and has_lost_ways(plan):
                return _that_runs(plan, budget_s, wish)
            return blink_plan(plan, budget_s, **options) if method == "blink" else plan
        except _core.TimeLimitReached:
            raise PackingError(
                f"topology {topology.name}: no exact plan for {name} of {topology.nranks} ranks within time_limit_s={time_limit_s:g}; "
                "raise it, or plan on fewer links or ranks"
            ) from None
        finally:
            _core.set_time_limit(0)


def _that_runs(plan: Plan, budget_s: float, wish: Wish | None) -> Plan:
    """Another plan of the same rate, without ways that no data can go; the plan itself where none is found."""
    topology, name, rank, rates = plan.topology, plan.collective, plan.root, plan.rates
    ways = [partial(hybrid_plan, topology, name, rank, rates, budget_s, wish)]
    if wish is None and name in COLLECTIVES and len({device.server for device in topology.devices}) > 1:
        ways.insert(0, partial(three_phase_plan, topology, name, rank, plan.links, rates, budget_s))
    for way in ways:
        with contextlib.suppress(PackingError):  # no servers around one network switch, no CPU to stage in: lowering will say what is wrong
            other = way()
            if other.rate == plan.rate and not has_lost_ways(other):
                return other
    return plan


def _refuse_for_three_phase(**options: Any) -> None:
    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        raise PackingError(f"method 'three-phase' does not know the option {', '.join(given)}")
