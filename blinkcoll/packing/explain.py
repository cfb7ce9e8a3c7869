"""Why a plan is not faster, as facts: what limits it, which links have capacity to spare and why, which further GPU would help most.

What limits is read from the certificate; gains are found by planning again with one more device of the machine that the allocation
was cut from. ``show/explain_text.py`` says the same in words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from time import monotonic

from ..errors import PackingError
from ..topology import Topology
from .certificates import CutCertificate, MetricCertificate, PartitionCertificate, TreeDualCertificate, link_capacities
from .links import Arc, Vertex
from .make import make_plan
from .plan import Plan
from .weights import link_load

#: Seconds for looking for a further GPU; those that were not tried in that time are counted.
GAIN_BUDGET_S = 5.0


@dataclass(frozen=True)
class Crossing:
    """A directed pair of vertices, what its links carry and what the plan sends there, GB/s."""

    src: Vertex
    dst: Vertex
    kinds: tuple[str, ...]
    capacity: Fraction
    load: Fraction


@dataclass(frozen=True)
class Limit:
    """What no plan gets past: the links between ``sides``.

    ``form`` is ``"cut"`` (two sides; data has to get from the first to the second), ``"partition"`` (all-reduce: every tree
    crosses between the sides ``times`` times, in both directions), ``"weighted cut"`` (one of several that only together
    are the proof, ``weight`` each) or ``"lengths"`` (all-to-all: links that the pairs' shortest ways use up; no sides).
    """

    form: str
    sides: tuple[frozenset[Vertex], ...]
    crossing: tuple[Crossing, ...]
    times: int = 1
    weight: Fraction = Fraction(1)

    @property
    def capacity(self) -> Fraction:
        """Of all crossing links together, GB/s."""
        return sum((link.capacity for link in self.crossing), Fraction(0))


@dataclass(frozen=True)
class Spare:
    """A link that the plan does not fill, and why: ``"root"`` (it leads where nothing has to go), ``"one side"`` (the limit lies elsewhere)
    or ``"unneeded"`` (it crosses the limit, but not all of it was used)."""

    link: Crossing
    reason: str


@dataclass(frozen=True)
class Unused:
    """Classes of links that the plan leaves alone since faster ones connect the ranks, and the bound over all links together."""

    kinds: tuple[str, ...]
    nlinks: int
    bound_all: Fraction


@dataclass(frozen=True)
class Gain:
    """The rate with one more device, as ``"rank"`` or as ``"relay"`` (that is no rank, but passes data on, copies and adds)."""

    device: str
    index: int | None
    role: str
    rate: Fraction
    links: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """All facts about one plan; ``gains`` are those that gain, most first, ``untried`` devices the time did not suffice for."""

    plan: Plan
    limits: tuple[Limit, ...]
    spare: tuple[Spare, ...]
    unused: Unused | None
    machine: str | None
    gains: tuple[Gain, ...]
    untried: int


def explain_plan(plan: Plan, budget_s: float = GAIN_BUDGET_S) -> Explanation:
    """Everything that there is to say about why this plan has the rate it has.

    Parameters
    ----------
    budget_s
        Seconds for trying further GPUs; a plan that has been begun is ended.
    """
    limits = what_limits(plan)
    whole = _machine(plan.topology)
    gains, untried = further_devices(plan, whole, budget_s) if whole is not None else ((), 0)
    return Explanation(plan, limits, spare_links(plan, limits), _unused(plan), None if whole is None else whole.name, gains, untried)


def what_limits(plan: Plan) -> tuple[Limit, ...]:
    """The certificate as sides and links."""
    certificate = plan.certificate
    links = _links(plan)
    every = frozenset(v for arc in links for v in arc) | frozenset(range(plan.topology.nranks))
    if isinstance(certificate, CutCertificate):
        rest = every - certificate.inside
        sides = (rest, certificate.inside) if certificate.direction == "in" else (certificate.inside, rest)
        return (Limit("cut", sides, _between(links.values(), *sides)),)
    if isinstance(certificate, PartitionCertificate):
        part = {v: i for i, vertices in enumerate(certificate.parts) for v in vertices}
        crossing = tuple(link for link in links.values() if part.get(link.src) != part.get(link.dst))
        return (Limit("partition", certificate.parts, crossing, len(certificate.parts) - 1),)
    if isinstance(certificate, TreeDualCertificate):
        found = []
        for half, inside, weight in certificate.cuts:
            sides = (every - inside, inside) if half == "down" else (inside, every - inside)
            found.append(Limit("weighted cut", sides, _between(links.values(), *sides), weight=weight))
        return tuple(found)
    assert isinstance(certificate, MetricCertificate)
    return (Limit("lengths", (), tuple(links[u, v] for u, v, length in certificate.lengths if length)),)


def spare_links(plan: Plan, limits: Iterable[Limit]) -> tuple[Spare, ...]:
    """Links of the classes in use that have capacity left."""
    crossing = {(link.src, link.dst) for limit in limits for link in limit.crossing}
    found = []
    for arc, link in _links(plan).items():
        if link.load < link.capacity:
            found.append(Spare(link, "root" if _useless(plan, arc) else "unneeded" if arc in crossing else "one side"))
    return tuple(found)


def further_devices(plan: Plan, whole: Topology, budget_s: float = GAIN_BUDGET_S) -> tuple[tuple[Gain, ...], int]:
    """What one more device of ``whole`` would make of the rate, as rank and as relay: those that gain, most first; how many were not tried."""
    mine, helpers = [d.name for d in plan.topology.devices], [d.name for d in plan.topology.relays]
    others = [d for d in (*whole.devices, *whole.relays) if d.name not in mine and d.name not in helpers]
    deadline, found, untried = monotonic() + budget_s, [], 0
    for device in others:
        if monotonic() > deadline:
            untried += 1
            continue
        for role, ranks, relays in (("rank", [*mine, device.name], helpers), ("relay", mine, [*helpers, device.name])):
            try:
                other = make_plan(whole.subset(ranks, relays=relays), plan.collective, plan.root, rates=plan.rates)
            except PackingError:
                continue  # this one does not connect with the others, or has no plan: nothing to gain
            if other.rate > plan.rate:
                found.append(Gain(device.name, device.index, role, other.rate, other.links))
    return tuple(sorted(found, key=lambda gain: (-gain.rate, gain.role, gain.device))), untried


def _machine(topology: Topology) -> Topology | None:
    """The nearest ancestor with more devices than this allocation."""
    whole, mine = topology.parent, len(topology.devices) + len(topology.relays)
    while whole is not None and len(whole.devices) + len(whole.relays) <= mine:
        whole = whole.parent
    return whole


def _links(plan: Plan) -> dict[Arc, Crossing]:
    """Every pair that the plan may use, in a fixed order."""
    load, kinds = link_load(plan), dict[Arc, set[str]]()
    for link in plan.topology.links:
        kinds.setdefault((plan.topology.vertex(link.src), plan.topology.vertex(link.dst)), set()).add(link.kind)
    capacity = link_capacities(plan.topology, plan.links, plan.rates)
    return {
        arc: Crossing(*arc, tuple(sorted(kinds[arc] & set(plan.links))), capacity[arc], load.get(arc, Fraction(0)))
        for arc in sorted(capacity, key=lambda arc: [(isinstance(v, str), str(v).zfill(6)) for v in arc])
    }


def _between(links: Iterable[Crossing], first: frozenset[Vertex], second: frozenset[Vertex]) -> tuple[Crossing, ...]:
    return tuple(link for link in links if link.src in first and link.dst in second)


def _useless(plan: Plan, arc: Arc) -> bool:
    """Whether a tree from (or to) the root never has a use for this link."""
    return arc[1] == plan.root if plan.collective in ("broadcast", "scatter") else plan.root is not None and arc[0] == plan.root


def _unused(plan: Plan) -> Unused | None:
    left = tuple(kind for kind in plan.topology.kinds() if kind not in plan.links)
    return Unused(left, sum(1 for link in plan.topology.links if link.kind in left), plan.bound_all) if left else None
