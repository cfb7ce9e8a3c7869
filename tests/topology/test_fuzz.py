"""Whatever is in a file: a topology or a TopologyError, in bounded time and memory."""

import os
import random
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from emit import nccl_xml, nvidia_smi, rocm_smi
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blinkcoll.errors import TopologyError
from blinkcoll.topology import Topology, load_layout, load_topology, pcie_distance
from blinkcoll.topology.formats import parse
from blinkcoll.topology.hwloc_xml import parse_hwloc_xml
from blinkcoll.topology.layouts import parse_layout
from blinkcoll.topology.nccl_xml import parse_nccl_xml
from blinkcoll.topology.nvidia_smi import parse_nvidia_smi
from blinkcoll.topology.rocm_smi import parse_rocm_smi
from blinkcoll.topology.source import MOST_BYTES, Source, decode_source

PARSERS = {
    "any": parse,
    "nvidia_smi": parse_nvidia_smi,
    "nccl_xml": parse_nccl_xml,
    "rocm_smi": parse_rocm_smi,
    "hwloc_xml": parse_hwloc_xml,
    "toml": lambda source: parse_layout(source.text, source.name),
    "json": lambda source: Topology.from_json(source.text, source.name),
}
FOLDER = Path(__file__).resolve().parents[2] / "topologies"
HWLOC = """<topology version="2.0"><object type="Machine"><info name="CPUVendor" value="GenuineIntel"/><object type="Package" os_index="0">
<object type="Bridge" bridge_type="0-1" bridge_pci="0000:[00-02]"><object type="Bridge" bridge_type="1-1" pci_busid="0000:00:01.0" pci_link_speed="15.75">
<object type="PCIDev" gp_index="7" pci_busid="0000:01:00.0" pci_type="0302 [10de:20b0] [10de:134f] a1 00" pci_link_speed="31.5">
<object type="OSDev" gp_index="8" name="nvml0" osdev_type="1"><info name="GPUModel" value="NVIDIA A100"/></object></object>
<object type="PCIDev" gp_index="9" pci_busid="0000:02:00.0" pci_type="0302 [10de:20b0] [10de:134f] a1 00" pci_link_speed="31.5">
<object type="OSDev" gp_index="10" name="nvml1" osdev_type="1"/></object></object></object></object></object>
<distances2hetero nbobjs="2" kind="25" name="NVLinkBandwidth"><indexes length="20">OSDev:8 OSDev:10</indexes><u64values length="20">0 300000 300000 0</u64values>
</distances2hetero></topology>"""


def dumps() -> dict[str, str]:
    """Texts to damage: made from layouts, the layout files themselves, and the sample dumps where they are."""
    found = {f"{emit.__name__}:{name}": emit(load_layout(name)) for emit in (nvidia_smi, nccl_xml) for name in ("dgx1-v100", "hgx-h100", "ac922")}
    found["rocm_smi:mi250x"] = rocm_smi(load_layout("mi250x"))
    found["json"] = load_layout("a6000-nvbridge").to_json()
    found["hwloc"] = HWLOC
    if FOLDER.is_dir():
        found["toml"] = (FOLDER / "ac922.toml").read_text(encoding="utf-8")
    samples = Path(os.environ.get("BLINKCOLL_TOPO_SAMPLES") or "/nonexistent")
    for path in sorted(samples.glob("*/*")) if samples.is_dir() else []:
        found[f"sample:{path.name}"] = path.read_text(encoding="utf-8", errors="replace")
    return found


DUMPS = dumps()
WORDS = ["NV18", "NV0", "NV999999", "X", "SYS", "PIX", "GPU0", "GPU7", "GPU99", "NIC0", "-1", "0", "1e9", "\t", "\n", "   ", '"', "<", ">", "/>", "&", "&amp;", "\x1b[4m", "\u00e9",
         "busid=", "</gpu>", "<nvlink", "count=\"-3\"", "count=\"99999999999999\"", "tclass=", "0x068000", "0x030200", "<pci>", "{", "}", "[", "]", ":", "null", "[[wires]]", "=", "XGMI", "15", "N/A"]  # fmt: skip


def judged(text: str, parser=parse) -> Topology | None:
    """A topology that holds together, or None where it was refused."""
    try:
        topology = parser(Source("fuzz", text))
    except TopologyError as error:
        assert "fuzz" in str(error) or "topology" in str(error) or str(error)
        return None
    assert topology.nranks > 0
    assert Topology.from_json(topology.to_json()) == topology
    assert all(k.capacity > 0 for k in topology.links)
    return topology


@settings(max_examples=60, deadline=2000)
@given(st.sampled_from(sorted(PARSERS)), st.text(max_size=400))
@example("any", "\x00")
@example("any", "GPU0")
@example("any", "\tGPU0\nGPU0\tX")
@example("nvidia_smi", "GPU0 GPU0\nGPU0 X X")
@example("rocm_smi", "= Link Type between two GPUs =\nGPU0\nGPU0 0")
def test_any_text(parser, text):
    judged(text, PARSERS[parser])


@settings(max_examples=60, deadline=2000)
@given(st.lists(st.sampled_from([*WORDS, "GPU1", "GPU2", "CPU Affinity", "NUMA Affinity", "NODE", "PHB", "PXB", "NV2", "NV12"]), max_size=60), st.sampled_from([" ", "\t"]))
def test_words_of_the_matrices(words, separator):
    judged("\tGPU0\tGPU1\tGPU2\n" + separator.join(words))


@settings(max_examples=120, deadline=3000, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(DUMPS)), st.integers(0, 2**32), st.integers(1, 6))
def test_damaged_dumps(name, seed, times):
    rng = random.Random(seed)
    text = DUMPS[name]
    for _ in range(times):
        at, upto = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        upto = min(upto, at + rng.choice([1, 5, 50, 400]))
        text = rng.choice(
            [
                text[:at] + text[upto:],
                text[:at],
                text[:at] + rng.choice(WORDS) + text[at:],
                text[:at] + rng.choice(WORDS) + text[upto:],
                text[:at] + text[at:upto] + text[at:],
                text[:at] + "".join(chr(rng.randrange(1, 0x250)) for _ in range(rng.randrange(8))) + text[upto:],
                text[:at] + str(rng.choice([0, -1, 7, 10**6, 10**30])) + text[upto:],
            ]
        )
    print(f"{name}, seed {seed}")
    topology = judged(text)
    if topology is not None and topology.nranks > 1:
        pcie_distance(topology, topology.devices[0].name, topology.devices[1].name)


@settings(max_examples=60, deadline=2000)
@given(st.binary(max_size=300))
@example(b"\xff\xfe\x00")
@example(b"\xff\xfeG\x00P\x00U\x000\x00")
@example(b"\xef\xbb\xbf{}")
def test_any_bytes(data):
    with suppress(TopologyError):
        parse(decode_source(data, "fuzz"))


def bounded(text: str, seconds: float = 6.0, megabytes: float = 600.0) -> None:
    """Refused or read within the time and memory."""
    tracemalloc.start()
    began = time.process_time()
    with suppress(TopologyError):
        parse(decode_source(text.encode(), "bomb"))
    took = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    print(f"{took:.2f} s, {peak:.0f} MB")
    assert took < seconds * 4  # tracemalloc makes Python several times slower
    assert peak < megabytes


LAUGHS = "<?xml version='1.0'?><!DOCTYPE s [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {b} '{('&' + a + ';') * 10}'>" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS + "]><system>&j;</system>",
        "<!DOCTYPE s [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><system>&x;</system>",
        "<!DOCTYPE s [<!ENTITY % p SYSTEM 'file:///etc/passwd'>%p;]><system/>",
        "<system>" * 100_000,
        "<system><cpu>" + "<pci>" * 150 + "</pci>" * 150 + "</cpu></system>",
        "<system>" + "<cpu/>" * 250_000 + "</system>",
        "<system>" + "".join(f"<cpu numaid='{i}' host_hash='{i}'/>" for i in range(20_000)) + "</system>",
        "<system><cpu numaid='0'>" + "".join(f"<pci busid='{i >> 8:04x}:{i & 255:02x}:00.0'><gpu dev='{i}'/></pci>" for i in range(20_000)) + "</cpu></system>",
        "<system><cpu>" + "<pci busid='0:0.0'><nic><net name='a'/></nic></pci>" * 30_000 + "</cpu></system>",
        "<system " + " ".join(f"a{i}='1'" for i in range(50_000)) + "/>",
        "<topology>" + "<object type='Bridge'>" * 190 + "</object>" * 190 + "</topology>",
        "<topology><object type='Machine'/><distances2 name='NVLinkBandwidth'><indexes>" + "OSDev:1 " * 100_000 + "</indexes></distances2></topology>",
        "{" * 200_000,
        '{"schema": 1, "devices": ' + "[" * 100_000,
        "GPU0 " * 500_000,
        ("\t" + "\t".join(f"GPU{i}" for i in range(190)) + "\n") + "".join(f"GPU{i}\t" + "PIX\t" * 190 + "\n" for i in range(190)),
        ("\t" + "\t".join(f"GPU{i}" for i in range(5000)) + "\n") * 20,
        "\n" * 2_000_000,
        " " * 4_000_000,
        "GPU0\n" * 50_000,
        "\x1b[" * 1_000_000,
        "NIC0: x\nGPU0 X\n" * 20_000,
        "=" * 200 + " Link Type between two GPUs " + "=" * 4_000_000,
        "schema = 1\n[gpus]\ncount = 16384\nno_peer_access = true\n[class.a]\n",
        "schema = 1\n[gpus]\ncount = 999999999999\n",
        "schema = 1\n[gpus]\n" + "a = [" * 5000,
    ],
    ids=lambda text: repr(text[:24]),
)
def test_bombs_are_answered_in_bounded_time_and_memory(text):
    bounded(text)


def test_a_hundred_megabytes_are_answered_without_reading_them(tmp_path):
    path = tmp_path / "large.xml"
    with path.open("wb") as file:
        file.write(b"<system>")
        file.truncate(100 << 20)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(TopologyError, match="larger than 16 MiB"):
        load_topology(str(path))
    assert time.process_time() - began < 5
    assert tracemalloc.get_traced_memory()[1] < 3 * MOST_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize("unit", ["\tGPU0\tGPU1\nGPU0\tX\tNV1\nGPU1\tNV1\tX\n", "<system><cpu/></system>", "GPU0: (Topology) Numa Node: 0\n= Hops between two GPUs =\n"])
@pytest.mark.slow
def test_sixteen_megabytes_of_a_format_are_answered_in_bounded_time(unit):
    bounded(unit * (MOST_BYTES // len(unit) - 1), seconds=15, megabytes=2000)


@pytest.mark.parametrize("name", sorted(DUMPS))
def test_every_prefix_of_a_dump_is_answered(name):
    text = DUMPS[name]
    for cut in range(0, len(text), max(1, len(text) // 25)):
        judged(text[:cut])
