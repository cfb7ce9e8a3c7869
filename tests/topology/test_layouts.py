"""Facts about every layout, written down here a second time from the machines' public descriptions."""

from fractions import Fraction
from pathlib import Path

import pytest

from blinkcoll.errors import TopologyError
from blinkcoll.topology import distance, lanes_per_device, layout_names, load_layout, load_topology, pcie_distance
from blinkcoll.topology.layouts import parse_layout

# name: GPUs, kind of fast link, lanes a GPU, GB/s a lane, PCIe distances of GPU0 to every GPU, CPUs, NICs
FACTS = {
    "dgx1-p100": (8, "NVLINK", 4, "18", "X PIX PHB PHB SYS SYS SYS SYS", 2, 4),
    "dgx1-v100": (8, "NVLINK", 6, "20", "X PIX PHB PHB SYS SYS SYS SYS", 2, 4),
    "ndv2": (8, "NVLINK", 6, "20", "X NODE NODE NODE SYS SYS SYS SYS", 2, 1),
    "dgx2": (16, "NVLINK", 6, "20", "X PIX PXB PXB" + " NODE" * 4 + " SYS" * 8, 2, 8),
    "dgx-a100": (8, "NVLINK", 12, "20", "X PXB SYS SYS SYS SYS SYS SYS", 4, 8),
    "hgx-h100": (8, "NVLINK", 18, "20.6", "X NODE NODE NODE SYS SYS SYS SYS", 2, 8),
    "hgx-h200": (8, "NVLINK", 18, "20.6", "X NODE NODE NODE SYS SYS SYS SYS", 2, 8),
    "hgx-b200": (8, "NVLINK", 18, "40.1", "X NODE NODE NODE SYS SYS SYS SYS", 2, 8),
    "gb200-nvl72": (72, "NVLINK", 18, "40.1", "X PHB SYS SYS" + " -" * 68, 36, 0),
    "mi250x": (16, "XGMI", 7, "36", "X PXB PXB PXB" + " SYS" * 12, 4, 8),
    "mi300x": (8, "XGMI", 7, "48", "X NODE NODE NODE SYS SYS SYS SYS", 2, 8),
    "ac922": (4, "NVLINK", 3, "20", "X PHB SYS SYS", 2, 2),
    "a100-pcie-nvbridge": (8, "NVLINK", 12, "20", "X NODE NODE NODE SYS SYS SYS SYS", 2, 0),
    "a6000-nvbridge": (4, "NVLINK", 4, "12", "X NODE NODE NODE", 1, 0),
    "rtx4090x8": (8, "PCIE", 16, "3/2", "X PXB PXB PXB SYS SYS SYS SYS", 2, 0),
    "l40sx8": (8, "PCIE", 16, "3/2", "X PIX NODE NODE SYS SYS SYS SYS", 2, 4),
    "h100-pcie-4": (4, "PCIE", 16, "3", "X NODE SYS SYS", 2, 0),
    "host": (16, "SHM", 1, "10", "X" + " PHB" * 15, 1, 0),
}

# What channels' stores reach, GB/s a lane: (kind, planning rate a lane) to measured rate a lane; copy engines reach more.
MEASURED = {
    "dgx1-p100": {("NVLINK", "18"): "17.46", ("PCIE", "3/4"): "0.6625", ("CPU", "6"): "5.6"},
    "dgx1-v100": {("NVLINK", "20"): "22.9"},
    "ndv2": {("NVLINK", "20"): "22.9"},
    "dgx2": {("NVLINK", "20"): "22.9"},
    "ac922": {("NVLINK", "20"): "22.9"},
    "dgx-a100": {("NVLINK", "20"): "19.2"},
    "a100-pcie-nvbridge": {("NVLINK", "20"): "17.3"},
    "hgx-h100": {("NVLINK", "20.6"): "20.41"},
    "hgx-h200": {("NVLINK", "20.6"): "20.41"},
    "mi300x": {("XGMI", "48"): "47.67"},
    "rtx4090x8": {("PCIE", "3/2"): "183/160"},
}


def own_names():
    return sorted({load_layout(name).name for name in layout_names()})


def test_every_layout_has_its_facts_written_down_here():
    assert own_names() == sorted(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_measured_rates(name):
    measured = [k for k in load_layout(name).links if k.measured_gb_s is not None]
    found = {(k.kind, k.capacity / k.lanes, k.measured_gb_s / k.lanes) for k in measured}
    assert found == {(kind, Fraction(planned), Fraction(rate)) for (kind, planned), rate in MEASURED.get(name, {}).items()}


@pytest.mark.parametrize("name", FACTS)
def test_layout_is_the_machine_that_its_sources_describe(name):
    gpus, kind, lanes, rate, distances, cpus, nics = FACTS[name]
    topology = load_layout(name)
    assert topology.nranks == gpus
    assert [d.index for d in topology.devices] == list(range(gpus))
    assert topology.kinds()[0] == kind
    found = lanes_per_device(topology, kind)
    assert {n for n, _ in found.values()} == {lanes}
    assert all(capacity == n * Fraction(rate) for n, capacity in found.values())
    first = topology.devices[0].name
    assert [pcie_distance(topology, first, d.name) for d in topology.devices] == distances.split()
    assert sum(s.kind == "cpu" for s in topology.switches) == cpus
    assert sum(s.kind == "nic" for s in topology.switches) == nics


@pytest.mark.parametrize("name", FACTS)
def test_every_wire_of_a_layout_has_two_equal_directions(name):
    topology = load_layout(name)
    there = {(k.src, k.dst, k.kind): (k.capacity, k.lanes) for k in topology.links}
    assert len(there) == len(topology.links), "a pair is wired twice"
    assert all(there[dst, src, kind] == numbers for (src, dst, kind), numbers in there.items())


@pytest.mark.parametrize("name", [n for n, facts in FACTS.items() if n != "gb200-nvl72"])
def test_every_gpu_of_a_server_reaches_every_other(name):
    topology = load_layout(name)
    assert all(pcie_distance(topology, a.name, b.name) not in ("-", "NET") for a in topology.devices for b in topology.devices)


@pytest.mark.parametrize(
    ("name", "lanes"),
    [("dgx1-v100", {1: 8, 2: 8}), ("ndv2", {1: 8, 2: 8}), ("dgx1-p100", {1: 16}), ("mi250x", {4: 8, 2: 4, 1: 16}), ("mi300x", {1: 28})],
)
def test_wired_pairs_and_their_lanes(name, lanes):
    fast = [k for k in load_layout(name).links if k.kind in ("NVLINK", "XGMI") and k.src < k.dst]
    assert {n: sum(k.lanes == n for k in fast) for n in {k.lanes for k in fast}} == lanes


@pytest.mark.parametrize(("name", "sharp"), [("dgx2", False), ("dgx-a100", False), ("hgx-h100", True), ("hgx-b200", True), ("gb200-nvl72", True)])
def test_nvswitch_joins_all_and_reduces_from_hopper_on(name, sharp):
    topology = load_layout(name)
    (switch,) = [s for s in topology.switches if s.kind == "nvswitch"]
    assert (switch.multicast, switch.reduce) == (sharp, sharp)
    into = {k.src for k in topology.links if k.dst == switch.name}
    assert into == {d.name for d in topology.devices}


@pytest.mark.parametrize(
    ("name", "row"),
    [("dgx1-v100", "X NV1 NV1 NV2 NV2 SYS SYS SYS"), ("dgx1-p100", "X NV1 NV1 NV1 NV1 SYS SYS SYS"), ("ac922", "X NV3 SYS SYS")],
)
def test_first_row_is_what_nvidia_smi_prints(name, row):
    topology = load_layout(name)
    assert [distance(topology, "gpu0", d.name) for d in topology.devices] == row.split()


def test_gpus_of_a_4090_box_refuse_each_other():
    topology = load_layout("rtx4090x8")
    assert len(topology.no_peer_access) == 8 * 7
    assert len(topology.subset([0, 5]).no_peer_access) == 2


def test_alias_names_the_same_machine():
    assert load_topology("p3.16xlarge") == load_topology("dgx1-v100")


def test_unknown_layout_lists_the_known_ones():
    with pytest.raises(TopologyError, match="hgx-h100"):
        load_layout("dgx-9000")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not toml at all [", "not TOML"),
        ("schema = 2", "schema 1"),
        ('schema = 1\nname = "x"', "gpus"),
        ('schema = 1\nname = "x"\n[gpus]\ncount = 0', "count is 0"),
        ('schema = 1\nname = "x"\n[gpus]\ncount = 2\n[class.a]\nkind = "NVLINK"\ncapacity = "fast"\n[[wires]]\nclass = "a"\nbetween = [[0, 1]]', "fast"),
        ('schema = 1\nname = "x"\n[gpus]\ncount = 2\n[class.a]\nkind = "NVLINK"\ncapacity = 1\n[[wires]]\nclass = "a"\nbetween = [[0, 7]]', "malformed"),
        ('schema = 1\nname = "x"\n[gpus]\ncount = 2\n[class.a]\nkind = "NVLINK"\ncapacity = 1\n[[wires]]\nclass = "a"\nbetween = [[0, "b"]]', "'b'"),
        ('schema = 1\nname = "x"\n[gpus]\ncount = 2\n[class.a]\nkind = "WIRE"\ncapacity = 1\n[[wires]]\nclass = "a"\nbetween = [[0, 1]]', "WIRE"),
        ('schema = 1\nname = "x"\n[gpus]\ncount = 2\n[class.a]\nkind = "NVLINK"\ncapacity = -1\n[[wires]]\nclass = "a"\nbetween = [[0, 1]]', "> 0"),
    ],
)
def test_broken_layout_is_refused_with_its_place(text, expected):
    with pytest.raises(TopologyError, match=r"some\.toml") as caught:
        parse_layout(text, "some.toml")
    assert expected in str(caught.value)


def test_the_page_on_topologies_names_every_layout():
    page = Path(__file__).resolve().parents[2] / "docs" / "topologies.md"
    text = page.read_text(encoding="utf-8")
    assert [name for name in own_names() if f"`{name}`" not in text] == []
