import json
import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkcoll.errors import TopologyError
from blinkcoll.topology import (
    Device,
    GpuIndex,
    Link,
    PciBusId,
    Switch,
    Topology,
    Uuid,
    exact,
    layout_names,
    load_layout,
)


def pair(a, b, capacity=1, kind="NVLINK"):
    return Link(a, b, kind, Fraction(capacity)), Link(b, a, kind, Fraction(capacity))


def gpus(n):
    return tuple(Device(f"gpu{i}", index=GpuIndex(i)) for i in range(n))


def test_fingerprint_does_not_depend_on_the_order_of_links_and_switches():
    topology = load_layout("dgx2")
    random.seed(7)
    for _ in range(3):
        links, switches = list(topology.links), list(topology.switches)
        random.shuffle(links)
        random.shuffle(switches)
        assert replace(topology, links=tuple(links), switches=tuple(switches)).fingerprint == topology.fingerprint


def test_fingerprint_depends_on_ranks_and_rates_but_not_on_identities():
    topology = load_layout("dgx1-v100")
    swapped = replace(topology, devices=(topology.devices[1], topology.devices[0], *topology.devices[2:]))
    slower = replace(topology, links=(replace(topology.links[0], capacity=Fraction(19)), *topology.links[1:]))
    other = replace(topology, devices=tuple(replace(d, uuid=Uuid(f"GPU-{d.name}"), bus_id=PciBusId("1:0")) for d in topology.devices))
    assert swapped.fingerprint != topology.fingerprint
    assert slower.fingerprint != topology.fingerprint
    assert replace(other, name="another", notes=("seen",)).fingerprint == topology.fingerprint


@pytest.mark.parametrize("name", layout_names())
def test_json_gives_back_what_was_written(name):
    topology = load_layout(name)
    again = Topology.from_json(topology.to_json())
    assert again == topology
    assert again.fingerprint == topology.fingerprint == json.loads(topology.to_json())["fingerprint"]


def test_json_keeps_identities_notes_and_thirds():
    device = Device("gpu0", index=GpuIndex(3), bus_id=PciBusId("0000:3B:00.0"), uuid=Uuid("GPU-1"), model="A", arch="sm_70")
    topology = Topology("t", (device, *gpus(5)[4:]), (), pair("gpu0", "gpu4", "1/3"), notes=("n",), no_peer_access=(("gpu0", "gpu4"),))
    again = Topology.from_json(topology.to_json())
    assert again == topology
    assert again.notes == ("n",)
    assert type(again.devices[0].bus_id) is PciBusId
    assert type(again.devices[0].uuid) is Uuid


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"schema": 9}, "schema"),
        ({"devices": []}, "no device"),
        ({"devices": {}}, "expected a list"),
        ({"devices": [{"name": "a", "colour": "red"}]}, "colour"),
        ({"devices": [{"index": 1}]}, "'name' is missing"),
        ({"devices": [{"name": None}]}, "'name' is missing"),
        ({"devices": [{"name": "a"}, {"name": "b"}], "links": [{"src": "a", "dst": "b", "kind": "NVLINK", "capacity": None}]}, "'capacity' is missing"),
        ({"devices": [{"name": ["a"]}]}, "expected printable text"),
        ({"devices": [{"name": "a", "index": "first"}]}, "expected an int"),
        ({"devices": [{"name": "a", "bus_id": "nowhere"}]}, "bus id"),
        ({"devices": [{"name": "a"}, {"name": "a"}]}, "two vertices"),
        ({"links": [{"src": "a", "dst": "b", "kind": "NVLINK", "capacity": 1}]}, "no device or switch"),
        ({"links": [{"src": "a", "dst": "a", "kind": "NVLINK", "capacity": 1}]}, "itself"),
        ({"links": [{"src": "a", "dst": "a", "kind": "NVLINK", "capacity": "1e999999999"}]}, "capacity"),
        ({"switches": [{"name": "s", "kind": "toaster"}]}, "toaster"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_json_errors_name_the_field(change, expected):
    body = {"schema": 1, "name": "t", "devices": [{"name": "a"}], "links": []}
    with pytest.raises(TopologyError, match=r"here.json|topology t") as caught:
        Topology.from_json(json.dumps({**body, **change}), "here.json")
    assert expected in str(caught.value)


def test_deep_json_is_refused():
    with pytest.raises(TopologyError, match="not JSON"):
        Topology.from_json("[" * 100_000)


@given(st.fractions(min_value=Fraction(1, 10**9), max_value=10**9, max_denominator=10**20))
def test_exact_reads_back_every_rational(value):
    assert exact(f"{value.numerator}/{value.denominator}") == value


@pytest.mark.parametrize("value", ["", "1/0", "fast", "nan", "inf", "1e1000", "9" * 100, True, None, [], float("inf")])
def test_exact_refuses_what_is_no_rate(value):
    with pytest.raises(TopologyError):
        exact(value)


def test_decimal_means_what_is_written():
    assert exact(0.1) == exact("0.1") == Fraction(1, 10)
    assert exact("2e1") == 20


@pytest.mark.parametrize(
    ("text", "normal"),
    [("00000000:3B:00.0", "0000:3b:00.0"), ("3b:00.0", "0000:3b:00.0"), ("0001:00:00", "0001:00:00.0"), ("10000:e1:00.0", "10000:e1:00.0")],
)
def test_bus_ids_are_normalised(text, normal):
    assert PciBusId(text) == normal


@pytest.mark.parametrize("text", ["", "gpu0", "fffffff:ffff:ff", "0000:00:00:0.0", "0000:3b:00.9"])
def test_what_is_no_bus_id_is_refused(text):
    with pytest.raises(TopologyError):
        PciBusId(text)


def test_a_device_is_found_by_index_bus_id_uuid_and_name():
    topology = load_layout("dgx1-v100")
    device = replace(topology.devices[3], uuid=Uuid("GPU-abc"), bus_id=PciBusId("0a:00.0"))
    topology = replace(topology, devices=(*topology.devices[:3], device, *topology.devices[4:]))
    assert {topology.device(ref).name for ref in (3, "gpu3", "GPU-abc", "0000:0A:00.0")} == {"gpu3"}


def test_rank_is_the_position_and_index_stays():
    topology = load_layout("dgx1-v100").subset([4, 0, 1])
    assert [d.index for d in topology.devices] == [4, 0, 1]
    assert topology.vertex("gpu4") == 0
    assert topology.parent is not None
    assert topology.parent.nranks == 8


def test_a_subset_refuses_repeats_and_strangers():
    topology = load_layout("dgx1-v100")
    for wrong in ([0, 0], [9], []):
        with pytest.raises(TopologyError):
            topology.subset(wrong)


def test_restrict_drops_switches_that_lead_nowhere():
    fast = load_layout("hgx-h100").restrict(["NVLINK"])
    assert [s.name for s in fast.switches] == ["nvswitch"]
    assert {k.kind for k in fast.links} == {"NVLINK"}


def test_intel_root_complexes_cost_a_sixth_of_peer_traffic():
    assert Switch("c", "cpu", vendor="GenuineIntel").p2p_efficiency == Fraction(5, 6)
    assert Switch("c", "cpu", vendor="AuthenticAMD").p2p_efficiency == 1
