"""What a collective's callers pass: which part of the data each rank's input and output hold.

The data of a collective is ``count`` elements: the buffer of broadcast, reduce, all-reduce, and of a rank in all-to-all;
all n shards together for all-gather, reduce-scatter, gather and scatter. In those that have *shards of the caller's*
(``SHARDED``) a buffer may hold the rank's own shard only. Steps still name every place by (shard, share, iteration): an
executor is given such a buffer by the address at which the whole would begin.

A shard of the caller's is exactly ``count / n`` elements, or as many as the launch's table says; the same program does
both. Only in an all-to-all do ranks pass a shard of one number on as another, for which they must be of one size; its
uneven form is a collective of its own, ``alltoallv``, with n x n shards: number a n + b goes from rank a to rank b.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Collectives whose shards are the callers'.
SHARDED = frozenset({"allgather", "reducescatter", "gather", "scatter", "alltoall", "alltoallv"})
#: Collectives that reduce.
REDUCING = frozenset({"allreduce", "reduce", "reducescatter"})
#: What a buffer holds: nothing, the rank's own shard, all; the shards that it sends, or those that it gets.
VIEWS = ("none", "own", "whole", "row", "column")

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
    "alltoallv": (("row", "row"), ("column", "column")),
    "barrier": (("none", "none"), ("none", "none")),
    "sendrecv": (_AT_ROOT, ("whole", "none")),
}


def view(collective: str, buffer: str, rank: int, root: int | None) -> str:
    """What ``rank``'s ``"input"`` or ``"output"`` holds, one of :data:`VIEWS`."""
    return _BUFFERS[collective][buffer == "output"][rank == root]


def shards_held(collective: str, buffer: str, rank: int, root: int | None, nranks: int) -> range:
    """Which of a sharded collective's shards that is."""
    return {
        "none": range(0),
        "own": range(rank, rank + 1),
        "whole": range(nranks),
        "row": range(rank * nranks, (rank + 1) * nranks),
        "column": range(rank, nranks * nranks, nranks),
    }[view(collective, buffer, rank, root)]


def elements(collective: str, buffer: str, rank: int, root: int | None, nranks: int, count: int, bounds: Sequence[int] | None = None) -> int:
    """How many elements that is, of ``count`` in all, where shard s is ``bounds[s]`` to ``bounds[s + 1]`` (None: equal shards)."""
    if bounds is not None:
        return sum(bounds[s + 1] - bounds[s] for s in shards_held(collective, buffer, rank, root, nranks))
    part = {"none": 0, "own": nranks, "whole": 1, "row": nranks, "column": nranks}[view(collective, buffer, rank, root)]
    return count // part if part else 0


def first_element(collective: str, buffer: str, rank: int, root: int | None, nranks: int, count: int, bounds: Sequence[int] | None = None) -> int:
    """Which element of the whole the buffer begins with; of a column, whose shards are placed one by one, 0."""
    held = view(collective, buffer, rank, root)
    if bounds is not None and held in ("own", "row"):
        return bounds[shards_held(collective, buffer, rank, root, nranks)[0]]
    return rank * (count // nranks) if held in ("own", "row") else 0
