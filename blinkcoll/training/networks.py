"""The networks of Blink's training experiments, layer by layer: parameters of each tensor, multiplications of each image.

Shapes are those of the papers in the form that torchvision runs, for images of 224 x 224 and 1000 classes: AlexNet with one
column (Krizhevsky, arXiv 1404.5997), VGG16 (Simonyan and Zisserman, arXiv 1409.1556, configuration D), ResNet-18 and
ResNet-50 (He, Zhang, Ren and Sun, arXiv 1512.03385; stride in the 3 x 3 convolution). Nothing is a total written down:
all counts follow from the shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import SimulationError


@dataclass(frozen=True)
class Layer:
    """A layer with parameters.

    Parameters
    ----------
    name
        As torchvision would call it.
    tensors
        Elements of each parameter tensor, weight before bias.
    multiplications
        Multiply-adds that an image takes forward.
    """

    name: str
    tensors: tuple[int, ...]
    multiplications: int

    @property
    def parameters(self) -> int:
        """Elements of all its tensors."""
        return sum(self.tensors)


@dataclass(frozen=True)
class Network:
    """Layers in forward order."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiplications(self) -> int:
        """Multiply-adds that an image takes forward, in layers with parameters."""
        return sum(layer.multiplications for layer in self.layers)


def _conv(name: str, into: int, out: int, kernel: int, side: int, bias: bool = True) -> Layer:
    """A square convolution whose output is ``side`` x ``side``."""
    weight = out * into * kernel * kernel
    return Layer(name, (weight, out) if bias else (weight,), weight * side * side)


def _norm(name: str, channels: int, side: int) -> Layer:
    """Batch normalisation: a scale and a shift a channel."""
    return Layer(name, (channels, channels), channels * side * side)


def _linear(name: str, into: int, out: int) -> Layer:
    return Layer(name, (out * into, out), out * into)


def _alexnet() -> list[Layer]:
    convolutions = [(3, 64, 11, 55), (64, 192, 5, 27), (192, 384, 3, 13), (384, 256, 3, 13), (256, 256, 3, 13)]
    layers = [_conv(f"conv{i}", *shape) for i, shape in enumerate(convolutions, 1)]
    return [*layers, _linear("fc1", 256 * 6 * 6, 4096), _linear("fc2", 4096, 4096), _linear("fc3", 4096, 1000)]


def _vgg16() -> list[Layer]:
    layers, into, side = [], 3, 224
    for block, (channels, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for i in range(1, depth + 1):
            layers.append(_conv(f"conv{block}_{i}", into, channels, 3, side))
            into = channels
        side //= 2  # a pooling ends each block
    return [*layers, _linear("fc1", 512 * 7 * 7, 4096), _linear("fc2", 4096, 4096), _linear("fc3", 4096, 1000)]


def _resnet(depths: tuple[int, ...], block: Callable[[str, int, int, int, int], list[Layer]], expansion: int) -> list[Layer]:
    layers = [_conv("conv1", 3, 64, 7, 112, bias=False), _norm("bn1", 64, 112)]
    into, side = 64, 56
    for stage, depth in enumerate(depths, 1):
        width = 64 << (stage - 1)
        for i in range(depth):
            before = side
            if stage > 1 and i == 0:
                side //= 2
            layers += block(f"layer{stage}.{i}", into, width, before, side)
            if into != width * expansion:
                layers += [
                    _conv(f"layer{stage}.{i}.downsample", into, width * expansion, 1, side, bias=False),
                    _norm(f"layer{stage}.{i}.downsample.bn", width * expansion, side),
                ]
            into = width * expansion
    return [*layers, _linear("fc", into, 1000)]


def _basic(name: str, into: int, width: int, before: int, side: int) -> list[Layer]:
    """Two 3 x 3 convolutions; the first has the stride."""
    del before
    return [
        _conv(f"{name}.conv1", into, width, 3, side, bias=False), _norm(f"{name}.bn1", width, side),
        _conv(f"{name}.conv2", width, width, 3, side, bias=False), _norm(f"{name}.bn2", width, side),
    ]  # fmt: skip


def _bottleneck(name: str, into: int, width: int, before: int, side: int) -> list[Layer]:
    """1 x 1, 3 x 3 (with the stride), 1 x 1 to four times the width."""
    return [
        _conv(f"{name}.conv1", into, width, 1, before, bias=False), _norm(f"{name}.bn1", width, before),
        _conv(f"{name}.conv2", width, width, 3, side, bias=False), _norm(f"{name}.bn2", width, side),
        _conv(f"{name}.conv3", width, 4 * width, 1, side, bias=False), _norm(f"{name}.bn3", 4 * width, side),
    ]  # fmt: skip


NETWORKS: dict[str, Callable[[], list[Layer]]] = {
    "alexnet": _alexnet,
    "vgg16": _vgg16,
    "resnet18": lambda: _resnet((2, 2, 2, 2), _basic, 1),
    "resnet50": lambda: _resnet((3, 4, 6, 3), _bottleneck, 4),
}


def network_named(name: str) -> Network:
    """The network of that name.

    Raises
    ------
    SimulationError
        Where there is none.

    Examples
    --------
    >>> network_named("resnet50").parameters
    25557032
    """
    if name not in NETWORKS:
        raise SimulationError(f"no network is called {name!r}; known: {', '.join(NETWORKS)}")
    return Network(name, tuple(NETWORKS[name]()))
