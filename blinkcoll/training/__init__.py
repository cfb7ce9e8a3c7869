"""A data-parallel training step: gradients of a network in buckets, all-reduced while the backward pass still runs."""

from .buckets import Bucket, gradient_buckets
from .networks import NETWORKS, Layer, Network, network_named
from .speeds import Speed, published_speed
from .step import StepTimes, step_times

__all__ = [
    "NETWORKS", "Bucket", "Layer", "Network", "Speed", "StepTimes", "gradient_buckets", "network_named", "published_speed", "step_times",
]  # fmt: skip
