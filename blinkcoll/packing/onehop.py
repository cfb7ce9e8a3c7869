"""One-hop trees: where every rank reaches every other directly or through one switch, stars may already meet the bound.

Blink (Wang et al., MLSys 2020, section 3.5) uses them on the DGX-2. All-gather and all-reduce: a star around each rank;
broadcast: from the root to each other rank, which passes its part on to the rest. They are taken only where they keep
all capacities at the bound, so nothing is assumed about the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from ..topology import Path
from .arborescences import RoutedTree
from .links import Network, Vertex

#: Below this, the general packer finds as good trees as fast.
_FEWEST_RANKS = 3


def one_hop_trees(network: Network, collective: str, root: int | None, rate: Fraction) -> list[RoutedTree] | None:
    """Trees (leading away from their roots) that reach ``rate``, or None where they do not fit."""
    n = network.nranks
    hubs = _hubs(network) if network.forwarders else []
    if n < _FEWEST_RANKS or (network.forwarders and len(hubs) != 1) or not _complete(network, hubs):
        return None
    hub: tuple[Vertex, ...] = tuple(hubs)
    if collective in ("broadcast", "reduce"):
        assert root is not None
        others = [r for r in range(n) if r != root]
        trees = [RoutedTree(root, rate / (n - 1), ((root, *hub, v), *_star(v, others, hub))) for v in others]
    else:
        trees = [RoutedTree(r, rate / n, tuple(_star(r, range(n), hub))) for r in range(n)]
    return trees if _fits(network, collective, trees) else None


def one_hop_path(network: Network, src: int, dst: int) -> Path | None:
    """The link, or the way through one forwarder (the widest), or None."""
    if (src, dst) in network.capacity:
        return src, dst
    ways = [(min(network.capacity[src, s], network.capacity[s, dst]), s) for s in network.forwarders if (src, s) in network.capacity and (s, dst) in network.capacity]
    return (src, max(ways, key=lambda way: way[0])[1], dst) if ways else None


def _hubs(network: Network) -> list[str]:
    """Forwarders with links to and from every rank."""
    return [s for s in network.forwarders if all((r, s) in network.capacity and (s, r) in network.capacity for r in range(network.nranks))]


def _complete(network: Network, hubs: list[str]) -> bool:
    return bool(hubs) or all((a, b) in network.capacity for a in range(network.nranks) for b in range(network.nranks) if a != b)


def _star(centre: int, others: Iterator[int] | range | list[int], hub: tuple[Vertex, ...]) -> Iterator[Path]:
    return ((centre, *hub, v) for v in others if v != centre)


def _fits(network: Network, collective: str, trees: list[RoutedTree]) -> bool:
    """Whether no link carries more than it can; counts uses per rate, as all trees run at one rate."""
    uses: dict[tuple[Vertex, Vertex], int] = {}
    reverse = collective in ("reduce", "reducescatter")
    for tree in trees:
        for path in tree.paths:
            for i in range(len(path) - 1):
                a, b = path[i], path[i + 1]
                if not reverse:
                    uses[a, b] = uses.get((a, b), 0) + 1
                if reverse or collective == "allreduce":
                    uses[b, a] = uses.get((b, a), 0) + 1
    rate = trees[0].rate
    return all(count * rate <= network.capacity.get(arc, 0) for arc, count in uses.items())
