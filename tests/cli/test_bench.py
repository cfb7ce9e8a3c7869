"""The command that people type first."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

BLINKCOLL = str(Path(sys.executable).parent / "blinkcoll")


def blinkcoll(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BLINKCOLL, *arguments], capture_output=True, text=True, timeout=120)


def test_bench_prints_a_labelled_table_of_all_sizes():
    done = blinkcoll("bench", "--topo", "dgx1-v100")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert "SIMULATED" in header[0] and "not measured" in header[0]
    assert any("fingerprint" in line for line in header) and any("480/7" in line for line in header)
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    assert [int(row[0]) for row in rows] == [8 << i for i in range(28)]
    assert all(0 < float(row[8]) <= 100 for row in rows[10:]), "fraction of the bound"
    times = [float(row[5]) for row in rows]
    assert times == sorted(times)
    assert done.stderr == ""


def test_bench_json_says_what_was_simulated():
    done = blinkcoll("bench", "--topo", "dgx1-v100", "--gpus", "0,1,4", "--collective", "all_reduce,broadcast", "-b", "1M", "-e", "16M", "-f", "4", "--json")
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert body["schema"] == 3 and body["simulated"] is True and body["topology"]["gpus"] == [0, 1, 4]
    assert {row["collective"] for row in body["rows"]} == {"allreduce", "broadcast"}
    assert {row["library"] for row in body["rows"]} == {"blinkcoll", "nccl", "baidu-ring"}
    for row in body["rows"]:
        assert row["nbytes"] / row["time_us"] / 1e3 == pytest.approx(row["algbw"])
        assert row["algbw"] <= row["bound"] * (1 + 1e-9), "no simulated rate exceeds the bound"
        factor = Fraction(4, 3) if row["collective"] == "allreduce" else 1
        assert row["busbw"] == pytest.approx(row["algbw"] * float(factor))


def test_the_order_of_gpus_is_the_order_of_ranks():
    done = blinkcoll("bench", "--topo", "dgx1-p100", "--gpus", "5,1,0", "--collective", "broadcast", "-b", "1M", "-e", "1M")
    assert done.returncode == 0 and "GPUs 5,1,0 as ranks 0..2" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["bench", "--topo", "dgx9"], 2, "neither a file nor a layout"),
        (["bench", "--topo", "dgx1-v100", "--gpus", "0,9"], 2, "no device 9"),
        (["bench", "--topo", "dgx1-v100", "--gpus", "a"], 2, "no device 'a'"),
        (["bench", "--topo", "dgx1-v100", "--gpus", "0,0"], 2, "gpu0 is listed 2 times"),
        (["bench", "--topo", "dgx1-v100", "-b", "lots"], 2, "not a size"),
        (["bench", "--topo", "dgx1-v100", "-b", "2M", "-e", "1M"], 2, "no size"),
        (["bench", "--topo", "dgx1-v100", "--collective", "gossip"], 2, "gossip"),
        (["bench", "--topo", "dgx1-v100", "-d", "quad"], 2, "quad"),
        (["bench", "--topo", "dgx1-v100", "--compare", "magic", "-e", "8"], 2, "magic: no such baseline"),
        (["bench", "--topo", "dgx1-v100", "--collective", "broadcast", "--root", "8"], 2, "not a rank"),
        (["bench"], 2, "--topo"),
        (["bench", "--topo", "dgx1-v100", "--gpus", "²"], 2, "no device"),
        (["bench", "--topo", "dgx1-v100", "-e", "100000000T"], 2, "sizes go up to"),
        (["bench", "--topo", "dgx1-v100", "--root", "3"], 2, "has no root"),
        (["bench", "--topo", "dgx1-v100*2"], 2, "RATE in GB/s a NIC"),
        (["bench", "--topo", "dgx9", "--sweep"], 2, "neither a file nor a layout"),
        (["bench", "--topo", "dgx9", "--model", "vgg16"], 2, "neither a file nor a layout"),
        (["bench", "--topo", "dgx9", "--run", "-n", "2"], 2, "neither a file nor a layout"),
        (["plan", "--topo", "dgx9"], 2, "neither a file nor a layout"),
        (["plan", "--topo", "dgx1-v100", "--gpus", "0,9"], 2, "no device 9"),
        (["simulate", "--topo", "dgx9"], 2, "neither a file nor a layout"),
        (["simulate", "--topo", "dgx1-v100", "--gpus", "a"], 2, "no device 'a'"),
        (["bench", "--topo", __file__], 1, "no known format"),
        (["plan", "--topo", "dgx1-v100", "--nbytes", "many"], 2, "not a size"),
        (["plan", "--topo", "dgx1-v100", "--collective", "broadcast"], 1, "root"),
        (["plan", "--topo", "dgx1-v100", "--gpus", "0"], 1, "single rank"),
    ],
)
def test_bad_use_is_told_in_words(arguments, code, message):
    done = blinkcoll(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_plan_draws_trees_and_proves_the_bound(tmp_path):
    done = blinkcoll("plan", "--topo", "dgx1-v100", "--gpus", "0,1,2,4", "--program", str(tmp_path / "p.json"))
    assert done.returncode == 0, done.stderr
    assert "rate 40 GB/s, optimal" in done.stdout and "└─" in done.stdout and "40 of 40 (100 %)" in done.stdout
    import blinkcoll as bc

    bc.verify(bc.Program.from_json((tmp_path / "p.json").read_text()))


def test_plan_json_is_exact():
    done = blinkcoll("plan", "--topo", "dgx1-v100", "--json")
    body = json.loads(done.stdout)
    assert Fraction(body["rate"]) == Fraction(body["bound"]) == Fraction(480, 7) and body["optimal"] is True
    assert sum(Fraction(t["rate"]) for t in body["trees"]) == Fraction(480, 7)


def test_a_full_disk_is_told(tmp_path):
    done = blinkcoll("plan", "--topo", "dgx1-v100", "--program", "/dev/full")
    assert done.returncode in (1, 2) and "No space left" in done.stderr


def test_output_that_cannot_be_written_is_told():
    done = subprocess.run(["bash", "-c", f"{BLINKCOLL} bench --topo dgx1-v100 -e 1K --compare baidu-ring > /dev/full"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_output_into_a_closed_pipe_is_no_traceback():
    done = subprocess.run(["bash", "-c", f"{BLINKCOLL} bench --topo dgx1-v100 -e 1K | true"], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
