"""How fast one GPU trains, as others have published it: float32, one GPU, images of 224 x 224."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SimulationError


@dataclass(frozen=True)
class Speed:
    """Images a second of one GPU with ``batch`` images a step, and who measured it."""

    images_s: float
    batch: int
    source: str

    @property
    def step_us(self) -> float:
        """Forward and backward pass of a step, µs."""
        return self.batch / self.images_s * 1e6


_TF = "P100 of a DGX-1, TensorFlow, May 2017 (tensorflow/docs_src/performance/benchmarks.md, synthetic data)"
_TORCH = "V100 of an Amazon P3, Torch, cuDNN 7.0 (dmikushin/cnn-benchmarks at 1a67201, README: forward and backward)"

#: By architecture and network. P100: one GPU's line of the table. V100: 16 images over the total of forward and backward
#: in ms (AlexNet there is Caffe's, with grouped convolutions).
PUBLISHED = {
    ("sm_60", "alexnet"): Speed(2987.0, 512, _TF),
    ("sm_60", "vgg16"): Speed(154.0, 64, _TF),
    ("sm_60", "resnet50"): Speed(219.0, 64, _TF),
    ("sm_70", "alexnet"): Speed(round(16 / 9.85e-3, 1), 16, _TORCH),
    ("sm_70", "vgg16"): Speed(round(16 / 76.45e-3, 1), 16, _TORCH),
    ("sm_70", "resnet18"): Speed(round(16 / 20.32e-3, 1), 16, _TORCH),
    ("sm_70", "resnet50"): Speed(round(16 / 66.09e-3, 1), 16, _TORCH),
}


def published_speed(network: str, arch: str, images_s: float | None = None, batch: int | None = None) -> Speed:
    """The speed of an architecture's GPUs with a network, or the caller's.

    Parameters
    ----------
    images_s
        The caller's own figure, instead of the published one; needs ``batch``.
    batch
        Images a step: where the published speed is kept, it is taken to hold for this batch, too.

    Raises
    ------
    SimulationError
        Where nothing is published here and the caller has none.
    """
    if images_s is not None:
        if batch is None:
            raise SimulationError(f"{network} at {images_s:g} images/s: how many images a step? Give a batch")
        return Speed(images_s, batch, "as given")
    known = PUBLISHED.get((arch, network))
    if known is None:
        has = ", ".join(sorted(f"{n} on {a}" for a, n in PUBLISHED))
        raise SimulationError(f"no training speed of {network} on {arch or 'this device'} is known here (there is {has}); give --images-per-second and --batch")
    return known if batch is None else Speed(known.images_s, batch, f"{known.source}; there with {known.batch} images")
