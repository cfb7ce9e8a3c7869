"""`blinkcoll bench --run`: real processes, real data."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blinkcoll.cli import app

BLINKCOLL = str(Path(sys.executable).parent / "blinkcoll")


def blinkcoll(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BLINKCOLL, *arguments], capture_output=True, text=True, timeout=120, **options)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def started(process: subprocess.Popen[str], number: int) -> list[int]:
    """The ranks' processes, once all of them have met (rank 0 says so in the header)."""
    line = process.stdout.readline()
    assert "measured" in line, line
    found = children(process.pid)
    assert len(found) == number
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_gone(pids: list[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, pids))


def test_every_collective_is_measured_and_right_on_three_ranks():
    done = blinkcoll("bench", "--run", "-n", "3", "--collective", "all", "-b", "12", "-e", "48K", "-f", "64", "--iters", "2", "-w", "1", "-r", "2")
    assert done.returncode == 0, done.stderr
    header = [line for line in done.stdout.splitlines() if line.startswith("#")]
    assert "measured, on 3 processes" in header[0] and "SIMULATED" not in done.stdout and "numpy" in header[1] and "mean over ranks of 2 iterations" in header[3]
    assert "# Out of bounds values : 0 OK" in header
    rows = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    assert len(rows) == 8 * 3
    for row in rows:
        assert len(row) == 13 and row[12] == "0" and row[8] in ("0", "N/A") and float(row[9]) > 0
        assert int(row[0]) == 4 * int(row[1])
    assert {row[4] for row in rows} == {"-1", "2"} and {row[3] for row in rows} == {"sum", "none"}


def test_json_has_the_form_of_simulated_runs_and_says_it_is_none():
    done = blinkcoll("bench", "--run", "-n", "2", "--collective", "all_reduce,broadcast", "-b", "1K", "-e", "4K", "-d", "int32", "-o", "max", "--iters", "3", "-a", "3", "--json")
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert isinstance(body["schema"], int) and body["simulated"] is False and body["topology"]["name"] == "host"
    assert body["machine"]["nranks"] == 2 and body["machine"]["iterations"] == 3 and body["machine"]["average"] == 3 and body["machine"]["cpu"]
    rows = body["rows"]
    assert [(r["collective"], r["nbytes"], r["in_place"]) for r in rows] == [
        *(("allreduce", size, in_place) for size in (1024, 2048, 4096) for in_place in (False, True)), *(("broadcast", size, True) for size in (1024, 2048, 4096))
    ]  # fmt: skip
    for row in rows:
        assert row["wrong"] == 0 and row["time_us"] > 0 and row["program"] and row["type"] == "int32"
        assert row["algbw"] == pytest.approx(row["nbytes"] / row["time_us"] / 1e3)
        assert row["busbw"] == pytest.approx(row["algbw"] * float(Fraction(1)))  # 2(n-1)/n of two ranks is 1
        assert row["redop"] == ("max" if row["collective"] == "allreduce" else "none") and row["root"] == (0 if row["collective"] == "broadcast" else None)


def test_csv_and_the_programs_of_a_named_machine():
    done = blinkcoll("bench", "--run", "-n", "3", "--topo", "dgx1-v100", "-b", "64K", "-e", "64K", "--iters", "1", "-w", "0", "--csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["algorithm"] for row in rows] == ["trees", "trees"] and [row["wrong"] for row in rows] == ["0", "0"] and rows[0]["root"] == ""


def test_a_killed_rank_ends_the_run_within_seconds_and_leaves_nothing():
    command = [BLINKCOLL, "bench", "--run", "-n", "3", "-b", "1M", "-e", "1M", "--iters", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ranks = started(process, 3)
        time.sleep(0.5)
        began = time.monotonic()
        os.kill(ranks[1], signal.SIGKILL)
        _, told = process.communicate(timeout=30)
        took = time.monotonic() - began
    assert process.returncode == 1 and re.search(r"rank 1 died: signal 9 \(SIGKILL\)", told), told
    assert took < 10 and all_gone(ranks, 1)


def test_ranks_die_with_the_one_who_started_them():
    command = [BLINKCOLL, "bench", "--run", "-n", "2", "-b", "1M", "-e", "1M", "--iters", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        ranks = started(process, 2)
        process.kill()
        process.wait(10)
    assert all_gone(ranks, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "0,1"], "takes no --gpus"),
        (["--compare", "nccl"], "takes no --compare"),
        (["-n", "1000"], "expected 1 to 256"),
        (["-n", "2", "--collective", "reduce", "--root", "2"], "not a rank"),
        (["-n", "2", "-d", "uint64"], "not reduced"),
        (["-n", "9", "--topo", "dgx1-v100"], "has 8 devices"),
        (["-n", "2", "-i", "8", "-f", "2"], "not both"),
    ],
)
def test_bad_use_is_told_before_anything_starts(arguments, message):
    done = CliRunner().invoke(app, ["bench", "--run", *arguments])
    assert done.exit_code == 2 and done.stdout == "", done.output
    assert message in " ".join(done.stderr.replace("│", "").split())


def test_a_simulated_bench_refuses_what_only_measured_ones_have():
    done = CliRunner().invoke(app, ["bench", "--topo", "dgx1-v100", "-a", "2"])
    assert done.exit_code == 2 and "belongs to --run" in " ".join(done.stderr.replace("│", "").split())
