"""The training model: counts from shapes, buckets as DDP's, and a timeline with known limits."""

from __future__ import annotations

import pytest

from blinkcoll.errors import SimulationError
from blinkcoll.training import NETWORKS, gradient_buckets, network_named, published_speed, step_times

#: torchvision's documentation of the models' weights: num_params.
PARAMETERS = {"alexnet": 61_100_840, "vgg16": 138_357_544, "resnet18": 11_689_512, "resnet50": 25_557_032}
#: Billions of multiply-adds an image, from the same place (GFLOPS there).
GIGA = {"alexnet": 0.71, "vgg16": 15.47, "resnet18": 1.81, "resnet50": 4.09}


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_follow_from_shapes(name):
    network = network_named(name)
    assert network.parameters == PARAMETERS[name]
    assert network.multiplications / 1e9 == pytest.approx(GIGA[name], rel=0.01)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bucket_bytes", [1, 1 << 20, 25 << 20, 1 << 40])
def test_buckets_hold_every_gradient_once_in_backward_order(name, bucket_bytes):
    network = network_named(name)
    buckets = gradient_buckets(network, bucket_bytes)
    assert sum(b.nbytes for b in buckets) == 4 * network.parameters
    places = [b.last_layer for b in buckets]
    assert places == sorted(places, reverse=True) and places[-1] == 0
    assert all(b.nbytes >= bucket_bytes for b in buckets[1:-1])
    if bucket_bytes == 1:
        assert len(buckets) == sum(len(layer.tensors) for layer in network.layers)


def test_the_first_bucket_is_small():
    first, second, *_ = gradient_buckets(network_named("resnet50"))
    assert 1 << 20 <= first.nbytes < second.nbytes and second.nbytes >= 25 << 20


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("overlap", [True, False])
def test_free_communication_costs_computing_alone(name, overlap):
    network = network_named(name)
    times = step_times(network, gradient_buckets(network), 1000.0, lambda nbytes: 0.0, overlap)
    assert times.iteration_us == pytest.approx(1000.0) and times.communication_us == 0 and times.exposed_us == pytest.approx(0)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_overlap_times_add_up(name):
    network = network_named(name)
    times = step_times(network, gradient_buckets(network), 1000.0, lambda nbytes: nbytes / 1e4, overlap=False)
    assert times.communication_us == pytest.approx(4 * network.parameters / 1e4)
    assert times.iteration_us == pytest.approx(1000.0 + times.communication_us)


@pytest.mark.parametrize("name", NETWORKS)
def test_overlap_hides_some_and_never_more_than_all(name):
    network = network_named(name)
    buckets = gradient_buckets(network)
    for rate in (1e2, 1e3, 1e4, 1e5):
        together = step_times(network, buckets, 20_000.0, lambda nbytes, rate=rate: nbytes / rate)
        apart = step_times(network, buckets, 20_000.0, lambda nbytes, rate=rate: nbytes / rate, overlap=False)
        last = buckets[-1].nbytes / rate
        assert max(20_000.0, together.communication_us) <= together.iteration_us <= apart.iteration_us
        assert together.iteration_us >= 20_000.0 + last - 1e-6, "the last bucket is complete when the backward pass ends"


def test_speeds_are_published_or_the_callers():
    known = published_speed("resnet50", "sm_60")
    assert known.step_us == pytest.approx(64 / 219 * 1e6) and "TensorFlow" in known.source
    assert published_speed("resnet50", "sm_60", batch=32).step_us == pytest.approx(32 / 219 * 1e6)
    assert published_speed("resnet18", "sm_90", images_s=1000.0, batch=8).step_us == pytest.approx(8000)
    with pytest.raises(SimulationError, match="no training speed of resnet18 on sm_60"):
        published_speed("resnet18", "sm_60")
    with pytest.raises(SimulationError, match="batch"):
        published_speed("resnet18", "sm_90", images_s=1000.0)
    with pytest.raises(SimulationError, match="no network"):
        network_named("lenet")
