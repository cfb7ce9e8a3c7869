"""How many trees a plan of this rate needs at least, with a proof: the largest of four lower bounds.

Whatever carries the rate X in ``count`` trees (of the class that plans are made of: trees whose vertices are ranks, over
forwarding switches), ``count`` is at least

- **roots** (all-gather, reduce-scatter): every rank is the root of its share, X / n, and needs that over the width of
  its widest tree, rounded up.
- **width** (the others): no tree is faster than the narrowest link that it passes. Trees of width b or more carry
  together no more than the bound over the links of b or more, so with the widths b1 > b2 > ... and the bounds
  R1 <= R2 <= ..., count >= R1 / b1 + (R2 - R1) / b2 + ..., up to X.
- **tight cut**: where X is the bound, every link of a tight cut is full, and a tree crosses the cut exactly once (a
  partition into k parts exactly k - 1 times). A link of capacity c, which only trees of width w can use, is in at least
  c / w trees; these numbers, each rounded up, are added, for the tight cut or partition where the sum is the largest.
- **determinant** (broadcast, reduce; all-reduce by trees that are used both ways): where X is the bound, the best
  rates of the fewest trees are the basic solution of a linear system of full links with a 0/1 matrix of at most
  count x count. By Cramer's rule the denominator of X, in units of which all capacities are multiples, divides its
  determinant, and determinants of 0/1 matrices are at most 1, 1, 2, 3, 5, 9, 32, 56 for sizes 1 to 8 (OEIS A003432)
  and at most (n + 1)^((n + 1) / 2) / 2^n (Hadamard, 1893).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isqrt
from typing import TYPE_CHECKING

from .certificates import CutCertificate, PartitionCertificate, link_capacities
from .collectives import FLOWS, HAS_DOWN, HAS_UP
from .links import Arc, Network, Vertex
from .peeling import Peeling

if TYPE_CHECKING:
    from .plan import Plan

#: Largest determinants of 0/1 matrices (OEIS A003432).
_LARGEST_DETERMINANT = (1, 1, 1, 2, 3, 5, 9, 32, 56, 144, 320, 1458)
#: Ranks up to which the bounds of narrower networks are computed, one for each width of link.
_MOST_RANKS, _MOST_WIDTHS = 16, 12


@dataclass(frozen=True)
class TreeBound:
    """No plan of this rate has fewer trees than ``count``; ``reason`` says which argument proves it, ``words`` how."""

    count: int
    reason: str
    words: str


def fewest_trees(plan: Plan) -> TreeBound:
    """The best of the lower bounds for the plan's rate.

    Notes
    -----
    Milliseconds on a server. Bounds that need the optimum of narrower networks are left out beyond 16 ranks, and where there are
    too many cuts to list, only the plan's own certificate is looked at.
    """
    if plan.collective in FLOWS:
        return TreeBound(0, "flows", f"{plan.collective} has flows, not trees")
    network = _network(plan)
    found = [_roots(plan, network)] if plan.collective in ("allgather", "reducescatter") else [*_widths(plan, network)]
    if plan.optimal and not _branches(plan):
        found += [*_tight(plan, network), *_determinant(plan, network)]
    return max(found, key=lambda bound: bound.count)


def _branches(plan: Plan) -> bool:
    """Whether trees copy or add elsewhere than at ranks: bounds for trees over forwarding switches say nothing about such."""
    return bool(plan.topology.relays) or any(tree.switch is not None for tree in plan.trees)


def _network(plan: Plan) -> Network:
    capacity = link_capacities(plan.topology, plan.links, plan.rates)
    touched = {v for arc in capacity for v in arc}
    return Network(plan.topology.nranks, tuple(sorted(v for v in touched if isinstance(v, str))), capacity)


def _roots(plan: Plan, network: Network) -> TreeBound:
    """All-gather, reduce-scatter: what each root's widest tree says."""
    share, count = plan.rate / plan.topology.nranks, 0
    for root in range(plan.topology.nranks):
        widest = max(c for c in network.capacity.values() if _has_tree(plan, (a for a, wide in network.capacity.items() if wide >= c), root))
        count += ceil(share / widest)
    return TreeBound(count, "roots", f"each of the {plan.topology.nranks} ranks is the root of {float(share):.6g} GB/s")


def _reaches(arcs: Iterable[Arc], start: Vertex, nranks: int) -> bool:
    """Whether every rank can be reached from ``start``."""
    out: dict[Vertex, list[Vertex]] = {}
    for u, v in arcs:
        out.setdefault(u, []).append(v)
    seen, stack = {start}, [start]
    while stack:
        for v in out.get(stack.pop(), ()):
            if v not in seen:
                seen.add(v)
                stack.append(v)
    return all(r in seen for r in range(nranks))


def _has_tree(plan: Plan, arcs: Iterable[Arc], root: int = 0) -> bool:
    """Whether these arcs hold a tree of the collective; for all-gather and reduce-scatter, one of this root."""
    listed = list(arcs)
    start = root if plan.root is None else plan.root
    down = plan.collective not in HAS_DOWN or _reaches(listed, start, plan.topology.nranks)
    return down and (plan.collective not in HAS_UP or _reaches([(v, u) for u, v in listed], start, plan.topology.nranks))


def _widths(plan: Plan, network: Network) -> Iterator[TreeBound]:
    """Wide trees carry little: see the module."""
    from .exact import Problem

    widths = sorted(set(network.capacity.values()), reverse=True)
    levels: list[tuple[Fraction, Fraction]] = []
    for width in widths:
        wide = {arc: c for arc, c in network.capacity.items() if c >= width}
        if not _has_tree(plan, wide):
            continue
        bound = plan.bound
        if width != widths[-1] and not _branches(plan) and network.nranks <= _MOST_RANKS and len(widths) <= _MOST_WIDTHS:
            touched = {v for arc in wide for v in arc}
            forwarders = tuple(v for v in network.forwarders if v in touched)
            narrower = Problem.on(Network(network.nranks, forwarders, wide), plan.collective, plan.root, plan.links, plan.rates)
            bound = min(bound, narrower.solve().certificate.bound)
        levels.append((width, min(bound, plan.rate)))
        if levels[-1][1] == plan.rate:
            break
    count, carried = Fraction(0), Fraction(0)
    for width, bound in levels:
        count += max(Fraction(0), bound - carried) / width
        carried = max(carried, bound)
    words = ", ".join(f"trees as wide as {float(width):g} GB/s carry at most {float(bound):.6g}" for width, bound in levels)
    yield TreeBound(ceil(count), "width", words)


def _widest(plan: Plan, network: Network, arc: Arc) -> Fraction:
    """The width of the widest tree that uses this link, or more: other ways into its head (from its tail, upwards) are taken out."""
    for width in sorted({c for c in network.capacity.values() if c <= network.capacity[arc]}, reverse=True):
        wide = [a for a, c in network.capacity.items() if c >= width]
        if plan.collective in ("reduce", "reducescatter"):
            wide = [a for a in wide if a == arc or a[0] != arc[0] or isinstance(arc[0], str)]
        elif plan.collective != "allreduce":
            wide = [a for a in wide if a == arc or a[1] != arc[1] or isinstance(arc[1], str)]
        if plan.collective in ("allgather", "reducescatter") or _has_tree(plan, wide):
            return width
    return network.capacity[arc]


def _tight(plan: Plan, network: Network) -> Iterator[TreeBound]:
    """Every link of a tight cut is full, so each is in some tree: see the module."""
    widest: dict[Arc, int] = {}

    def trees(arc: Arc) -> int:
        if arc not in widest:
            widest[arc] = ceil(network.capacity[arc] / _widest(plan, network, arc))
        return widest[arc]

    best: tuple[int, str] | None = None
    for crossing, times, others, words in _tight_rows(plan, network):
        count = ceil(Fraction(sum(trees(arc) for arc in crossing), times)) + others
        if best is None or count > best[0]:
            best = count, f"{words}: all of its {len(crossing)} links are full, a tree crosses it {'once' if times == 1 else f'{times} times'}"
    if best is not None:
        yield TreeBound(best[0], "tight cut", best[1])


def _tight_rows(plan: Plan, network: Network) -> Iterator[tuple[list[Arc], int, int, str]]:
    """Tight cuts and partitions: their links (one of two directions of an edge), how often a tree crosses, how many trees do not."""
    certificate = plan.certificate
    if isinstance(certificate, CutCertificate):
        far, near = (0, 1) if certificate.direction == "in" else (1, 0)
        inside = certificate.inside
        crossing = [a for a in network.capacity if a[far] not in inside and a[near] in inside]
        others = sum(1 for r in inside if isinstance(r, int)) if plan.root is None else 0
        yield crossing, 1, others, "the cut of the certificate"
    elif isinstance(certificate, PartitionCertificate) and not network.forwarders:
        part = {v: i for i, vertices in enumerate(certificate.parts) for v in vertices}
        yield [(u, v) for u, v in network.capacity if str(u) < str(v) and part[u] != part[v]], len(certificate.parts) - 1, 0, "the partition of the certificate"
    peeling = Peeling.of(network, plan.collective, plan.root)
    if peeling is None:
        return
    share = plan.rate / (1 if plan.collective == "allreduce" else len(peeling.roots)) / network.unit
    for mask, demand in peeling.rows:
        arcs = [a for i, a in enumerate(peeling.arcs) if mask >> i & 1]
        if sum(c for *_, c in arcs) == share * sum(demand):
            crossing = [(v, u) if peeling.reverse else (u, v) for u, v, _ in arcs]
            yield crossing, max(demand), 0 if plan.collective == "allreduce" else demand.count(0), f"a tight {'partition' if plan.collective == 'allreduce' else 'cut'}"


def _determinant(plan: Plan, network: Network) -> Iterator[TreeBound]:
    """The denominator of the rate asks for a large determinant: see the module."""
    if network.forwarders or plan.collective in ("allgather", "reducescatter") or (plan.collective == "allreduce" and not network.symmetric):
        return
    q, size = (plan.rate / network.unit).denominator, 1
    while largest_determinant(size) < q:
        size += 1
    yield TreeBound(size, "determinant", f"the rate is {plan.rate / network.unit} x {float(network.unit):g} GB/s, and 0/1 matrices with a determinant of {q} or more are {size} x {size} or larger")


def largest_determinant(size: int) -> int:
    """Of 0/1 matrices of this size, or an upper bound of it (Hadamard's)."""
    if size < len(_LARGEST_DETERMINANT):
        return _LARGEST_DETERMINANT[size]
    return int(isqrt((size + 1) ** (size + 1)) // 2**size)
