"""When a training step ends: the backward pass fills buckets, which are all-reduced one after the other meanwhile.

Of a step's computing a third is the forward pass and two thirds the backward pass, which multiplies twice where the forward
pass does once (gradients of inputs and of weights); within the passes time goes by the layers' multiplications. A bucket is
sent when its last gradient is there and the bucket before it has arrived, as on one communication stream. Communication is
taken to slow no computing down and the optimiser to take no time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .buckets import Bucket
from .networks import Network

#: The backward pass's part of forward and backward.
BACKWARD = 2 / 3


@dataclass(frozen=True)
class StepTimes:
    """A step's times in µs.

    Parameters
    ----------
    compute_us
        Forward and backward alone.
    communication_us
        All all-reduces, added up.
    iteration_us
        From the step's start until the last gradient has arrived and the backward pass is over.
    """

    compute_us: float
    communication_us: float
    iteration_us: float

    @property
    def exposed_us(self) -> float:
        """What communication adds to computing."""
        return self.iteration_us - self.compute_us


def step_times(network: Network, buckets: Sequence[Bucket], compute_us: float, allreduce_us: Callable[[int], float], overlap: bool = True) -> StepTimes:
    """The times of a step.

    Parameters
    ----------
    network, buckets
        What :func:`gradient_buckets` made of the network.
    compute_us
        Forward and backward pass of one step on one GPU.
    allreduce_us
        From bytes to the time of an all-reduce.
    overlap
        Whether buckets are sent during the backward pass, rather than after it.
    """
    backward_us = compute_us * BACKWARD
    forward_us = compute_us - backward_us
    left = [0]  # left[i]: multiplications of the layers before i, which the backward pass has still to do after layer i
    for layer in network.layers:
        left.append(left[-1] + layer.multiplications)
    arrived, communication_us = 0.0, 0.0
    for bucket in buckets:
        ready = forward_us + backward_us * (1 - left[bucket.last_layer] / left[-1]) if overlap else compute_us
        duration = allreduce_us(bucket.nbytes)
        arrived = max(ready, arrived) + duration
        communication_us += duration
    return StepTimes(compute_us, communication_us, max(compute_us, arrived))
