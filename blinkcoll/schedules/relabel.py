"""A program made for ranks in another order, in the ranks of its topology.

A lowering that counts ranks (partners at distance 2, trees by number) then need not know which rank stands where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import ScheduleError
from ..topology import Topology
from .contract import SHARDED
from .program import Channel, Operand, Program, Step


def lower_in_order(topology: Topology, order: Sequence[int], lowering: Callable[[Topology], Program]) -> Program:
    """What ``lowering`` makes of the ranks in ``order``: its rank i is rank ``order[i]`` of ``topology``.

    Raises
    ------
    ScheduleError
        Where ``order`` is no permutation of the ranks, or shards belong to ranks, which other names would give away.
    """
    if sorted(order) != list(range(topology.nranks)):
        raise ScheduleError(f"an order must name each of the ranks 0..{topology.nranks - 1} once, got {list(order)}")
    made = lowering(topology.subset([topology.devices[rank].name for rank in order], [d.name for d in topology.relays]))
    if made.collective in SHARDED:
        raise ScheduleError(f"{made.collective}: its shards belong to ranks, so ranks cannot be renamed")
    place = {rank: i for i, rank in enumerate(order)}
    connections = tuple(
        replace(c, src=order[c.src], dst=order[c.dst], path=tuple(order[v] if isinstance(v, int) else v for v in c.path))
        for c in made.connections
    )
    ranks = tuple(tuple(Channel(tuple(_renamed(s, order) for s in ch.steps)) for ch in made.ranks[place[rank]]) for rank in range(topology.nranks))
    root = None if made.root is None else order[made.root]
    return replace(made, topology=topology, connections=connections, ranks=ranks, root=root)


def _renamed(step: Step, order: Sequence[int]) -> Step:
    def operands(many: tuple[Operand, ...]) -> tuple[Operand, ...]:
        return tuple(o if o.rank is None else replace(o, rank=order[o.rank]) for o in many)

    return replace(step, srcs=operands(step.srcs), dsts=operands(step.dsts), group=tuple(order[rank] for rank in step.group))
