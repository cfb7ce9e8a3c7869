"""Double binary trees in rank order, whatever the links are (Sanders, Speck and Träff, Parallel Computing 2009)."""

from __future__ import annotations

from functools import lru_cache

from ...schedules.doubletrees import lower_double_trees
from ...schedules.program import Program
from ...topology import Topology
from .channels import copies


def double_binary_tree(topology: Topology, collective: str, root: int | None, nbytes: int) -> Program:
    """The all-reduce over both trees, half of the data each.

    Raises
    ------
    TopologyError
        Where nothing leads from a rank to its parent or back.
    """
    del collective, root, nbytes  # all-reduce alone, the same at every size
    return _built(topology)


@lru_cache(maxsize=64)
def _built(topology: Topology) -> Program:
    # Up and down at once, in two trees.
    return lower_double_trees(topology, copies=copies(topology, runs_at_once=4))
