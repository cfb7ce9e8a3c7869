"""The eight collectives and what a plan for each consists of."""

from __future__ import annotations

from ..errors import PackingError

#: Canonical names, in the order of tables.
COLLECTIVES = ("broadcast", "reduce", "allreduce", "allgather", "reducescatter", "gather", "scatter", "alltoall")
#: Those that need a root.
ROOTED = frozenset({"broadcast", "reduce", "gather", "scatter"})
#: Those whose plans are flows of pairs rather than trees.
FLOWS = frozenset({"gather", "scatter", "alltoall"})
#: Those whose trees have a half towards the root, and a half away from it.
HAS_UP = frozenset({"reduce", "reducescatter", "allreduce"})
HAS_DOWN = frozenset({"broadcast", "allgather", "allreduce"})


def canonical(collective: str) -> str:
    """The canonical name: ``"all_reduce"``, ``"All-Reduce"`` and ``"allreduce"`` are one.

    Raises
    ------
    PackingError
        Where it is none of the eight.
    """
    name = str(collective).lower().replace("_", "").replace("-", "")
    if name not in COLLECTIVES:
        raise PackingError(f"unknown collective {collective!r}; known: {', '.join(COLLECTIVES)}")
    return name


def check_root(collective: str, root: int | None, nranks: int) -> int | None:
    """The root as a plan records it: a rank for rooted collectives, else None.

    Raises
    ------
    PackingError
        Where a rooted collective has none, another has one, or it is no rank.
    """
    if collective not in ROOTED:
        if root is not None:
            raise PackingError(f"{collective} has no root, got root={root}")
        return None
    if root is None:
        raise PackingError(f"{collective} needs a root: give root=RANK, 0 to {nranks - 1}")
    if isinstance(root, bool) or not isinstance(root, int) or not 0 <= root < nranks:
        raise PackingError(f"root {root!r} is not a rank of this group (0 to {nranks - 1})")
    return root
