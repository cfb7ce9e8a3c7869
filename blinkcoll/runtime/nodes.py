"""Which memory node each rank of a group is on: every rank finds its own, rank 0 learns of all."""

from __future__ import annotations

from ..topology import HostNodes, nodes_here, own_node
from .bootstrap import Group


def nodes_of(group: Group, timeout_s: float) -> HostNodes | None:
    """At rank 0: the ranks' nodes, None where they are on one, or some rank cannot tell. At others: None. All ranks call it."""
    mine = own_node()
    if group.rank != 0:
        group.answer({"node": mine})
        return None
    told = group.answers("learning the ranks' memory nodes", timeout_s)
    of_rank = [mine, *(told[rank]["node"] for rank in range(1, group.world_size))]
    known = [node for node in of_rank if node is not None]
    return nodes_here(known) if len(known) == group.world_size and len(set(known)) > 1 else None
