"""What a collective's callers pass: which part of the data each rank's input and output hold.

The data of a collective is ``count`` elements: the buffer of broadcast, reduce, all-reduce, and of a rank in all-to-all;
all n shards together for all-gather, reduce-scatter, gather and scatter. In the five that have *shards of the caller's*
(``SHARDED``) a shard is exactly ``count / n`` elements, and a buffer may hold the rank's own shard only. Steps still
name every place by (shard, share, iteration): an executor is given such a buffer by the address at which the whole would
begin.
"""

from __future__ import annotations

#: Collectives whose shards are the ranks' own: one a rank, exactly equal.
SHARDED = frozenset({"allgather", "reducescatter", "gather", "scatter", "alltoall"})
#: Collectives that reduce.
REDUCING = frozenset({"allreduce", "reduce", "reducescatter"})
#: What a buffer holds.
VIEWS = ("none", "own", "whole")

_AT_ROOT = ("none", "whole")  # elsewhere, at the root
_EVERYWHERE = ("whole", "whole")
_OWN = ("own", "own")
#: Input and output: what they hold at a rank that is not the root, and at the root.
_BUFFERS = {
    "broadcast": (_AT_ROOT, _EVERYWHERE),
    "reduce": (_EVERYWHERE, _AT_ROOT),
    "allreduce": (_EVERYWHERE, _EVERYWHERE),
    "allgather": (_OWN, _EVERYWHERE),
    "reducescatter": (_EVERYWHERE, _OWN),
    "gather": (_OWN, _AT_ROOT),
    "scatter": (_AT_ROOT, _OWN),
    "alltoall": (_EVERYWHERE, _EVERYWHERE),
    "barrier": (("none", "none"), ("none", "none")),
    "sendrecv": (_AT_ROOT, ("whole", "none")),
}


def view(collective: str, buffer: str, rank: int, root: int | None) -> str:
    """What ``rank``'s ``"input"`` or ``"output"`` holds: ``"none"``, its ``"own"`` shard, or the ``"whole"``."""
    return _BUFFERS[collective][buffer == "output"][rank == root]


def elements(collective: str, buffer: str, rank: int, root: int | None, nranks: int, count: int) -> int:
    """How many elements that is, of ``count`` in all."""
    return {"none": 0, "own": count // nranks, "whole": count}[view(collective, buffer, rank, root)]


def first_element(collective: str, buffer: str, rank: int, root: int | None, nranks: int, count: int) -> int:
    """Which element of the whole the buffer begins with."""
    return rank * (count // nranks) if view(collective, buffer, rank, root) == "own" else 0
