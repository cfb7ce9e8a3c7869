"""What a graph's channels carry together, by the loads on the links that they use and NCCL's bandwidths of these.

NCCL's search takes a channel's speed off the links in one direction only; an all-reduce over a chain sends as much back.
So the speed of trees is counted here from the loads, every channel with an equal share of the data, as NCCL splits it.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from .compute import Graph
from .paths import Paths, overhead_applies
from .system import Edge, System
from .versions import RING


def busbw(system: System, paths: Paths, graph: Graph, nchannels: int) -> Fraction:
    """All-reduce bus bandwidth in GB/s of the first ``nchannels`` channels of a ring or tree graph.

    Notes
    -----
    Bandwidths only: no latency, no limit of a channel's own, no traffic but the collective's.
    """
    n = len(system.gpus)
    if n == 1:
        return Fraction(0)
    by_rank = {gpu.rank: gpu for gpu in system.gpus}
    ring = graph.pattern == RING
    loads: dict[Edge, Fraction] = {}
    for channel in graph.channels[:nchannels]:
        hops = list(pairwise((*channel, channel[0]) if ring else channel))
        for a, b in hops if ring else [*hops, *((b, a) for a, b in hops)]:
            way = paths[by_rank[a], by_rank[b]]
            overhead = Fraction(*map(int, system.version.overhead)) if overhead_applies(system.version, system, way) else Fraction(1)
            for edge in way.edges:
                loads[edge] = loads.get(edge, Fraction(0)) + (overhead if edge.kind == "PCI" else 1)
    slowest = min(_exact(edge.gb_s) / load for edge, load in loads.items())
    # `slowest` is GB/s a channel: of bus bandwidth for rings, of data for trees.
    return nchannels * slowest * (1 if ring else Fraction(2 * (n - 1), n))


def _exact(gb_s: float) -> Fraction:
    return Fraction(f"{gb_s:.6g}")
