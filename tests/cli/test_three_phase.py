"""Three-phase plans on the command line: what is printed is what the library says, and stdout is results alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import blinkcoll as bc
from blinkcoll.schedules import Program

BLINKCOLL = str(Path(sys.executable).parent / "blinkcoll")
FRAGMENT = ("--topo", "dgx1-v100*2@12.5", "--gpus", "0,1,4,8,9,10,11,12")


def run(*arguments, code=0):
    done = subprocess.run([BLINKCOLL, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_the_plan_is_printed_with_its_partitions_and_link_use():
    text = run("plan", *FRAGMENT, "--method", "three-phase").stdout
    assert "rate 20 GB/s, 71.4 % of the bound" in text and "partition 0: rate 10 GB/s, 50.0 % of the data" in text
    assert text.count("  server 0  root") == text.count("  server 1  root") == 2
    assert "(83 %)" in text, "10 of a NIC's PCIe link's 12 GB/s"


def test_the_plan_as_json_is_alone_on_stdout_and_exact(tmp_path):
    """Planned by linear programs, whose solver says who it is where nobody stops it."""
    program = tmp_path / "program.json"
    done = run("plan", *FRAGMENT, "--method", "three-phase", "--json", "--program", str(program))
    body = json.loads(done.stdout)
    plan = bc.plan(bc.load_topology("dgx1-v100*2@12.5").subset([0, 1, 4, 8, 9, 10, 11, 12]), "allreduce", method="three-phase")
    assert (body["method"], body["rate"], body["bound"]) == ("three-phase", "20", "28")
    assert [p["rate"] for p in body["partitions"]] == [str(p.rate) for p in plan.partitions] == ["10", "10"]
    assert [len(p["exchange"]) for p in body["partitions"]] == [2, 2]
    assert "one-hop connections, as no engine is given" in done.stderr
    assert Program.from_json(program.read_text()).algorithm == "three-phase"
    assert "is a right allreduce of 8 ranks" in run("verify", str(program)).stdout


def test_opaque_programs_are_verified_and_shown(tmp_path):
    plan = bc.plan(bc.load_topology("dgx1-v100*2@12.5").subset([0, 1, 8]), "broadcast", root=1, method="three-phase")
    file = tmp_path / "opaque.json"
    file.write_text(plan.schedule(nbytes=1 << 20, engine="c10d").to_json())
    assert "is a right broadcast of 3 ranks" in run("verify", str(file)).stdout
    assert "exchange among ranks" in run("show", str(file)).stdout
    assert "digraph" in run("show", str(file), "--dot").stdout


def test_it_is_simulated_and_says_how_exchanges_are_timed():
    text = run("simulate", *FRAGMENT, "--algorithm", "three-phase", "-b", "64M", "-e", "64M").stdout
    assert "SIMULATED" in text and "timed as one-hop connections over the network, as no engine is given" in text
    body = json.loads(run("simulate", *FRAGMENT, "--algorithm", "three-phase", "-b", "64M", "-e", "64M", "--json").stdout)
    assert body["algorithm"] == "three-phase" and 15 < body["rows"][0]["algbw"] < 20


def test_one_server_is_refused_by_name():
    assert "three phases need ranks in at least two servers" in run("plan", "--topo", "dgx1-v100", "--method", "three-phase", code=1).stderr
