"""Double binary trees: two trees, each over all ranks, in which hardly a rank is inside both.

Sanders, Speck and Träff: Two-tree algorithms for full bandwidth broadcast, reduction and scan (Parallel Computing 2009).
The first tree is the in-order binary tree of the ranks; the second is its mirror image, or the first moved on by one rank
where their number is odd.
"""

from __future__ import annotations

from fractions import Fraction

from ..packing.plan import Tree
from ..topology import Topology, route
from .program import OUTPUT, SCALED_INPUT, Channel, Program, Step
from .trees import TreeBuilder


def lower_double_trees(topology: Topology, *, copies: int = 1, slots: int = 4, chunk_bytes: int = 1 << 19) -> Program:
    """The all-reduce over two binary trees, each ``copies`` times, with equal shares.

    Raises
    ------
    TopologyError
        Where nothing leads from a rank to its parent or back.
    """
    n = topology.nranks
    builder = TreeBuilder(topology, slots)
    alone = Channel((Step("copy", 0, (SCALED_INPUT,), (OUTPUT,), postscaled=True),))
    for share in range(2 * copies if n > 1 else 0):
        builder.add(_tree(topology, second=share % 2 == 1), share)
    return Program(
        algorithm="double-trees", collective="allreduce", topology=topology, nshards=1, weights=(1,) * (2 * copies if n > 1 else 1),
        connections=tuple(builder.connections), ranks=tuple(map(tuple, builder.channels)) if n > 1 else ((alone,),), chunk_bytes=chunk_bytes,
    )  # fmt: skip


def _tree(topology: Topology, second: bool) -> Tree:
    n = topology.nranks

    def named(place: int) -> int:
        """The rank at a place of the in-order tree."""
        if not second:
            return place
        return n - 1 - place if n % 2 == 0 else (place + 1) % n

    edges = [(named(place), named(parent(place, n))) for place in range(1, n)]
    return Tree(
        root=named(0),
        rate=Fraction(1),
        weight=Fraction(1, 2),
        up=tuple(route(topology, child, above) for child, above in edges),
        down=tuple(route(topology, above, child) for child, above in edges),
    )


def parent(place: int, n: int) -> int:
    """The parent of a place, 1 to n - 1, in the in-order tree whose root is place 0.

    A place whose lowest set bit is b lies b away from its parent, the one with lowest bit 2b, or, where that is beyond
    the last, the one without the bit.
    """
    lowest = place & -place
    above = (place ^ lowest) | (lowest << 1)
    return above if above < n else place ^ lowest
