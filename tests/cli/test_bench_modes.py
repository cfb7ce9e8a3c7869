"""``blinkcoll bench``: every option does what it says or is refused; JSON, CSV, plots, the sweep, the training step."""

from __future__ import annotations

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from blinkcoll.cli import app
from blinkcoll.cli.sweep import allocation_classes
from blinkcoll.selection import select
from blinkcoll.topology import load_topology

THREE = ["bench", "--topo", "dgx1-v100", "--gpus", "0,1,4"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2 and result.stdout == "", (result.exit_code, result.output)
    return " ".join(result.stderr.replace("│", "").split())


def data(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_all_eight_collectives_are_benched():
    body = json.loads(invoke(*THREE, "--collective", "all", "-b", "1M", "-e", "1M", "--json"))
    names = [row["collective"] for row in body["rows"] if row["library"] == "blinkcoll"]
    assert names == ["broadcast", "reduce", "allreduce", "allgather", "reducescatter", "gather", "scatter", "alltoall"]
    for row in body["rows"]:
        assert {"collective", "nbytes", "algorithm", "program", "time_us", "algbw", "busbw", "bound"} <= set(row)
        sharded = row["collective"] in ("allgather", "reducescatter", "gather", "scatter", "alltoall")
        assert row["nbytes"] % (4 * 3 if sharded else 4) == 0
        assert row["algbw"] <= row["bound"] * (1 + 1e-9)


def test_csv_and_json_have_the_same_rows():
    arguments = (*THREE, "-b", "64K", "-e", "1M", "-f", "4", "--compare", "nccl,direct,gloo-ring")
    rows = json.loads(invoke(*arguments, "--json"))["rows"]
    read = list(csv.DictReader(io.StringIO(invoke(*arguments, "--csv"))))
    assert len(read) == len(rows) == 3 * 4
    for one, other in zip(read, rows, strict=True):
        assert {name: str(value) if value is not None else "" for name, value in other.items()} == one


def test_the_rows_are_what_selection_says():
    (row,) = json.loads(invoke(*THREE, "-b", "4M", "-e", "4M", "--compare", "nccl", "--json"))["rows"][:1]
    chosen = select(load_topology("dgx1-v100").subset([0, 1, 4]), "allreduce", 4 << 20)
    assert (row["time_us"], row["program"], row["algorithm"]) == (chosen.time_us, chosen.program.hash, chosen.algorithm)


def test_every_bound_says_of_what_it_is_one():
    arguments = ("bench", "--topo", "hgx-h100", "-b", "1M", "-e", "64M", "-f", "64", "--compare", "nccl")
    small, nccl_small, large, nccl_large = json.loads(invoke(*arguments, "--json"))["rows"]
    assert {small["model"], nccl_small["model"]} == {"NVLINK"}
    assert large["algorithm"] == "nvls" and {large["model"], nccl_large["model"]} == {"multicast/reduce switches"}
    assert large["bound"] == pytest.approx(370.8) and small["bound"] < 212
    text = invoke(*arguments)
    assert "held to 370.8 GB/s (multicast/reduce switches)" in text


def test_where_a_baseline_is_faster_the_verdict_says_so():
    """Two channels move less than the twelve that NCCL runs there."""
    verdict = invoke("bench", "--topo", "dgx1-v100", "-b", "64M", "-e", "64M", "--max-channels", "2", "--compare", "nccl").splitlines()[-2]
    assert "slower at 64 MiB, where that runs 12 channels" in verdict


def test_no_baselines_are_compared_where_none_is_named():
    text = invoke(*THREE, "-b", "1M", "-e", "1M", "--compare", "")
    assert "nccl" not in text and len(data(text)) == 1


def test_sizes_grow_by_a_factor_or_a_step():
    assert [row[0] for row in data(invoke(*THREE, "-b", "1M", "-e", "4M", "-i", "1M"))] == [str(i << 20) for i in (1, 2, 3, 4)]
    assert "not both" in refused(*THREE, "-i", "1M", "-f", "2")
    assert "more than" in refused(*THREE, "-i", "0")
    assert "sizes start at 1 byte" in refused(*THREE, "-b", "0")
    assert "-e has to be at least -b" in refused(*THREE, "-b", "1M", "-e", "1K")
    assert "more than" in refused(*THREE, "-b", "8", "-e", "1G", "-i", "8")


def test_the_operation_is_shown_where_the_collective_reduces():
    assert data(invoke(*THREE, "-b", "1M", "-e", "1M", "-o", "max"))[0][3] == "max"
    assert data(invoke(*THREE, "-b", "1M", "-e", "1M", "-o", "max", "--collective", "broadcast"))[0][3] == "none"
    assert "one of" in refused(*THREE, "-o", "xor")


def test_iterations_and_warmups_are_said_to_change_nothing():
    result = CliRunner().invoke(app, [*THREE, "-b", "1M", "-e", "1M", "-n", "20", "-w", "5"])
    assert result.exit_code == 0 and "-n and -w change nothing" in result.stderr


def test_every_baseline_fits_beside():
    text = invoke(*THREE, "-b", "1M", "-e", "4M", "--compare", "all")
    assert "[1] nccl" in text and "[10]" in text
    assert max(map(len, (line for line in text.splitlines() if not line.startswith("#")))) <= 220
    plain = invoke(*THREE, "-b", "1M", "-e", "4M")
    assert max(map(len, (line for line in plain.splitlines() if not line.startswith("#")))) <= 190


def test_a_verdict_in_two_lines_ends_the_table():
    first, second = invoke(*THREE, "-b", "64K", "-f", "16").splitlines()[-2:]
    assert first.startswith("# Verdict: up to ") and "faster than nccl" in first and "never slower" in first
    assert "% of the bound of 32 GB/s (all links) is reached" in second and "packed plan" in second


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_plots_are_drawn(tmp_path, ending):
    pytest.importorskip("matplotlib")
    target = tmp_path / f"bench.{ending}"
    invoke(*THREE, "-b", "1K", "-e", "16M", "-f", "8", "--collective", "allreduce,broadcast", "--plot", str(target))
    magic = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
    assert target.read_bytes().startswith(magic) and target.stat().st_size > 10_000


def test_a_plot_of_no_known_kind_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    result = CliRunner().invoke(app, [*THREE, "-b", "1M", "-e", "1M", "--plot", str(tmp_path / "bench.gif9")])
    assert result.exit_code == 1 and "gif9" in str(result.exception)
    result = CliRunner().invoke(app, [*THREE, "-b", "1M", "-e", "1M", "--plot", str(tmp_path / "nowhere" / "bench.png")])
    assert result.exit_code == 1 and "no directory" in str(result.exception)


@pytest.mark.parametrize(("layout", "count"), [("dgx1-v100", 46), ("dgx1-p100", 14), ("dgx2", 14), ("ac922", 1)])
def test_the_sweep_has_the_classes_that_blink_counts(layout, count):
    assert len(allocation_classes(load_topology(layout))) == count


def test_a_sweep_has_a_row_a_class_with_means_and_the_paper_beside():
    text = invoke("bench", "--topo", "dgx1-p100", "--sweep", "--collective", "broadcast")
    assert len(data(text)) == 14
    assert "SIMULATED" in text and "geometric mean" in text and "against nccl-2.4" in text
    assert "# the paper" in text and "up to 3x, geometric mean 1.6x" in text
    assert "# bounds are those of: all links for 14 of 14 classes" in text


def test_a_sweep_in_json_names_the_gpus():
    body = json.loads(invoke("bench", "--topo", "ac922", "--sweep", "--collective", "allreduce", "--compare", "nccl", "-b", "1M", "--json"))
    assert body["nbytes"] == 1 << 20 and len(body["rows"]) == 2
    assert {tuple(row["gpus"]) for row in body["rows"] if row["library"] == "nccl"} == {
        tuple(row["gpus"]) for row in body["rows"] if row["library"] == "blinkcoll"
    }


def test_a_training_step_is_never_slower_with_selection():
    body = json.loads(invoke(*THREE, "--model", "alexnet", "--json"))
    times = {row["library"]: row for row in body["rows"]}
    assert body["model"]["parameters"] == 61_100_840 and sum(body["model"]["buckets"]) == 4 * 61_100_840
    for name in ("nccl-2.4", "nccl-2.7", "nccl"):
        assert times["blinkcoll"]["communication_us"] <= times[name]["communication_us"] * 1.005
        assert times["blinkcoll"]["iteration_us"] <= times[name]["iteration_us"] * 1.005


def test_a_training_step_as_a_table_names_its_source():
    text = invoke(*THREE, "--model", "resnet50", "--bucket", "10M", "--batch", "8")
    assert "cnn-benchmarks" in text and "step of 8 images" in text and len(data(text)) == 1
    given = invoke(*THREE, "--model", "resnet18", "--images-per-second", "1000", "--batch", "8", "--csv")
    assert float(next(csv.DictReader(io.StringIO(given)))["compute_us"]) == pytest.approx(8000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "--gpus", "0,1"], "--sweep takes no --gpus"),
        (["--sweep", "-e", "1G"], "--sweep takes no -e"),
        (["--sweep", "--model", "vgg16"], "not both"),
        (["--model", "vgg16", "-b", "8"], "--model takes no -b"),
        (["--model", "vgg16", "--collective", "broadcast"], "--model takes no --collective"),
        (["--model", "lenet"], "one of alexnet"),
        (["--model", "vgg16", "--images-per-second", "0"], "positive"),
        (["--bucket", "1M"], "belong to --model"),
        (["--json", "--csv"], "not both"),
    ],
)
def test_options_that_would_do_nothing_are_refused(arguments, message):
    assert message in refused("bench", "--topo", "dgx1-v100", *arguments)
