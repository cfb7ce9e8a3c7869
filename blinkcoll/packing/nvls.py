"""Plans over switches that copy and add (NVLink SHARP, NVLS), and the bound of any algorithm that uses such switches.

A *multicast group* holds all ranks. Its reading (``multimem.ld_reduce``) takes one element from every rank, adds them in
the switch and gives the sum to the rank that asked, the *head*; its writing (``multimem.st``) takes an element from the
head and gives it to every rank. The group includes the head, so its own element goes to the switch and back, too. A head
of rate x therefore loads every rank's port with x, in one direction, and its own with x more in the other.

All-reduce at X = sum of x_h: every port carries X + x_h in both directions, so with ports c_h the best rate is
min(min c, sum c / (n + 1)): 8/9 of a port on eight ranks, where trees over forwarding switches reach 8/14. What any
algorithm at all could do is a cut: what leaves and enters a rank, a whole port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from ..errors import PackingError
from ..topology import Path, Topology, group_switches
from .arborescences import run
from .certificates import SWITCH_MODEL, CutCertificate
from .collectives import HAS_DOWN, HAS_UP
from .links import Network, network_of
from .plan import Plan, Tree

#: Collectives that a group can do. The others move what is no rank's alone and no sum.
COLLECTIVES = ("broadcast", "reduce", "allreduce", "allgather", "reducescatter")


def nvls_plan(topology: Topology, collective: str, root: int | None, links: tuple[str, ...], rates: str) -> Plan:
    """The best plan over multicast groups of all ranks, held to the bound for switches that copy and add.

    Raises
    ------
    PackingError
        For gather, scatter and all-to-all, or where no switch that the collective needs is linked to every rank.
    """
    if collective not in COLLECTIVES:
        raise PackingError(f"{collective} has nothing for a switch to copy or add; method='nvls' plans {', '.join(COLLECTIVES)}")
    network = network_of(topology, links, rates)
    planes = [_Plane.of(network, name) for name in group_switches(topology, adds=collective in HAS_UP, copies=collective in HAS_DOWN, kinds=links)]
    if not planes:
        verb = " and ".join(v for v, wanted in (("multicasts", collective in HAS_DOWN), ("adds", collective in HAS_UP)) if wanted)
        raise PackingError(f"topology {topology.name}: no switch that {verb} is linked to all {topology.nranks} ranks by {'+'.join(links)}; use method='auto'")
    shares = {plane.switch: plane.heads(collective, root) for plane in planes}
    rate = sum((x for heads in shares.values() for x in heads.values()), Fraction(0))
    certificate = switch_bound(topology, collective, root, links, rates)
    certificate_all = None if links == topology.kinds() else switch_bound(topology, collective, root, topology.kinds(), rates)
    bound_all = certificate.bound if certificate_all is None else max(certificate.bound, certificate_all.bound)
    return Plan(
        topology=topology,
        collective=collective,
        method="nvls",
        rate=rate,
        bound=certificate.bound,
        bound_all=bound_all,
        certificate=certificate,
        links=links,
        root=root,
        trees=tuple(
            _tree(topology.nranks, collective, switch, head, x, rate) for switch, heads in shares.items() for head, x in sorted(heads.items()) if x > 0
        ),
        rates=rates,
        certificate_all=certificate_all,
    )


def switch_bound(topology: Topology, collective: str, root: int | None, links: tuple[str, ...], rates: str = "planning") -> CutCertificate:
    """The bound of any algorithm that neither splits nor codes elements, whatever switches and relays do; exact, by cuts.

    For all-reduce every set of ranks that is not all of them gives out and takes in each element at least once: its own
    part or the sum of it, and the sum or the others' part. So the worst cut of a broadcast from rank 0 or of a reduce to
    it, whichever is less: each cut separates rank 0 from somebody.
    """
    network = network_of(topology, links, rates)
    if collective != "allreduce":
        return _cut(network, collective, root, links, rates, collective in ("reduce", "reducescatter"))
    ways = [_cut(network, collective, None, links, rates, reverse) for reverse in (False, True)]
    return min(ways, key=lambda certificate: certificate.bound)


def _cut(network: Network, collective: str, root: int | None, links: tuple[str, ...], rates: str, reverse: bool) -> CutCertificate:
    source = 0 if collective == "allreduce" else root
    weights = [int(source is None or r == source) for r in range(network.nranks)]
    arcs = [(v, u, c) for u, v, c in network.arcs] if reverse else network.arcs
    num, den, inside = run("root_cut", arcs, len(network.vertices), network.nranks, arcs, weights)
    return CutCertificate(
        bound=Fraction(num, den) * network.unit * sum(weights),
        inside=frozenset(network.vertices[v] for v in inside),
        collective=collective,
        direction="out" if reverse else "in",
        links=links,
        root=root,
        rates=rates,
        model=SWITCH_MODEL,
    )


@dataclass(frozen=True)
class _Plane:
    """A switch and what every rank's ports to and from it carry."""

    switch: str
    out: tuple[Fraction, ...]
    back: tuple[Fraction, ...]

    @classmethod
    def of(cls, network: Network, switch: str) -> _Plane:
        ranks = range(network.nranks)
        return cls(switch, tuple(network.capacity[r, switch] for r in ranks), tuple(network.capacity[switch, r] for r in ranks))

    def heads(self, collective: str, root: int | None) -> dict[int, Fraction]:
        """The best rates of the heads; see the module's text."""
        n = len(self.out)
        if collective == "broadcast":
            return {_rank(root): min(self.out[_rank(root)], *self.back)}
        if collective == "reduce":
            return {_rank(root): min(self.back[_rank(root)], *self.out)}
        if collective != "allreduce":
            wide, narrow = (self.back, self.out) if collective == "allgather" else (self.out, self.back)
            return dict.fromkeys(range(n), min(min(wide) / n, *narrow))
        port = [min(pair) for pair in zip(self.out, self.back, strict=True)]
        rate = min(*port, sum(port, Fraction(0)) / (n + 1))
        return _filled({r: c - rate for r, c in enumerate(port)}, rate)


def _rank(root: int | None) -> int:
    assert root is not None
    return root


def _filled(slack: Mapping[int, Fraction], rate: Fraction) -> dict[int, Fraction]:
    """``rate`` dealt out as evenly as the slacks allow (they add up to at least that)."""
    heads: dict[int, Fraction] = {}
    left, takers = rate, sorted(slack, key=lambda r: slack[r])
    for i, rank in enumerate(takers):
        heads[rank] = min(slack[rank], left / (len(takers) - i))
        left -= heads[rank]
    return heads


def _tree(nranks: int, collective: str, switch: str, head: int, x: Fraction, rate: Fraction) -> Tree:
    others = [r for r in range(nranks) if r != head]
    up: tuple[Path, ...] = tuple((r, switch, head) for r in others)
    down: tuple[Path, ...] = tuple((head, switch, r) for r in others)
    return Tree(head, x, x / rate, up if collective in HAS_UP else None, down if collective in HAS_DOWN else None, switch)
