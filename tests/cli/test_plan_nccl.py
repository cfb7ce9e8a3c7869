"""``blinkcoll plan --method nccl``: what NCCL would plan, and why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import blinkcoll as bc
from blinkcoll.simulator.baselines.nccl import search

BLINKCOLL = str(Path(sys.executable).parent / "blinkcoll")


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BLINKCOLL, "plan", "--topo", "dgx1-v100", *arguments], capture_output=True, text=True, timeout=120)


def test_a_ring_over_nvb_is_shown_and_explained():
    done = plan("--gpus", "0,1,4", "--method", "nccl")
    assert done.returncode == 0, done.stderr
    assert "NCCL INFO Channel 00/02 : 0 1 2" in done.stdout
    assert "gpu1 -> gpu4: no NVLink between them, crosses gpu0" in done.stdout
    assert "no NCCL ran" in done.stdout
    assert done.stdout.endswith("# allreduce of 67108864 bytes: ring simple, 2 channels\n")


def test_an_old_version_says_why_it_left_nvlink():
    done = plan("--gpus", "0,1,4", "--method", "nccl-2.7")
    assert "PCIe, because the NVLinks among these GPUs have no cycle" in done.stdout
    assert "NCCL 2.7.8 never crosses a GPU" in done.stdout
    assert "tree: none on one node" in plan("--gpus", "0,1,4", "--method", "nccl-2.4").stdout


@pytest.mark.parametrize(("method", "version"), [("nccl", "2.30"), ("nccl-2.7", "2.7"), ("nccl-2.4", "2.4")])
def test_json_and_program_hold_the_same_plan(tmp_path, method, version):
    file = tmp_path / "p.json"
    done = plan("--gpus", "0,3,4,7", "--method", method, "--json", "--program", str(file))
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    found = search(bc.load_topology("dgx1-v100").subset([0, 3, 4, 7]), version)
    assert body["method"] == f"nccl-{version}" and body["topology"]["gpus"] == [0, 3, 4, 7]
    assert (body["nchannels"], body["gb_s_per_channel"], body["path_type"]) == (found.nchannels, str(found.gb_s_per_channel), found.path_type)
    assert body["rings"] == [list(ring) for ring in found.rings]
    program = bc.Program.from_json(file.read_text())
    bc.verify(program)
    assert program.algorithm == f"nccl-{version}-{body['choice']['algorithm']}"
    assert len(program.weights) == body["choice"]["nchannels"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method", "magic"], 2, "one of auto, exact"),
        (["--method", "nccl", "--collective", "alltoall"], 1, "as sends and receives"),
        (["--method", "nccl", "--collective", "broadcast"], 1, "needs a root"),
        (["--method", "nccl", "--program", "/dev/full"], 2, "No space left"),
    ],
)
def test_what_it_cannot_do_is_told_in_words(arguments, code, message):
    done = plan(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stderr.replace("\n", " ").replace("│", "")
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_the_default_method_is_the_packers():
    assert plan("--gpus", "0,1,4").stdout == plan("--gpus", "0,1,4", "--method", "exact").stdout
