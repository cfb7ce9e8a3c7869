
import pytest
from fake_nvml import FakeNvml, write_sysfs

from blinkcoll.errors import TopologyError
from blinkcoll.topology import Topology, distance, layout_names, load_layout, pcie_distance, probe

NVIDIA = sorted({load_layout(n).name for n in layout_names() if load_layout(n).devices[0].arch.startswith("sm_")})


def layout(name) -> Topology:
    topology = load_layout(name)
    return topology.subset([0, 1, 2, 3]) if name == "gb200-nvl72" else topology  # one tray of the rack


def run(fake, tmp_path, **environ):
    root, cpuinfo = write_sysfs(fake, tmp_path / "sys")
    return probe(fake, root, cpuinfo, environ)


@pytest.mark.parametrize("name", NVIDIA)
@pytest.mark.parametrize("seed", [0, 1])
def test_probing_a_layout_finds_the_layout(name, seed, tmp_path):
    there = layout(name)
    found = run(FakeNvml(there, seed), tmp_path)
    assert [d.index for d in found.devices] == [d.index for d in there.devices][: len(found.devices)]
    assert found.isomorphic(there), found.notes
    for tell in (distance, pcie_distance):
        assert [tell(found, "gpu0", d.name) for d in found.devices] == [tell(there, "gpu0", d.name) for d in there.devices]


@pytest.mark.parametrize("name", ["dgx1-v100", "dgx2", "rtx4090x8", "a6000-nvbridge", "l40sx8"])
def test_without_sysfs_nvml_tells_the_distances(name, tmp_path):
    there = layout(name)
    found = probe(FakeNvml(there), tmp_path / "none", tmp_path / "none", {})
    for a in there.devices:
        assert [pcie_distance(found, a.name, b.name) for b in there.devices] == [pcie_distance(there, a.name, b.name) for b in there.devices]
    assert any("sysfs" in note for note in found.notes)


def test_identities_are_kept(tmp_path):
    fake = FakeNvml(load_layout("dgx1-v100"))
    found = run(fake, tmp_path)
    assert found.device(fake.uuids["gpu5"]).name == "gpu5"
    assert found.device("0000:13:00.0").index == 3
    assert found.devices[0].model == "Tesla V100-SXM2-16GB"


@pytest.mark.parametrize(
    ("value", "indices"),
    [("4,0,1", [4, 0, 1]), ("GPU-00000003,0", [3, 0]), ("1, 2 ,9,3", [1, 2]), ("0,0,1", [0]), ("2,GPU-ffff,1", [2])],
)
def test_cuda_visible_devices_picks_and_orders(value, indices, tmp_path):
    found = run(FakeNvml(load_layout("dgx1-v100")), tmp_path, CUDA_VISIBLE_DEVICES=value)
    assert [d.index for d in found.devices] == indices
    assert found.parent is not None
    assert found.parent.nranks == 8


@pytest.mark.parametrize("value", ["", "-1", "17", "GPU-", "nothing"])
def test_cuda_visible_devices_that_leaves_none_is_an_error(value, tmp_path):
    with pytest.raises(TopologyError, match="CUDA_VISIBLE_DEVICES"):
        run(FakeNvml(load_layout("dgx1-v100")), tmp_path, CUDA_VISIBLE_DEVICES=value)


def test_mig_is_refused_where_it_is_visible(tmp_path):
    fake = FakeNvml(load_layout("dgx-a100"), mig={3})
    root, cpuinfo = write_sysfs(fake, tmp_path / "sys")
    with pytest.raises(TopologyError, match=r"gpu3 .* MIG"):
        probe(fake, root, cpuinfo, {})
    with pytest.raises(TopologyError, match="MIG"):
        probe(fake, root, cpuinfo, {"CUDA_VISIBLE_DEVICES": "MIG-abc"})
    assert probe(fake, root, cpuinfo, {"CUDA_VISIBLE_DEVICES": "0,1"}).nranks == 2


def test_a_lost_gpu_is_left_out_and_named(tmp_path):
    found = run(FakeNvml(load_layout("dgx1-v100"), lost={6}), tmp_path)
    assert [d.index for d in found.devices] == [0, 1, 2, 3, 4, 5, 7]
    assert found.restrict(["NVLINK"]).isomorphic(load_layout("dgx1-v100").subset([0, 1, 2, 3, 4, 5, 7]).restrict(["NVLINK"]))
    assert any("GPU 6" in note and "lost" in note for note in found.notes)


def test_a_link_that_is_down_is_missing_and_named(tmp_path):
    fake = FakeNvml(load_layout("dgx1-v100"))
    fake.down.add((0, 0))
    there = fake.links["gpu0"][0][0]
    peer = next(n for n, bus in fake.buses.items() if bus == there)
    found = run(fake, tmp_path)
    before = {frozenset((k.src, k.dst)): k.lanes for k in load_layout("dgx1-v100").links if k.kind == "NVLINK"}
    after = {frozenset((k.src, k.dst)): k.lanes for k in found.links if k.kind == "NVLINK"}
    pair = frozenset(("gpu0", peer))
    assert after.get(pair, 0) == before[pair] - 1
    assert {p: n for p, n in after.items() if p != pair} == {p: n for p, n in before.items() if p != pair}
    assert any("gpu0: NVLink 0 down" in note for note in found.notes)


def test_a_link_down_to_an_nvswitch_costs_one_lane(tmp_path):
    found = run(FakeNvml(load_layout("hgx-h100"), down={(2, 7)}), tmp_path)
    lanes = {k.src: k.lanes for k in found.links if k.dst == "nvswitch"}
    assert lanes == {f"gpu{i}": 17 if i == 2 else 18 for i in range(8)}


def test_an_error_in_the_middle_costs_that_link_alone(tmp_path):
    found = run(FakeNvml(load_layout("hgx-h100"), broken={(5, 3)}), tmp_path)
    assert {k.src: k.lanes for k in found.links if k.dst == "nvswitch"}["gpu5"] == 17
    assert any("gpu5: NVLink 3 does not answer" in note for note in found.notes)


def test_a_pair_without_peer_access_loses_its_nvlinks_with_one_line(tmp_path):
    found = run(FakeNvml(load_layout("dgx1-v100"), refused={(0, 3), (3, 0)}), tmp_path)
    assert not [k for k in found.links if k.kind == "NVLINK" and {k.src, k.dst} == {"gpu0", "gpu3"}]
    assert set(found.no_peer_access) == {("gpu0", "gpu3"), ("gpu3", "gpu0")}
    assert len([note for note in found.notes if "gpu0 and gpu3" in note]) == 1


def test_a_machine_without_any_peer_access_gets_one_line(tmp_path):
    found = run(FakeNvml(load_layout("rtx4090x8")), tmp_path)
    assert len(found.no_peer_access) == 56
    assert len(found.notes) == 1


def test_nvswitches_that_lead_nowhere_are_not_used(tmp_path):
    everything = {(a, b) for a in range(8) for b in range(8) if a != b}
    found = run(FakeNvml(load_layout("hgx-h100"), refused=everything), tmp_path)
    assert "NVLINK" not in found.kinds()
    assert any("fabric manager" in note for note in found.notes)


def test_no_driver_is_one_sentence_that_says_what_works():
    with pytest.raises(TopologyError, match=r"no NVIDIA driver .*Not Found.*layouts") as caught:
        probe(FakeNvml(load_layout("dgx1-v100"), missing_driver=True))
    assert "\n" not in str(caught.value)


def test_no_gpu_that_answers_is_an_error(tmp_path):
    with pytest.raises(TopologyError, match="no GPU that answers"):
        run(FakeNvml(load_layout("a6000-nvbridge"), lost={0, 1, 2, 3}), tmp_path)


def test_every_function_the_fake_has_is_in_nvml():
    pynvml = pytest.importorskip("pynvml")
    used = [name for name in dir(FakeNvml) if name.startswith(("nvml", "NVML"))]
    assert [name for name in used if not hasattr(pynvml, name)] == []
