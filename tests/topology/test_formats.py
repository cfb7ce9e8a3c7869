"""What a tool prints of a machine is read back as that machine, whatever line ends and encodings it went through."""

import pytest
from emit import nccl_xml, nvidia_smi, rocm_smi

from blinkcoll.errors import TopologyError
from blinkcoll.topology import Topology, distance, layout_names, load_layout, load_topology, pcie_distance
from blinkcoll.topology.formats import parse
from blinkcoll.topology.source import Source, decode_source

LAYOUTS = sorted({load_layout(n).name for n in layout_names()} - {"host", "gb200-nvl72"})
NVIDIA = [n for n in LAYOUTS if load_layout(n).devices[0].arch.startswith("sm_")]


def read(text: str, arch: str = "") -> Topology:
    return parse(Source("dump", text), arch)


def refuse(text: str) -> str:
    with pytest.raises(TopologyError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize("name", [n for n in LAYOUTS if n != "rtx4090x8"])
def test_nccl_xml_gives_the_layout_back(name):
    assert read(nccl_xml(load_layout(name))).isomorphic(load_layout(name), same_ranks=True)


def test_a_tray_of_a_rack_comes_back_with_its_c2c_links():
    tray = load_layout("gb200-nvl72").subset([0, 1, 2, 3])
    assert read(nccl_xml(tray)).isomorphic(tray, same_ranks=True)


def test_a_dump_of_two_servers_in_one_nvlink_domain_keeps_them_apart():
    one = nccl_xml(load_layout("gb200-nvl72").subset([0, 1, 2, 3]))
    other = one.replace('host_hash="0x1"', 'host_hash="0x2"').replace('rank="', 'rank="1')
    found = read(one.replace("</system>\n", "") + other.replace('<system version="1">\n', ""))
    assert [(d.server, d.index) for d in found.devices] == [(i // 4, i) for i in range(8)]
    assert sum(s.kind == "nvswitch" for s in found.switches) == 1
    assert distance(found, "gpu0", "gpu7") == "NV18"
    assert pcie_distance(found, "gpu0", "gpu7") == "-"


@pytest.mark.parametrize("name", NVIDIA)
@pytest.mark.parametrize("separator", ["\t", "     "])
def test_nvidia_smi_gives_links_and_distances_back(name, separator):
    there = load_layout(name)
    found = read(nvidia_smi(there, separator))
    assert [d.arch for d in found.devices] == [d.arch for d in there.devices]
    for kind in ("NVLINK",):
        want = {k: c for k, c in there.restrict([kind]).capacities().items()} if kind in there.kinds() else {}
        assert ({k: c for k, c in found.restrict([kind]).capacities().items()} if kind in found.kinds() else {}) == want
    nvlinked = {(a, b) for a in found.devices for b in found.devices if distance(there, a.name, b.name).startswith("NV")}
    for a in there.devices:
        for b in there.devices:
            assert distance(found, a.name, b.name) == distance(there, a.name, b.name)
            if (a, b) not in nvlinked and a.name != b.name and distance(there, a.name, b.name)[:2] != "NV":
                assert pcie_distance(found, a.name, b.name) == pcie_distance(there, a.name, b.name)


@pytest.mark.parametrize("name", ["mi300x"])
def test_rocm_smi_gives_the_xgmi_links_back(name):
    there = load_layout(name)
    found = read(rocm_smi(there), "gfx942")
    assert found.restrict(["XGMI"]).isomorphic(there.restrict(["XGMI"]), same_ranks=True)
    assert pcie_distance(found, "gpu0", "gpu4") == "SYS"


def test_rocm_smi_tells_direct_pairs_by_weight_not_by_hops():
    there = load_layout("mi250x")
    found = read(rocm_smi(there))
    assert {(k.src, k.dst) for k in found.links if k.kind == "XGMI"} == {(k.src, k.dst) for k in there.links if k.kind == "XGMI"}
    assert any("several hops apart" in note for note in found.notes)


def test_amd_smi_tables_by_bus_id_are_read():
    text = """
ACCESS TABLE:
             0000:0c:00.0  0000:22:00.0
0000:0c:00.0 ENABLED       ENABLED
0000:22:00.0 ENABLED       ENABLED

WEIGHT TABLE:
             0000:0c:00.0  0000:22:00.0
0000:0c:00.0 0             15
0000:22:00.0 15            0

LINK TYPE TABLE:
             0000:0c:00.0  0000:22:00.0
0000:0c:00.0 SELF          XGMI
0000:22:00.0 XGMI          SELF
"""
    found = read(text)
    assert [d.bus_id for d in found.devices] == ["0000:0c:00.0", "0000:22:00.0"]
    assert [k.lanes for k in found.links if k.kind == "XGMI"] == [1, 1]
    bandwidth = "NUMA BW TABLE:\n             0000:0c:00.0  0000:22:00.0\n0000:0c:00.0 N/A  50000-200000\n0000:22:00.0 50000-200000  N/A\n"
    assert [k.lanes for k in read(text + bandwidth).links if k.kind == "XGMI"] == [4, 4]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_encodings_and_line_ends_do_not_matter(encoding, ends):
    text = nvidia_smi(load_layout("dgx1-v100"), ends=ends)
    found = parse(decode_source(text.encode(encoding), "dump"))
    assert found.restrict(["NVLINK"]).isomorphic(load_layout("dgx1-v100").restrict(["NVLINK"]), same_ranks=True)


def test_text_around_a_dump_does_not_matter():
    smi, xml = nvidia_smi(load_layout("dgx1-v100")), nccl_xml(load_layout("dgx1-v100"))
    quoted = "Hi, here is my machine:\n```\n$ nvidia-smi topo -m\n" + "\n".join("> " + line for line in smi.splitlines()) + "\n```\nThanks!\n"
    assert read(quoted).nranks == 8
    assert read("$ cat topo.xml\n" + xml + "$ exit\n").isomorphic(load_layout("dgx1-v100"), same_ranks=True)


def test_old_words_and_table_marks_are_read():
    """Drivers before 384 said SOC for SYS; pages that render text as tables leave bars at the ends of lines."""
    there = load_layout("dgx1-v100")
    text = "\n".join(line + " | |" for line in nvidia_smi(there, " ").replace("SYS", "SOC").splitlines())
    found = read(text)
    assert [distance(found, "gpu0", d.name) for d in found.devices] == [distance(there, "gpu0", d.name) for d in there.devices]


def test_a_grid_with_a_nic_of_letters_alone_is_read():
    rows = [["", "GPU0", "GPU1", "HSN", "CPU Affinity", "NUMA Affinity"], ["GPU0", "X", "NV4", "SYS", "0-15", "1"], ["GPU1", "NV4", "X", "PHB", "16-31", "0"], ["HSN", "SYS", "PHB", "X", "", ""]]
    bar = "+" + "+".join("-" * 8 for _ in rows[0]) + "+\n"
    found = read(bar + bar.join("| " + " | ".join(row) + " |\n" for row in rows) + bar)
    assert distance(found, "gpu0", "gpu1") == "NV4"
    assert [s.name for s in found.switches if s.kind == "nic"] == ["HSN"]
    assert pcie_distance(found, "gpu1", "HSN") == "PHB"


def test_a_table_with_html_line_breaks_is_read():
    text = "| <br>```<br>" + nvidia_smi(load_layout("dgx1-v100"), "    ", ends="<br>") + "``` |\n"
    assert read(text).restrict(["NVLINK"]).isomorphic(load_layout("dgx1-v100").restrict(["NVLINK"]), same_ranks=True)


def test_one_gpu_without_the_nvlinks_of_the_others_is_named():
    xml = nccl_xml(load_layout("hgx-h100"))
    start = xml.index("<nvlink", xml.index('dev="3"'))
    xml = xml[:start] + xml[xml.index("</gpu>", start) :]
    found = read(xml)
    assert {k.src for k in found.links if k.dst == "nvswitch"} == {f"gpu{i}" for i in range(8) if i != 3}
    assert any("gpu3 has no NVLink" in n for n in found.notes)


def test_a_header_without_its_first_blank_is_read():
    text = nvidia_smi(load_layout("dgx1-v100")).replace("\n\tGPU0", "\nGPU0")
    assert read(text).isomorphic(read(nvidia_smi(load_layout("dgx1-v100"))), same_ranks=True)


def test_sys_within_one_numa_node_is_node():
    """Some hosts print SYS between devices of one NUMA node (NVIDIA/nccl#1264): the node is believed."""
    rows = [f"GPU{i}\t" + "\t".join("X" if i == j else "SYS" for j in range(4)) + f"\t0-15\t{i // 2}\tN/A" for i in range(4)]
    found = read("\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n" + "\n".join(rows))
    assert [pcie_distance(found, "gpu0", d.name) for d in found.devices] == ["X", "NODE", "SYS", "SYS"]
    assert any("SYS within NUMA node 0" in n for n in found.notes)


def test_distances_that_nvlink_hides_follow_from_nics():
    """GPU0 is beside NIC0 and far from NIC1, GPU1 the other way round: they are on two NUMA nodes, whatever the affinity says."""
    text = """\tGPU0\tGPU1\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity
GPU0\tX\tNV4\tPXB\tSYS\t0\t0-1
GPU1\tNV4\tX\tSYS\tPXB\t0\t0-1
NIC0\tPXB\tSYS\tX\tSYS
NIC1\tSYS\tPXB\tSYS\tX
"""
    found = read(text)
    assert pcie_distance(found, "gpu0", "gpu1") == "SYS"
    assert pcie_distance(found, "gpu1", "nic1") == "PXB"


def test_a_skeleton_with_nics_numbers_gpus_in_its_order():
    pci = "".join(
        f'<pci busid="ffff:ff:0{i}.0" class="0x060400" link_speed="32 GT/s" link_width="16" vendor="0x0000">'
        f'<pci busid="0000:0{i}:01.0" class="0x030200" link_speed="32.0 GT/s PCIe" link_width="16"/>'
        f'<pci busid="0000:0{i}:02.0" class="0x020000" link_speed="32.0 GT/s PCIe" link_width="16"><nic><net name="mlx5_{i}" dev="{i}" speed="400000"/></nic></pci></pci>'
        for i in range(1, 5)
    )
    found = read(f'<system version="1"><cpu numaid="0" arch="x86_64" vendor="GenuineIntel" familyid="6" modelid="143">{pci}</cpu></system>')
    assert found.nranks == 4
    assert sum(s.kind == "nic" for s in found.switches) == 4
    assert pcie_distance(found, "gpu0", "mlx5_1") == "PIX"
    assert {k.capacity for k in found.links} == {48}


def test_blinkcoll_files_are_read_as_they_are(tmp_path):
    topology = load_layout("dgx2")
    (tmp_path / "a").write_text(topology.to_json())
    assert load_topology(str(tmp_path / "a")) == topology


def test_p2p_refusals_in_the_same_text_take_nvlinks_away():
    text = nvidia_smi(load_layout("a6000-nvbridge")) + "\n\tGPU0\tGPU1\tGPU2\tGPU3\nGPU0\tX\tCNS\tOK\tOK\nGPU1\tCNS\tX\tOK\tOK\nGPU2\tOK\tOK\tX\tOK\nGPU3\tOK\tOK\tOK\tX\n"
    found = read(text)
    assert set(found.no_peer_access) == {("gpu0", "gpu1"), ("gpu1", "gpu0")}
    assert {frozenset((k.src, k.dst)) for k in found.links if k.kind == "NVLINK"} == {frozenset(("gpu2", "gpu3"))}
    assert sum("no peer access" in note for note in found.notes) == 1


ROWS = "\tGPU0\tGPU1\tGPU2\nGPU0\t X \t{a}\t{b}\nGPU1\t{c}\t X \t{d}\nGPU2\t{e}\t{f}\t X \n"


def test_an_asymmetric_matrix_keeps_what_both_halves_allow():
    found = read(ROWS.format(a="NV2", b="PIX", c="NV1", d="SYS", e="PXB", f="SYS"))
    assert distance(found, "gpu0", "gpu1") == "NV1"
    assert pcie_distance(found, "gpu0", "gpu2") == "PXB"
    notes = [n for n in found.notes if "not symmetric" in n]
    assert len(notes) == 2
    assert all("line 2" in n for n in notes)


def test_links_that_only_one_half_has_are_dropped():
    found = read(ROWS.format(a="NV2", b="SYS", c="PHB", d="SYS", e="SYS", f="SYS"))
    assert "NVLINK" not in found.kinds()


def test_more_links_than_any_gpu_has_are_not_kept():
    found = read(ROWS.format(a="NV12", b="NV9", c="NV12", d="SYS", e="NV9", f="SYS"))
    assert "NVLINK" not in found.kinds()
    assert any("21 NVLinks" in n and "at most 18" in n for n in found.notes)


@pytest.mark.parametrize(
    ("gpus", "lanes", "switched"), [(8, 18, True), (4, 18, True), (3, 12, True), (8, 8, True), (4, 4, False), (4, 6, False), (5, 6, True), (2, 12, False)]
)
def test_nvswitches_are_told_from_direct_links(gpus, lanes, switched):
    """Four GPUs with NV4 or NV6 are the HGX A100 and H100 boards with four GPUs, which have no NVSwitch."""
    head = "\t" + "\t".join(f"GPU{i}" for i in range(gpus))
    rows = [f"GPU{i}\t" + "\t".join("X" if i == j else f"NV{lanes}" for j in range(gpus)) for i in range(gpus)]
    found = read("\n".join([head, *rows]))
    assert any(s.kind == "nvswitch" for s in found.switches) == switched
    assert distance(found, "gpu0", "gpu1") == f"NV{lanes}"


def test_a_gpu_with_links_down_shows_fewer_to_all_others():
    rows = [f"GPU{i}\t" + "\t".join("X" if i == j else "NV16" if 2 in (i, j) else "NV18" for j in range(4)) for i in range(4)]
    found = read("\tGPU0\tGPU1\tGPU2\tGPU3\n" + "\n".join(rows))
    assert {k.src: k.lanes for k in found.links if k.dst == "nvswitch"} == {"gpu0": 18, "gpu1": 18, "gpu2": 16, "gpu3": 18}


def test_gpus_of_which_one_row_has_no_cpus_are_read():
    """Grace-Blackwell in a container that sees half the cores: the affinity field is empty, the NUMA node is not."""
    rows = [f"GPU{i}\t" + "\t".join("X" if i == j else "NV18" for j in range(4)) + ("\t0-35\t0" if i < 2 else "\t\t1") + "\t\tN/A" for i in range(4)]
    found = read("\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n" + "\n".join(rows))
    assert [pcie_distance(found, "gpu0", d.name) for d in found.devices] == ["X", "NODE", "SYS", "SYS"]


def test_hwloc_shows_nvlinks_to_power_cpus():
    gpu = """<object type="Bridge" bridge_type="0-1" bridge_pci="000{n}:[00-01]"><object type="Bridge" bridge_type="1-1" pci_busid="000{n}:00:00.0">
      <object type="PCIDev" gp_index="{n}" pci_busid="000{n}:01:00.0" pci_type="0302 [10de:15f9] [10de:116b] a1 00" pci_link_speed="15.753846">
      <object type="OSDev" gp_index="1{n}" name="nvml{n}" osdev_type="1"><info name="GPUModel" value="Tesla P100-SXM2-16GB"/></object></object></object></object>"""
    xml = (
        '<topology version="2.0"><object type="Machine"><object type="Package" os_index="0" gp_index="3"><info name="CPUModel" value="POWER8NVL, altivec supported"/>'
        + gpu.format(n=0) + gpu.format(n=1)
        + '</object></object><distances2hetero nbobjs="3" kind="25" name="NVLinkBandwidth"><indexes length="1">OSDev:10 OSDev:11 Package:3</indexes>'
        '<u64values length="1">1000000 40000 40000 40000 1000000 40000 40000 40000 1000000</u64values></distances2hetero></topology>'
    )  # fmt: skip
    found = read(xml)
    assert distance(found, "gpu0", "gpu1") == "NV2"
    assert {(k.kind, k.lanes, k.capacity) for k in found.links if k.dst == "cpu0"} == {("CPU", 2, 36)}


def test_a_matrix_cut_off_in_the_middle_is_refused():
    text = nvidia_smi(load_layout("dgx1-v100"), list_models=False)
    message = refuse("\n".join(text.splitlines()[:5]))
    assert "cut off" in message and "dump, line" in message


def test_one_lost_row_is_made_up_by_the_other_half():
    lines = nvidia_smi(load_layout("dgx1-v100")).splitlines()
    del lines[12]
    assert read("\n".join(lines)).restrict(["NVLINK"]).isomorphic(load_layout("dgx1-v100").restrict(["NVLINK"]), same_ranks=True)


def test_a_nic_row_cut_off_costs_that_nic():
    lines = nvidia_smi(load_layout("dgx1-v100")).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("\tGPU0"))
    lines = [line for line in lines if not line.startswith("NIC3")]
    lines[at + 1 :] = [line.rsplit("\t", 3)[0] + "\t\t" if line.startswith(("GPU", "NIC")) else line for line in lines[at + 1 :]]
    found = read("\n".join(lines))
    assert sum(s.kind == "nic" for s in found.switches) == 3
    assert any("left out" in n for n in found.notes)


def change(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


def test_a_link_to_an_invisible_gpu_is_absent_with_line_and_text():
    xml = change(nccl_xml(load_layout("dgx1-v100")), 'target="0000:11:00.0" count="1"', 'target="0000:99:00.0" count="1"')
    found = read(xml)
    assert any("gpu0 lists 1 links to 0000:99:00.0, which is not a visible device" in n and "line" in n and "<nvlink" in n for n in found.notes)
    assert not [k for k in found.links if k.kind == "NVLINK" and {k.src, k.dst} == {"gpu0", "gpu1"}]
    assert sum(k.kind == "NVLINK" for k in found.links) == 30


def test_counts_that_differ_keep_the_smaller():
    xml = change(nccl_xml(load_layout("dgx1-v100")), 'target="0000:13:00.0" count="2"', 'target="0000:13:00.0" count="1"')
    found = read(xml)
    assert distance(found, "gpu0", "gpu3") == "NV1"
    assert any("which lists 2; 1 are kept" in n for n in found.notes)


def test_an_nvswitch_that_a_virtual_machine_hides_is_an_nvswitch():
    xml = nccl_xml(load_layout("hgx-h100")).replace('target="0000:c0:00.0"', 'target="fffffff:ffff:ff"')
    assert read(xml).isomorphic(load_layout("hgx-h100"), same_ranks=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("   \n ", "is empty"),
        ("just some words", "no known format"),
        ("GPU0 is fast", "no matrix"),
        ("<system version='1'></system>", "no <cpu>"),
        ("<system version='1'><cpu numaid='0'/></system>", "lists no GPU"),
        ("<system version='1'><cpu numaid='0'>", "not well-formed XML"),
        ("<graphs version='1'/>", "graph file"),
        ("<topology version='2.0'/>", "no <object>"),
        ("<topology version='2.0'><object type='Machine'/></topology>", "no GPU"),
        ("<system><cpu><pci busid='here' class='0x03'/></cpu></system>", "line 1: <pci>"),
        ("<system><cpu><pci busid='0000:01:00.0'><gpu sm='80'/></pci></cpu></system>", "without the number"),
        ("schema = 1\n[gpus]\n", "missing"),
        ("{", "not JSON"),
        ("[1, 2", "not TOML"),
        ("\tGPU0\tGPU1\nGPU0\tX\tOK\nGPU1\tOK\tX\n", "topo -m"),
        ("= Weight between two GPUs =\n", "neither a table"),
        ("= Link Type between two GPUs =\n GPU0 GPU1\nGPU0 0 XGMI\nGPU1 PCIE 0\n", "not symmetric"),
        ("= Link Type between two GPUs =\n GPU0 GPU1 GPU2\nGPU0 0 XGMI XGMI\n", "cut off"),
    ],
)
def test_what_is_no_machine_is_refused_with_the_reason(text, expected):
    message = refuse(text)
    assert expected in message
    assert message.startswith("dump")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"\x00\x01\x02\xff" * 100)
    with pytest.raises(TopologyError, match="not text"):
        load_topology(str(tmp_path / "x"))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(TopologyError, match="neither a file nor a layout"):
        load_topology(str(tmp_path))


def test_hwloc_without_a_bandwidth_matrix_says_so():
    xml = """<topology version="2.0"><object type="Machine"><object type="Package" os_index="0">
      <object type="Bridge" bridge_type="0-1" bridge_pci="0000:[00-02]">
       <object type="Bridge" bridge_type="1-1" pci_busid="0000:00:01.0" pci_type="0604 [8086:2030] [8086:0000] 04 00" pci_link_speed="15.753846">
        <object type="PCIDev" gp_index="7" pci_busid="0000:01:00.0" pci_type="0302 [10de:20b0] [10de:134f] a1 00" pci_link_speed="31.507692">
         <object type="OSDev" gp_index="8" name="nvml0" osdev_type="1"><info name="GPUModel" value="NVIDIA A100-SXM4-40GB"/></object>
        </object></object></object></object></object></topology>"""
    found = read(xml)
    assert found.devices[0].arch == "sm_80"
    assert [(k.generation, k.lanes) for k in found.links if k.kind == "PCIE"] == [(3, 16)] * 2
    assert any("fast links unknown" in n for n in found.notes)
