"""`blinkcoll verify` and `blinkcoll show` on files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import blinkcoll as bc
from blinkcoll.schedules import program_text


def blinkcoll(*arguments):
    return subprocess.run([str(Path(sys.executable).parent / "blinkcoll"), *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "program.json"
    path.write_text(bc.plan(bc.load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce").schedule(nbytes=1 << 20, max_channels=2, protocol="simple").to_json(), encoding="utf-8")
    return path


def test_a_written_program_is_verified(tmp_path):
    path = tmp_path / "p.json"
    assert blinkcoll("plan", "--topo", "dgx1-v100", "--gpus", "0,1,4", "--collective", "allgather", "--program", path).returncode == 0
    done = blinkcoll("verify", path)
    assert done.returncode == 0, done.stderr
    assert "is a right allgather of 3 ranks for every count, in place and out of place" in done.stdout
    assert "a rank may begin its next call as soon as its own has ended" in done.stdout


def test_a_wrong_program_is_refused_with_its_place(file):
    program = bc.Program.from_json(file.read_text())
    first = program.ranks[1][0].steps[0]
    broken = tuple(replace(c, steps=(replace(first, wait=()),)) if (r, i) == (1, 0) else c for r, cs in enumerate(program.ranks) for i, c in enumerate(cs))
    sizes = [len(cs) for cs in program.ranks]
    ranks = tuple(tuple(broken[sum(sizes[:r]) : sum(sizes[: r + 1])]) for r in range(3))
    file.write_text(replace(program, ranks=ranks).to_json())
    done = blinkcoll("verify", file)
    assert done.returncode == 1 and done.stdout == ""
    assert "rank 1, channel 0, step 0, iteration 0: uses c0 without having waited for it" in done.stderr


def test_other_files_are_refused(tmp_path, file):
    assert blinkcoll("verify", tmp_path / "absent").returncode == 2
    (tmp_path / "other").write_text("{}")
    assert blinkcoll("verify", tmp_path / "other").returncode == 1
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert blinkcoll("show", tmp_path / "binary").returncode == 2
    body = json.loads(file.read_text())
    body["nshards"] = 7
    file.write_text(json.dumps(body))
    assert "its hash says" in blinkcoll("verify", file).stderr


def test_show_prints_the_text_view(file):
    assert blinkcoll("show", file).stdout == program_text(bc.Program.from_json(file.read_text())) + "\n"


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "alltoall"])
def test_a_summary_of_eight_ranks_fits_a_screen(collective, tmp_path):
    program = bc.plan(bc.load_topology("dgx1-v100"), collective).schedule(nbytes=1 << 20)
    path = tmp_path / "p.json"
    path.write_text(program.to_json())
    shown = blinkcoll("show", path, "--summary").stdout
    assert shown.count("\n") <= 40 and max(map(len, shown.splitlines())) <= 120
    ways = {(c.src, c.dst) for c in program.connections}
    rows = [line.split()[1:] for line in shown.splitlines() if line[:5].strip().isdigit() and len(line.split()) == 9]
    assert [[cell != "." for cell in row] for row in rows] == [[(a, b) in ways for b in range(8)] for a in range(8)]
    assert blinkcoll("show", path, "--summary", "--dot").returncode == 2


def test_show_draws_every_connection_once(file):
    program = bc.Program.from_json(file.read_text())
    dot = blinkcoll("show", file, "--dot").stdout
    assert dot.startswith(f'digraph "{program.hash}" {{') and dot.endswith("}\n")
    for i, c in enumerate(program.connections):
        assert dot.count(f'r{c.src} -> r{c.dst} [color="#1f77b4", label="c{i}"];') == 1
    assert blinkcoll("show", file, "--share", "0").returncode == 2
    assert blinkcoll("show", file, "--dot", "--share", "1").returncode == 2
