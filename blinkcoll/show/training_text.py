"""Training steps as a table, JSON and CSV: communication and iteration, with blinkcoll and with others."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

from .. import __version__
from ..topology import Topology
from ..training import Bucket, Network, Speed, StepTimes
from .numbers import count, size_text

SCHEMA = 1
_COLUMNS = ("gpus", "model", "library", "compute_us", "communication_us", "iteration_us")


@dataclass(frozen=True)
class Step:
    """A step on one set of GPUs; ``theirs`` is None where a baseline has no program for a bucket."""

    topology: Topology
    ours: StepTimes
    theirs: Mapping[str, StepTimes | None]


def training_text(topology: Topology, network: Network, buckets: Sequence[Bucket], speed: Speed, steps: Sequence[Step]) -> str:
    """A line a set of GPUs: times in ms, and what blinkcoll takes off a baseline's communication and iteration."""
    names = list(steps[0].theirs)
    width = max(6, *(len(_gpus(step.topology)) for step in steps))
    lines = [
        f"# blinkcoll {__version__} training step of {network.name}: SIMULATED communication, published computing times; not measured",
        f"# topology {topology.name}, fingerprint {topology.fingerprint}",
        f"# {network.name}: {network.parameters} parameters, {count(len(buckets), 'bucket')} of float32 gradients, {size_text(max(b.nbytes for b in buckets))} at most",
        f"# computing: {speed.step_us / 1e3:.1f} ms a step of {speed.batch} images a GPU, {speed.images_s:g} images/s: {speed.source}",
        "#",
        *_columns(names, width),
    ]
    for step in steps:
        beside = "".join(_beside(step.ours, theirs) for theirs in step.theirs.values())
        lines.append(f"{_gpus(step.topology):<{width}} {step.ours.communication_us / 1e3:>8.2f} {step.ours.iteration_us / 1e3:>8.2f}{beside}")
    lines += [_summary(name, steps) for name in names]
    return "\n".join([*lines, "# the paper        : communication up to -87 %, iteration up to -40 %, against the NCCL of 2019 and measured"])


def _columns(names: Sequence[str], width: int) -> list[str]:
    peers = "".join(f"  {name[:10]:>10} {'':>7} {'':>7} {'':>7}" for name in names)
    units = "".join(f"  {'comm (ms)':>10} {'less':>7} {'step':>7} {'less':>7}" for _ in names)
    return [
        f"{'# GPUs':<{width}} {'comm':>8} {'step':>8}{peers}".rstrip(),
        f"{'#':<{width}} {'(ms)':>8} {'(ms)':>8}{units}".rstrip(),
    ]


def _beside(ours: StepTimes, theirs: StepTimes | None) -> str:
    if theirs is None:
        return f"  {'-':>10} {'-':>7} {'-':>7} {'-':>7}"
    return (
        f"  {theirs.communication_us / 1e3:>10.2f} {_less(ours.communication_us, theirs.communication_us):>6.1f}% "
        f"{theirs.iteration_us / 1e3:>7.2f} {_less(ours.iteration_us, theirs.iteration_us):>6.1f}%"
    )


def _less(ours: float, theirs: float) -> float:
    """By how many per cent ours differs."""
    return (ours / theirs - 1) * 100


def _summary(name: str, steps: Sequence[Step]) -> str:
    pairs = [(step.ours, theirs) for step in steps if (theirs := step.theirs[name]) is not None]
    if not pairs:
        return f"# against {name:<11}: it has no program here"
    communication = min(_less(ours.communication_us, theirs.communication_us) for ours, theirs in pairs)
    iteration = min(_less(ours.iteration_us, theirs.iteration_us) for ours, theirs in pairs)
    mean_communication = sum(_less(ours.communication_us, theirs.communication_us) for ours, theirs in pairs) / len(pairs)
    mean_iteration = sum(_less(ours.iteration_us, theirs.iteration_us) for ours, theirs in pairs) / len(pairs)
    return (
        f"# against {name:<11}: communication {communication:+.1f} % at best, {mean_communication:+.1f} % on average; "
        f"iteration {iteration:+.1f} % at best, {mean_iteration:+.1f} % on average"
    )


def training_json(topology: Topology, network: Network, buckets: Sequence[Bucket], speed: Speed, steps: Sequence[Step]) -> dict[str, Any]:
    """The model, its buckets, the computing time with its source, and a row a set of GPUs and library; times in µs."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "topology": {"name": topology.name, "fingerprint": topology.fingerprint},
        "simulated": True,
        "model": {"name": network.name, "parameters": network.parameters, "buckets": [b.nbytes for b in buckets]},
        "computing": asdict(speed) | {"step_us": speed.step_us},
        "rows": _rows(network, steps),
    }


def training_csv(network: Network, steps: Sequence[Step]) -> str:
    """A line a set of GPUs and library."""
    text = StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "gpus": " ".join(map(str, row["gpus"]))} for row in _rows(network, steps))
    return text.getvalue().rstrip("\n")


def _rows(network: Network, steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [
        {"gpus": [d.index for d in step.topology.devices], "model": network.name, "library": name} | asdict(times)
        for step in steps
        for name, times in (("blinkcoll", step.ours), *step.theirs.items())
        if times is not None
    ]


def _gpus(topology: Topology) -> str:
    return ",".join(str(d.index if d.index is not None else d.name) for d in topology.devices)
