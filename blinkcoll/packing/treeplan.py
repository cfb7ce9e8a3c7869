"""Plans made of generated trees (``columns.py``): with relays that act, and hybrids of NVLink and PCIe.

- Relays (``topology.subset(..., relays=...)``) are devices without a part in the collective: a tree may pass, branch and
  add up at them. The plan is the best packing of Steiner trees, proven by prices (``prices.py``).
- Hybrid plans use all links, each hop on a way that the driver offers (``hops.py``), and are judged by the bound over all
  links, whatever ways it takes. Blink (Wang et al., MLSys 2020, section 3.4) packs the two kinds of link apart and
  divides the data; here one packing shares root ports, uplinks and the CPUs' interconnect, and a tree may mix them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property

from ..errors import PackingError
from ..topology import Path, Topology
from .arborescences import depth
from .collectives import FLOWS, HAS_DOWN, HAS_UP
from .columns import Column, Packed, TreeColumns
from .exact import Problem, exact_plan
from .hops import Hops
from .links import choose_links, network_of, unreached
from .minimise import Wish, chosen_among
from .plan import Certificate, Plan, Tree
from .prices import TreePriceCertificate


def relay_plan(topology: Topology, collective: str, root: int | None, links: tuple[str, ...], rates: str, budget_s: float, wish: Wish | None) -> Plan:
    """The best trees over ranks and relays, over links of these kinds."""
    every = topology.kinds()
    share = budget_s if links == every else budget_s / 2
    packed = _pack(topology, collective, root, links, rates, share)
    certificate = _proof(packed, collective, root, links, rates)
    certificate_all = None
    if links != every:
        certificate_all = _proof(_pack(topology, collective, root, every, rates, share), collective, root, every, rates)
    method = "exact" if packed.rate == packed.bound else "approximate"
    plan = _plan(topology, collective, method, _trees(packed, collective, topology.nranks), certificate, certificate_all, links, root, rates)
    return plan if wish is None else chosen_among(plan, _more(packed, collective, topology.nranks), wish, budget_s)


def hybrid_plan(
    topology: Topology, collective: str, root: int | None, rates: str, budget_s: float, wish: Wish | None = None, most_equal: int | None = None,
    apart: bool = False,
) -> Plan:  # fmt: skip
    """The best trees over all links, each hop on a way that the driver offers.

    Where the trees over the fastest links and trees over the others add up to the best rate they are taken as they are:
    there are few of them. With ``apart`` they always are, and with ``most_equal`` too, the former at most so many and of
    one rate.

    Raises
    ------
    PackingError
        Where the collective has flows, or such ways do not join the ranks.
    """
    return _hybrid(_Sides(topology, collective, root, rates, budget_s), wish, most_equal, apart)


def _hybrid(sides: _Sides, wish: Wish | None = None, most_equal: int | None = None, apart: bool = False) -> Plan:
    topology, collective, root, rates, budget_s = sides.topology, sides.collective, sides.root, sides.rates, sides.budget_s
    stacked = sides.stacked(most_equal)
    trees, more = stacked, list[Tree]()
    if not apart and most_equal is None:
        known = [Column(tree.root, tree.down, tree.up) for tree in stacked]
        packed = _pack(topology, collective, root, sides.every, rates, budget_s, restricted=True, known=known)
        more = _more(packed, collective, topology.nranks)
        if sum((tree.rate for tree in stacked), Fraction(0)) < packed.rate:
            trees = _trees(packed, collective, topology.nranks)
    if not trees:
        raise PackingError(f"topology {topology.name}: no links beside the fastest join all ranks, so no trees lie apart from theirs")
    plan = _plan(topology, collective, "hybrid", trees, sides.certificate, None, sides.every, root, rates)
    return plan if wish is None else replace(chosen_among(plan, more, wish, budget_s), method="hybrid")


class _Sides:
    """The fastest links and all others, with what several hybrids of one request have in common, found once."""

    def __init__(self, topology: Topology, collective: str, root: int | None, rates: str, budget_s: float) -> None:
        if collective in FLOWS:
            raise PackingError(f"{collective} has flows, not trees: there is no hybrid plan for it")
        self.topology, self.collective, self.root, self.rates, self.budget_s = topology, collective, root, rates, budget_s
        self.every = choose_links(topology, collective, root, "all")
        self.fastest = choose_links(topology, collective, root, "fastest")
        self.others = tuple(kind for kind in topology.kinds() if kind not in self.fastest)

    @cached_property
    def certificate(self) -> Certificate:
        """The proof of the bound over all links."""
        if self.topology.relays:
            packed = _pack(self.topology, self.collective, self.root, self.every, self.rates, self.budget_s / 2)
            return _proof(packed, self.collective, self.root, self.every, self.rates)
        return Problem.of(self.topology, self.collective, self.root, self.every, self.rates, self.budget_s).solve().certificate

    def stacked(self, most_equal: int | None) -> list[Tree]:
        """The trees over the fastest links and, beside them, few that are the best over all others; none where no others join the ranks."""
        if unreached(self.topology, self.others, self.collective, self.root) is not None:
            return []
        return [*(self._fast if most_equal is None else self._equal(most_equal)), *self._slow]

    @cached_property
    def _fast(self) -> tuple[Tree, ...]:
        if self.topology.relays:
            return relay_plan(self.topology, self.collective, self.root, self.fastest, self.rates, self.budget_s / 2, None).trees
        return exact_plan(self.topology, self.collective, self.root, self.fastest, self.rates, self.budget_s / 2).trees

    def _equal(self, most: int) -> tuple[Tree, ...]:
        if self.topology.relays:
            return self._fast
        return exact_plan(self.topology, self.collective, self.root, self.fastest, self.rates, self.budget_s / 2, most_equal=most).trees

    @cached_property
    def _slow(self) -> tuple[Tree, ...]:
        packed = _pack(self.topology, self.collective, self.root, self.others, self.rates, self.budget_s / 2, restricted=True)
        trees = _trees(packed, self.collective, self.topology.nranks)
        slow = _plan(self.topology, self.collective, "hybrid", trees, self.certificate, None, self.others, self.root, self.rates)
        return chosen_among(slow, _more(packed, self.collective, self.topology.nranks), Wish(), self.budget_s / 2).trees


#: What is put on the links beside the fastest, of what they can carry: their pipelines take longer to fill.
_PARTS = (Fraction(1), Fraction(3, 4), Fraction(1, 2))


def hybrid_candidates(topology: Topology, collective: str, root: int | None, max_channels: int, budget_s: float = 2.0) -> Iterator[Plan]:
    """Hybrid plans for whoever simulates and chooses; none where they are no faster than the fastest links alone.

    A hybrid's rate is for sizes without end. Before, the longer pipelines of PCIe finish late, so plans come with all and
    with less beside the fastest links (Blink, section 3.4, subtracts what switching costs), and for all-reduce with trees
    of one rate on these too, which channels carry as planned.
    """
    fastest = choose_links(topology, collective, root, "fastest")
    if fastest == topology.kinds() or collective in FLOWS:
        return
    n, sides = topology.nranks, _Sides(topology, collective, root, "planning", budget_s)
    plans = [_hybrid(sides)]
    if unreached(topology, sides.others, collective, root) is None:
        plans.append(_hybrid(sides, apart=True))
        alone = network_of(topology, fastest)
        if collective == "allreduce" and not topology.relays and alone.symmetric and not alone.forwarders:
            most = max(1, max_channels * n // (2 * n - 1) - 2)
            plans.append(_hybrid(sides, most_equal=most))
    seen: list[tuple[Tree, ...]] = []
    for plan in plans:
        beside = [not any(topology.peers.over_fast_links(path) for path in (*(t.up or ()), *(t.down or ()))) for t in plan.trees]
        for part in _PARTS if any(beside) and not all(beside) else _PARTS[:1]:
            trees = _weighed([replace(t, rate=t.rate * part) if slow else t for t, slow in zip(plan.trees, beside, strict=True)])
            if trees not in seen:
                seen.append(trees)
                yield replace(plan, rate=sum((t.rate for t in trees), Fraction(0)), trees=trees)


def _weighed(trees: Sequence[Tree]) -> tuple[Tree, ...]:
    """The trees with the weights that their rates make."""
    whole = sum((tree.rate for tree in trees), Fraction(0))
    return tuple(replace(tree, weight=tree.rate / whole) for tree in trees)


def _pack(
    topology: Topology, collective: str, root: int | None, links: tuple[str, ...], rates: str, budget_s: float,
    restricted: bool = False, known: Iterable[Column] = (),
) -> Packed:  # fmt: skip
    network = network_of(topology, links, rates)
    halves = tuple(half for half, has in (("down", HAS_DOWN), ("up", HAS_UP)) if collective in has)
    if len(halves) == 2 and network.symmetric:
        halves = ("both",)
        known = [Column(0, column.down, None) for column in known]
    hops = {half: Hops(topology, network, restricted, reverse=half == "up") for half in halves}
    return TreeColumns(hops, network, halves, root, each=collective in ("allgather", "reducescatter")).solve(budget_s, known)


def _proof(packed: Packed, collective: str, root: int | None, links: tuple[str, ...], rates: str) -> TreePriceCertificate:
    prices = tuple((u, v, p) for (u, v), p in sorted(packed.prices.items(), key=str))
    return TreePriceCertificate(packed.bound, prices, collective, links, root, rates)


def _plan(
    topology: Topology, collective: str, method: str, trees: Sequence[Tree], certificate: Certificate, certificate_all: Certificate | None,
    links: tuple[str, ...], root: int | None, rates: str,
) -> Plan:  # fmt: skip
    return Plan(
        topology=topology,
        collective=collective,
        method=method,
        rate=sum((tree.rate for tree in trees), Fraction(0)),
        bound=certificate.bound,
        bound_all=certificate.bound if certificate_all is None else max(certificate.bound, certificate_all.bound),
        certificate=certificate,
        links=links,
        root=root,
        trees=_weighed(trees),
        rates=rates,
        certificate_all=certificate_all,
    )


def _trees(packed: Packed, collective: str, nranks: int) -> list[Tree]:
    """The trees of a packing, the fastest first."""
    return sorted((_tree(column, collective, x, nranks) for column, x in packed.trees), key=lambda t: (-t.rate, t.root))


def _more(packed: Packed, collective: str, nranks: int) -> list[Tree]:
    """All trees that were generated, to choose few from."""
    return [_tree(column, collective, Fraction(0), nranks) for column in packed.columns]


def _tree(column: Column, collective: str, rate: Fraction, nranks: int) -> Tree:
    """A column as a tree whose weight is still to be found."""
    if collective != "allreduce" or column.up is not None:
        return Tree(root=column.root, rate=rate, weight=Fraction(0), up=column.up, down=column.down)
    assert column.down is not None
    # An undirected tree: rooted where it is shallowest; a relay has no output, so a rank.
    root = min(range(nranks), key=lambda r: (depth(r, column.down or ()), r))
    paths: list[Path] = []
    placed: set[int | str] = {root}
    left = list(column.down)
    while left:
        grown = [path if path[0] in placed else path[::-1] for path in left if path[0] in placed or path[-1] in placed]
        left = [path for path in left if path[0] not in placed and path[-1] not in placed]
        paths += grown
        placed.update(path[-1] for path in grown)
    return Tree(root=root, rate=rate, weight=Fraction(0), up=tuple(path[::-1] for path in reversed(paths)), down=tuple(paths))
