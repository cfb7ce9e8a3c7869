import json
import xml.etree.ElementTree as ET

import pytest
import typer
from typer.testing import CliRunner

from blinkcoll.cli.probe import probe
from blinkcoll.cli.topo import app as topo
from blinkcoll.cli.topo import fitting
from blinkcoll.errors import TopologyError
from blinkcoll.topology import Topology, layout_names, load_layout

app = typer.Typer()
app.add_typer(topo, name="topo")
app.command()(probe)

MATRIX = """\tGPU0\tGPU1\tGPU2\tCPU Affinity\tNUMA Affinity
GPU0\t X \tNV12\tSYS\t0-15\t0
GPU1\tNV12\t X \tSYS\t0-15\t0
GPU2\tSYS\tSYS\t X \t16-31\t1
"""


def run(*arguments, text=None):
    return CliRunner().invoke(app, list(arguments), input=text)


def test_a_terminal_without_unicode_gets_the_tree_in_ascii():
    assert fitting("├─ gpu0 é\n│  └─ x", "ascii") == "|- gpu0 ?\n|  `- x"
    assert fitting("├─ gpu0", "utf-8") == "├─ gpu0"


def test_list_names_every_layout():
    answer = run("topo", "list")
    assert answer.exit_code == 0
    for name in layout_names():
        assert name in answer.output
    assert run("topo", "list", "--names").stdout.split() == layout_names()


@pytest.mark.parametrize("name", layout_names())
def test_every_layout_can_be_shown_in_every_form(name, tmp_path):
    plain = run("topo", "show", name)
    assert plain.exit_code == 0, plain.output
    assert load_layout(name).fingerprint in plain.output
    svg = tmp_path / "a.svg"
    as_json = run("topo", "show", name, "--json", "--svg", str(svg))
    assert Topology.from_json(as_json.stdout) == load_layout(name)
    assert ET.parse(svg).getroot().tag.endswith("svg")
    dot = run("topo", "show", name, "--dot").stdout
    assert dot.startswith("digraph") and dot.count("{") == dot.count("}")


def test_show_takes_part_of_a_machine():
    answer = run("topo", "show", "dgx1-v100", "--gpus", "4,0,1", "--json")
    assert [d["index"] for d in json.loads(answer.stdout)["devices"]] == [4, 0, 1]


def test_show_takes_clusters():
    assert "on 2 servers" in run("topo", "show", "dgx1-v100*2@12.5").output


@pytest.mark.parametrize(
    "arguments",
    [("dgx1-v100", "--gpus", ","), ("dgx1-v100", "--json", "--dot"), ("dgx1-v100", "--svg", "/nowhere/x.svg"), (), ("dgx-9000",), ("dgx1-v100", "--gpus", "0,99")],
)
def test_bad_usage_is_exit_2(arguments):
    assert run("topo", "show", *arguments).exit_code == 2


def test_a_machine_that_does_not_exist_has_no_difference():
    assert run("topo", "diff", "dgx-9000", "dgx2").exit_code == run("topo", "diff", "dgx2", "dgx-9000").exit_code == 2


@pytest.mark.parametrize("arguments", [("topo", "show", __file__), ("probe", "--from", "/nowhere")])
def test_what_cannot_be_known_is_a_topology_error(arguments):
    """The command line's main() prints these as one line and exits 1."""
    assert isinstance(run(*arguments).exception, TopologyError)


def test_diff_of_equal_machines_says_so():
    answer = run("topo", "diff", "dgx1-v100", "p3.16xlarge")
    assert answer.exit_code == 0
    assert "same machine" in answer.output


def test_diff_names_pairs_rates_and_exit_code():
    answer = run("topo", "diff", "dgx1-p100", "dgx1-v100")
    assert answer.exit_code == 1
    assert "ranks 0 and 3: NV1 (PCIe PHB) / NV2 (PCIe PHB)" in answer.output
    assert "sm_60" in answer.output


def test_probe_from_reads_a_file_and_saves_json(tmp_path):
    (tmp_path / "topo.txt").write_text(MATRIX)
    saved = tmp_path / "mine.json"
    answer = run("probe", "--from", str(tmp_path / "topo.txt"), "--save", str(saved))
    assert answer.exit_code == 0, answer.output
    assert "NV12" in answer.stdout
    assert "names no GPU model" in answer.stderr
    again = run("probe", "--from", str(saved), "--json")
    assert Topology.from_json(again.stdout).nranks == 3


def test_probe_from_reads_standard_input():
    assert "NV12" in run("probe", "--from", "-", text=MATRIX).stdout


def test_arch_gives_the_rates_that_the_file_does_not():
    answer = run("probe", "--from", "-", "--arch", "sm_90", "--json", text=MATRIX)
    rates = {k["capacity"] for k in json.loads(answer.stdout)["links"] if k["kind"] == "NVLINK"}
    assert rates == {"1236/5"}  # 12 x 20.6
