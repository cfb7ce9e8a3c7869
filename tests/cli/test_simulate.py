from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from blinkcoll.cli import app
from blinkcoll.cost import default_chunk_bytes, parameters_for
from blinkcoll.simulator import run
from blinkcoll.simulator.baselines import baseline_program
from blinkcoll.topology import load_topology

THREE = ["simulate", "--topo", "dgx1-v100", "--gpus", "0,1,4"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_row_a_size_and_a_header_that_says_simulated():
    lines = invoke(*THREE, "-b", "1M", "-e", "64M", "-f", "8").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    assert [int(row[0]) for row in rows] == [1 << 20, 1 << 23, 1 << 26]
    assert "SIMULATED" in lines[0] and "dgx1-v100" in lines[1]
    assert any("rates planning, launch process-per-gpu, calls back-to-back, device parameters of V100" in line for line in lines)
    assert lines[-1].startswith("# Critical path of 67108864 B")


def test_json_holds_what_the_simulator_says():
    body = json.loads(invoke(*THREE, "--algorithm", "baidu-ring", "--launch", "one-process", "--rates", "measured", "-b", "1M", "-e", "1M", "--json"))
    topology = load_topology("dgx1-v100").subset([0, 1, 4])
    program = baseline_program("baidu-ring", topology, "allreduce", None, 1 << 20)
    expected = run(program, 1 << 20, chunk_bytes=default_chunk_bytes(program, 1 << 20), rates="measured", params=parameters_for(topology, "one-process"))
    (row,) = body["rows"]
    assert body["simulated"] is True and body["algorithm"] == "baidu-ring" and body["launch"] == "one-process"
    among_many = expected.back_to_back()
    assert (row["time_us"], row["single_call_us"], row["nsteps"]) == (among_many.time_us, expected.time_us, expected.nsteps)
    assert row["link_utilisation"]["gpu1→plx0"] == among_many.link_utilisation[1, "plx0"]


def test_a_call_alone_takes_longer_than_one_of_many_down_a_chain():
    arguments = [*THREE, "--algorithm", "baidu-ring", "--collective", "broadcast", "-b", "16M", "-e", "16M", "--json"]
    alone, among_many = (json.loads(invoke(*arguments, "--calls", how))["rows"][0] for how in ("single", "back-to-back"))
    assert alone["time_us"] == alone["single_call_us"] == among_many["single_call_us"] > among_many["time_us"]


@pytest.mark.parametrize("rates", ["planning", "measured"])
@pytest.mark.parametrize("collective", ["reduce", "all_gather", "reduce_scatter", "alltoall", "gather", "scatter"])
def test_every_collective_has_a_plan_to_simulate(collective, rates):
    (row,) = json.loads(invoke(*THREE, "--collective", collective, "--rates", rates, "-b", "1M", "-e", "1M", "--json"))["rows"]
    assert row["time_us"] > 0


@pytest.mark.parametrize("collective", ["all_reduce", "reduce_scatter", "alltoall", "gather"])
def test_every_collective_of_nccl_can_be_simulated(collective):
    body = json.loads(invoke(*THREE, "--algorithm", "nccl", "--collective", collective, "-b", "64M", "-e", "64M", "--rates", "measured", "--json"))
    assert body["algorithm"].startswith("nccl-2.30") and body["rows"][0]["time_us"] > 0


def test_launch_modes_order_small_calls():
    times = {}
    for mode in ("process-per-gpu", "one-process", "graph"):
        (row,) = json.loads(invoke(*THREE, "--launch", mode, "-b", "8", "-e", "8", "--json"))["rows"]
        times[mode] = row["time_us"]
    assert times["graph"] < times["process-per-gpu"] < times["one-process"]


def test_chunk_sizes_can_be_given():
    (row,) = json.loads(invoke(*THREE, "--algorithm", "trees", "--chunk", "64K", "-b", "1M", "-e", "1M", "--json"))["rows"]
    assert (row["chunk_bytes"], row["nsteps"]) == (1 << 16, 16 * 5)


def test_a_trace_is_written_for_the_last_size(tmp_path):
    target = tmp_path / "trace.json"
    result = CliRunner().invoke(app, [*THREE, "-b", "1M", "-e", "4M", "--trace", str(target)])
    assert result.exit_code == 0 and str(target) in result.stderr and "4194304" in result.stderr
    assert "4194304 bytes" in json.loads(target.read_text())["otherData"]["simulated"]


@pytest.mark.parametrize(
    "arguments",
    [["--launch", "magic"], ["--rates", "best"], ["-d", "float3"], ["-b", "2M", "-e", "1M"], ["--chunk", "big"], ["--chunk", "0"], ["--algorithm", "magic"], ["--calls", "few"], ["--collective", "sum"]],
    ids=lambda a: a[0],
)
def test_bad_usage_exits_2(arguments):
    assert CliRunner().invoke(app, [*THREE, *arguments]).exit_code == 2


def test_our_plans_over_hundreds_of_gpus_are_refused_at_once_and_nccl_s_program_is_timed():
    refused = CliRunner().invoke(app, ["simulate", "--topo", "hgx-h100*180@50", "-b", "1M", "-e", "1M"], env={"COLUMNS": "400"})
    assert refused.exit_code == 2 and "--algorithm nccl" in refused.output
    printed = invoke("simulate", "--topo", "hgx-h100*180@50", "--collective", "allgather", "--algorithm", "nccl", "-b", "64K", "-e", "64K")
    assert "GPUs 0-1439 as ranks 0..1439" in printed and "one server's, simulated for all 1440" in printed
