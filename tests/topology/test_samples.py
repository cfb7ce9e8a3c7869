"""Every dump of the sample folder is the machine that its source says, or refused for the right reason."""

import os
from collections import Counter
from pathlib import Path

import pytest

from blinkcoll.errors import TopologyError
from blinkcoll.topology import distance, lanes_per_device, load_layout, load_topology, pcie_distance

SAMPLES = os.environ.get("BLINKCOLL_TOPO_SAMPLES", "")
needs_samples = pytest.mark.skipif(not Path(SAMPLES).is_dir() or not SAMPLES, reason="BLINKCOLL_TOPO_SAMPLES names no folder")

# devices, {kind: wires}, {lanes of the fast kind a device}, PCIe distances of the first device, words in the notes
GOOD = {
    "hwloc_xml/nvidiaDGX2.xml": (16, {"NVLINK": 16}, {6}, "X PIX PXB PXB" + " NODE" * 4 + " SYS" * 8, []),
    "nccl_xml/gvisor_8xb200_per_gpu_nic_topo.xml": (8, {"NVLINK": 8}, {18}, "X PHB PHB PHB SYS SYS SYS SYS", ["126", "line 14"]),
    "nccl_xml/panlichen_topo.xml": (8, {}, set(), "X PIX PIX PIX SYS SYS SYS SYS", []),
    "nccl_xml/simai_topo_4A100_2CX6.xml": (4, {"NVLINK": 4}, {12}, "X PXB PHB PHB", []),
    "nccl_xml/simai_topo_8A100_4CX6.xml": (8, {"NVLINK": 8}, {12}, "X PXB PHB PHB SYS SYS SYS SYS", []),
    "nccl_xml_cloud/aws_p4d-24xl-topo.xml": (8, {}, set(), "X PIX PHB PHB SYS SYS SYS SYS", ["no numbers"]),
    "nccl_xml_cloud/azure_ncv4-topo.xml": (4, {}, set(), "X SYS SYS SYS", ["12 links to itself", "generation 3"]),
    "nccl_xml_cloud/azure_ndv2-topo.xml": (8, {}, set(), "X PHB PHB PHB SYS SYS SYS SYS", ["no numbers"]),
    "rccl_xml/topo_16p1h.xml": (16, {"XGMI": 28}, {7}, "X PXB PXB PXB" + " SYS" * 12, []),
    "rccl_xml/topo_3p_pcie_1.xml": (3, {}, set(), "X SYS SYS", []),
    "rccl_xml/topo_4p2h.xml": (8, {"XGMI": 8}, {2}, "X PXB PXB PXB PHB PHB PHB PHB", []),
    "rccl_xml/topo_4p3l.xml": (4, {"XGMI": 6}, {3}, "X PXB PXB PXB", []),
    "rccl_xml/topo_4p3l_n2.xml": (8, {"XGMI": 12}, {3}, "X SYS SYS SYS SYS SYS SYS SYS", []),
    "rccl_xml/topo_4p4h.xml": (16, {"XGMI": 24}, {3}, "X" + " PXB" * 7 + " PHB" * 8, []),
    "rccl_xml/topo_8p1h_1.xml": (8, {"XGMI": 12}, {6, 7}, "X PXB PHB PHB SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p1h_4.xml": (8, {"XGMI": 12}, {6, 7}, "X PXB PHB PHB SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p6l.xml": (8, {"XGMI": 24}, {6}, "X PHB PHB PHB SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p6l_3nic.xml": (8, {"XGMI": 24}, {6}, "X PHB PHB PHB SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p6l_6nic.xml": (8, {"XGMI": 24}, {6}, "X PHB PHB PHB SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p_90a_1.xml": (8, {"XGMI": 12}, {3}, "X PHB SYS SYS SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p_940.xml": (8, {"XGMI": 28}, {7}, "X PHB PHB PHB SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p_pcie.xml": (8, {}, set(), "X PXB PXB PXB PHB PHB PHB PHB", []),
    "rccl_xml/topo_8p_rome.xml": (8, {"XGMI": 8}, {2}, "X PHB PHB PHB SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p_rome_4nics.xml": (8, {"XGMI": 12}, {3}, "X PXB SYS SYS SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p_rome_n2_2.xml": (8, {"XGMI": 8}, {2}, "X SYS PHB SYS SYS PHB SYS SYS", []),
    "rccl_xml/topo_8p_rome_pcie.xml": (8, {}, set(), "X PHB PHB PHB SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p_ts1_1.xml": (8, {"XGMI": 8}, {2}, "X SYS SYS SYS SYS SYS SYS SYS", []),
    "rccl_xml/topo_8p_ts1_n4_2.xml": (8, {"XGMI": 8}, {2}, "X SYS SYS SYS SYS SYS SYS SYS", []),
    "text/nvsmi_2gpu_nvlink_bridge_nccl557.txt": (2, {"NVLINK": 1}, {3}, "X NODE", ["no GPU model"]),
    "text/nvsmi_4gpu_pxb_pix_nccl667.txt": (4, {}, set(), "X PXB SYS SYS", []),
    "text/nvsmi_4xv100_ac922_power9.txt": (4, {"NVLINK": 2}, {3}, None, ["POWER9"]),
    "text/nvsmi_4xv100_delos_no_full_mesh.txt": (4, {"NVLINK": 4}, {3, 4}, None, []),
    "text/nvsmi_8xa100_vm_garbled_last_column.txt": (8, {"NVLINK": 8}, {12}, "X" + " PHB" * 7, ["PH0-115", "line 2"]),
    "text/nvsmi_8xa100pcie_nvlink_bridge_pairs_nccltests178.txt": (8, {"NVLINK": 4}, {12}, "X NODE NODE NODE SYS SYS SYS SYS", []),
    "text/nvsmi_8xb300_9nic_ansi_header.txt": (8, {"NVLINK": 8}, {18}, "X NODE NODE NODE SYS SYS SYS SYS", []),
    "text/nvsmi_8xh200_8nic.txt": (8, {"NVLINK": 8}, {18}, "X NODE NODE NODE SYS SYS SYS SYS", []),
    "text/nvsmi_dgx1_v100_4nic.txt": (8, {"NVLINK": 16}, {6}, "X PIX PHB PHB SYS SYS SYS SYS", []),
    "text/rocmsmi_4xmi210_archer2.txt": (4, {"XGMI": 6}, {3}, "X SYS SYS SYS", ["how many xGMI links"]),
    "text/rocmsmi_8gpu_two_xgmi_hives.txt": (8, {"XGMI": 12}, {3}, "X PHB PHB PHB SYS SYS SYS SYS", []),
}
REFUSED = {
    "nccl_xml_cloud/aws_p5.48xl-topo.xml": "lists no GPU",
    "nccl_xml_cloud/azure_ncv4-graph.xml": "graph file",
    "text/nvsmi_p2p_rw_4xrtx5060ti.txt": "names no link",
}


@needs_samples
def test_every_sample_is_in_one_of_the_tables():
    there = {str(p.relative_to(SAMPLES)) for p in Path(SAMPLES).glob("*/*") if p.is_file()}
    assert there == GOOD.keys() | REFUSED.keys()


@needs_samples
@pytest.mark.parametrize("name", GOOD)
def test_sample_is_the_machine_that_it_is(name):
    devices, wires, lanes, distances, words = GOOD[name]
    topology = load_topology(str(Path(SAMPLES) / name))
    found = Counter(k.kind for k in topology.links)
    kind = topology.kinds()[0]
    print(f"{name}: {topology.nranks} devices, {({k: n // 2 for k, n in found.items()})}, {len(topology.notes)} notes: parsed")
    assert topology.nranks == devices
    assert {k: n // 2 for k, n in found.items() if k in ("NVLINK", "XGMI")} == wires
    assert ({n for n, _ in lanes_per_device(topology, kind).values()} if wires else set()) == lanes
    if distances:
        first = topology.devices[0].name
        assert [pcie_distance(topology, first, d.name) for d in topology.devices] == distances.split()
    for word in words:
        assert any(word in note for note in topology.notes), topology.notes


@needs_samples
@pytest.mark.parametrize("name", REFUSED)
def test_sample_that_is_no_topology_is_refused(name):
    with pytest.raises(TopologyError, match=REFUSED[name]) as caught:
        load_topology(str(Path(SAMPLES) / name))
    print(f"{name}: refused: {caught.value}")
    assert Path(name).name in str(caught.value)


def sample(name, arch=""):
    return load_topology(str(Path(SAMPLES) / name), arch)


@needs_samples
def test_the_dgx1_matrix_is_the_layout_with_the_same_numbers():
    found, there = sample("text/nvsmi_dgx1_v100_4nic.txt", "sm_70"), load_layout("dgx1-v100")
    for a in there.devices:
        assert [distance(found, a.name, b.name) for b in found.devices] == [distance(there, a.name, b.name) for b in there.devices]
        assert [pcie_distance(found, a.name, b.name) for b in found.devices] == [pcie_distance(there, a.name, b.name) for b in there.devices]
    ends = {d.name for d in there.devices}
    assert {k: c for k, c in found.capacities().items() if isinstance(k[0], int) and isinstance(k[1], int)} == {
        k: c for k, c in there.capacities().items() if isinstance(k[0], int) and isinstance(k[1], int)
    }
    assert len(ends) == 8
    assert found.isomorphic(there, same_ranks=True)


@needs_samples
@pytest.mark.parametrize(
    ("name", "layout"),
    [("rccl_xml/topo_16p1h.xml", "mi250x"), ("rccl_xml/topo_8p_940.xml", "mi300x"), ("hwloc_xml/nvidiaDGX2.xml", "dgx2")],
)
def test_a_dump_of_a_named_machine_is_its_layout(name, layout):
    """hwloc saw no NICs on its DGX-2, so there the layout without NICs is asked for."""
    found, there = sample(name), load_layout(layout)
    if layout == "dgx2":
        there = there.subset([d.index for d in there.devices])
    assert found.isomorphic(there, same_ranks=True)


@needs_samples
def test_an_ac922_without_its_nics_is_the_layout():
    found = sample("text/nvsmi_4xv100_ac922_power9.txt", "sm_70").subset([0, 1, 2, 3])
    assert found.isomorphic(load_layout("ac922").subset([0, 1, 2, 3]), same_ranks=True)
