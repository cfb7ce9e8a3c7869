"""Inputs whose sums are exact in float32, so that results can be compared bit for bit with numpy's."""

from __future__ import annotations

import numpy as np


def integers(nranks: int, count: int, seed: int) -> list[np.ndarray]:
    """Whole numbers below 2^16: sums of up to 256 of them are exact in any order."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-(1 << 15), 1 << 15, count).astype(np.float32) for _ in range(nranks)]


def assert_result(collective: str, root: int | None, inputs: list[np.ndarray], outputs: list[np.ndarray], context: str) -> None:
    expected = inputs[root] if collective == "broadcast" else np.sum(inputs, axis=0, dtype=np.float64).astype(np.float32)
    receivers = [root] if collective == "reduce" else range(len(inputs))
    for rank in receivers:
        wrong = np.flatnonzero(outputs[rank].view(np.uint32) != expected.view(np.uint32))
        assert wrong.size == 0, f"{context}: rank {rank}: {wrong.size} of {expected.size} elements wrong, first at {wrong[:1]}"
