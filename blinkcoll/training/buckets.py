"""Gradients in buckets, as PyTorch's DistributedDataParallel fills them.

Tensors come in the reverse of forward order, which is about the order in which the backward pass has them ready; a bucket is
closed by the tensor that fills it (``compute_bucket_assignment_by_size`` in torch/csrc/distributed/c10d/reducer.cpp). The
first is small, so that something is sent early.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SimulationError
from .networks import Network

#: DistributedDataParallel's ``bucket_cap_mb`` (25) and ``dist._DEFAULT_FIRST_BUCKET_BYTES`` (1 MiB).
BUCKET_BYTES = 25 << 20
FIRST_BUCKET_BYTES = 1 << 20
#: Bytes of a gradient's element: float32.
ELEMENT = 4


@dataclass(frozen=True)
class Bucket:
    """``nbytes`` of gradients, complete when the backward pass has left layer ``last_layer`` (its place in forward order)."""

    nbytes: int
    last_layer: int


def gradient_buckets(network: Network, bucket_bytes: int = BUCKET_BYTES, first_bytes: int = FIRST_BUCKET_BYTES) -> list[Bucket]:
    """The buckets of a network in the order in which they are sent.

    Raises
    ------
    SimulationError
        Where a bucket would hold nothing.
    """
    if bucket_bytes < 1 or first_bytes < 1:
        raise SimulationError(f"buckets of {first_bytes} and {bucket_bytes} bytes: at least 1 byte each")
    buckets: list[Bucket] = []
    filled, limit = 0, min(first_bytes, bucket_bytes)
    for place in range(len(network.layers) - 1, -1, -1):
        for elements in reversed(network.layers[place].tensors):
            filled += elements * ELEMENT
            if filled >= limit:
                buckets.append(Bucket(filled, place))
                filled, limit = 0, bucket_bytes
    return [*buckets, Bucket(filled, 0)] if filled else buckets
