"""What a collective's outputs must be, by numpy alone."""

from __future__ import annotations

import numpy as np

SHARDED = ("allgather", "reducescatter", "gather", "scatter", "alltoall")


def make_inputs(collective, root, n, count, make):
    """One input a rank as its callers have it: `make(rank, size)`; None where the collective has none."""
    own = count // n if collective in SHARDED else count
    sizes = {
        "broadcast": [count if r == root else None for r in range(n)],
        "scatter": [count if r == root else None for r in range(n)],
        "allgather": [own] * n,
        "gather": [own] * n,
    }.get(collective, [count] * n)
    return [None if size is None else make(rank, size) for rank, size in enumerate(sizes)]


def expected_outputs(collective, root, inputs, reduce):
    """Each rank's output; None where it has none. `reduce` turns a list of arrays into one."""
    n = len(inputs)
    shard = lambda array, i: array[i * (array.size // n) : (i + 1) * (array.size // n)]  # noqa: E731
    if collective == "broadcast":
        return [inputs[root]] * n
    if collective in ("allreduce", "reduce"):
        total = reduce(inputs)
        return [total if collective == "allreduce" or r == root else None for r in range(n)]
    if collective in ("allgather", "gather"):
        whole = np.concatenate(inputs)
        return [whole if collective == "allgather" or r == root else None for r in range(n)]
    if collective == "reducescatter":
        return [shard(reduce(inputs), r) for r in range(n)]
    if collective == "scatter":
        return [shard(inputs[root], r) for r in range(n)]
    return [np.concatenate([shard(inputs[s], r) for s in range(n)]) for r in range(n)]


def assert_outputs(collective, root, inputs, outputs, reduce, context=""):
    for rank, (want, got) in enumerate(zip(expected_outputs(collective, root, inputs, reduce), outputs, strict=True)):
        if want is None:
            assert got.size == 0, f"{context}: rank {rank} has no output, got {got.size} elements"
            continue
        assert got.shape == want.shape and got.dtype == want.dtype, f"{context}: rank {rank}: {got.shape} {got.dtype}, expected {want.shape} {want.dtype}"
        wrong = np.flatnonzero(got.view(np.uint8) != want.view(np.uint8))
        assert wrong.size == 0, f"{context}: rank {rank}: {wrong.size} bytes of {want.nbytes} wrong, first at {wrong[0]}"
