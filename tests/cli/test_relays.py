"""``--relays`` and ``--method hybrid``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import blinkcoll as bc
from blinkcoll.simulator.baselines import baseline_program

BLINKCOLL = str(Path(sys.executable).parent / "blinkcoll")


def blinkcoll(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BLINKCOLL, *arguments], capture_output=True, text=True, timeout=120)


def test_plans_name_relays_and_draw_them():
    done = blinkcoll("plan", "--topo", "dgx1-v100", "--gpus", "0,1", "--relays", "2,3")
    assert done.returncode == 0, done.stderr
    assert "ranks 0 gpu0, 1 gpu1; relays gpu2, gpu3" in done.stdout
    assert "rate 80 GB/s, optimal: prices on" in done.stdout and "─ gpu2" in done.stdout


def test_json_says_which_are_relays(tmp_path):
    file = tmp_path / "program.json"
    done = blinkcoll("plan", "--topo", "dgx1-v100", "--gpus", "0,1", "--relays", "2,3", "--json", "--program", str(file))
    body = json.loads(done.stdout[done.stdout.index("{") :])
    assert body["topology"]["relays"] == [2, 3] and body["rate"] == "80"
    verified = blinkcoll("verify", str(file))
    assert verified.returncode == 0 and "allreduce of 2 ranks" in verified.stdout


def test_bench_compares_with_libraries_that_know_no_relays():
    done = blinkcoll("bench", "--topo", "dgx1-v100", "--gpus", "0,1", "--relays", "2,3", "-b", "64M", "-e", "64M")
    assert done.returncode == 0, done.stderr
    assert "as ranks 0..1 with relays gpu2,gpu3" in done.stdout and "rate 80 GB/s; bound 80 GB/s" in done.stdout
    whole = bc.load_topology("dgx1-v100")
    for name in ("nccl", "baidu-ring"):
        program = baseline_program(name, whole.subset([0, 1], relays=[2, 3]), "allreduce", None, 64 << 20)
        assert program == baseline_program(name, whole.subset([0, 1]), "allreduce", None, 64 << 20)


def test_simulate_runs_relays():
    done = blinkcoll("simulate", "--topo", "dgx1-v100", "--gpus", "0,1", "--relays", "2,3", "-b", "256M", "-e", "256M")
    assert done.returncode == 0 and "with relays gpu2,gpu3" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--relays", "2"), "say with --gpus which are not"),
        (("--gpus", "0,1", "--relays", "1"), "gpu1 is listed 2 times"),
        (("--gpus", "0,1", "--relays", " "), "expected GPU indices"),
        (("--gpus", "0,1", "--relays", "9"), "no device 9"),
    ],
)
def test_relays_that_make_no_sense_are_refused(arguments, message):
    done = blinkcoll("plan", "--topo", "dgx1-v100", *arguments)
    assert done.returncode == 2 and message in " ".join(done.stderr.replace("│", " ").split())


def test_hybrid_plans_show_their_gap():
    done = blinkcoll("plan", "--topo", "dgx1-v100", "--method", "hybrid")
    assert done.returncode == 0, done.stderr
    assert "rate 72 GB/s, 95.5 % of the bound" in done.stdout and "over plx0, cpu0, plx0" in done.stdout


def test_nccls_plan_is_made_without_relays():
    one, other = (blinkcoll("plan", "--topo", "dgx1-v100", "--gpus", "0,1,4", *more, "--method", "nccl") for more in ((), ("--relays", "5")))
    assert one.stdout == other.stdout and one.returncode == 0
