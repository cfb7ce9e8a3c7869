"""``blinkcoll bench --model``: a training step on every class of allocations, with blinkcoll's all-reduces and with others'."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache

import typer

from ..errors import SimulationError
from ..packing import make_plan
from ..show.training_text import Step, training_csv, training_json, training_text
from ..topology import Topology
from ..training import (
    NETWORKS,
    Bucket,
    Network,
    Speed,
    StepTimes,
    gradient_buckets,
    network_named,
    published_speed,
    step_times,
)
from ..training.buckets import BUCKET_BYTES
from .comparison import baseline_timing, our_timing
from .options import read_size
from .progress import tracked
from .sweep import allocation_classes


def training_report(
    topology: Topology, sweep: bool, model: str, bucket: str | None, speed: tuple[float | None, int | None], baselines: Sequence[str], as_json: bool, as_csv: bool
) -> str:
    """The step's times on the GPUs named, or on every class of allocations, as a table, JSON or CSV."""
    if model not in NETWORKS:
        raise typer.BadParameter(f"{model!r}: one of {', '.join(NETWORKS)}", param_hint="--model")
    images_s, batch = speed
    if images_s is not None and not images_s > 0:
        raise typer.BadParameter("a speed is positive", param_hint="--images-per-second")
    network = network_named(model)
    buckets = gradient_buckets(network, BUCKET_BYTES if bucket is None else read_size(bucket, "--bucket"))
    published = published_speed(model, topology.devices[0].arch, images_s, batch)
    parts = allocation_classes(topology) if sweep else [topology]
    steps = [_step(part, network, buckets, published, baselines) for part in tracked(parts, f"training {model}", len(parts))]
    if as_json:
        return json.dumps(training_json(topology, network, buckets, published, steps), indent=1)
    return training_csv(network, steps) if as_csv else training_text(topology, network, buckets, published, steps)


def _step(topology: Topology, network: Network, buckets: Sequence[Bucket], speed: Speed, baselines: Sequence[str]) -> Step:
    def timed(allreduce_us: Callable[[int], float]) -> Callable[[int], float]:
        return lru_cache(maxsize=None)(allreduce_us)

    plan = make_plan(topology, "allreduce")
    ours = step_times(network, buckets, speed.step_us, timed(lambda nbytes: our_timing(plan, nbytes).time_us))
    theirs: dict[str, StepTimes | None] = {}
    for name in baselines:
        def of_baseline(nbytes: int, name: str = name) -> float:
            return baseline_timing(name, plan, nbytes).time_us

        try:
            theirs[name] = step_times(network, buckets, speed.step_us, timed(of_baseline))
        except SimulationError:
            theirs[name] = None
    return Step(topology, ours, theirs)
