"""``blinkcoll plan``: stages, wishes for few trees, the table of trade-offs and the explanation, in text and JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BLINKCOLL = str(Path(sys.executable).parent / "blinkcoll")


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BLINKCOLL, "plan", *arguments], capture_output=True, text=True, timeout=120)


def test_blinks_stages_are_shown_and_the_solver_is_silent():
    done = plan("--topo", "dgx1-v100", "--collective", "broadcast", "--root", "0", "--method", "blink", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)  # nothing else on stdout, no solver's banner either
    assert made["method"] == "blink" and [stage["name"] for stage in made["stages"]] == ["mwu", "ilp"]
    assert made["stages"][-1] == {"name": "ilp", "trees": 6, "rate": "120"}
    assert made["tree_bound"]["count"] == 4 and made["tree_bound"]["gap"] == 2


def test_few_trees_and_their_bound_are_shown():
    done = plan("--topo", "dgx1-v100", "--collective", "broadcast", "--root", "0", "--minimise", "trees")
    assert "4 trees, depth 7; no plan of this rate has fewer" in done.stdout
    done = plan("--topo", "dgx1-v100", "--max-trees", "1")
    assert "1 tree, depth 4" in done.stdout and "58.3 % of the bound" in done.stdout


def test_an_explanation_names_the_limit_and_who_would_help():
    done = plan("--topo", "dgx1-v100", "--gpus", "0,1,4", "--explain")
    assert "{1 gpu1}  ═╪═  {0 gpu0, 2 gpu4}" in done.stdout
    assert "as a rank: gpu2 or gpu3 or gpu5 would lift it to 40 GB/s (2.00x)" in done.stdout
    done = plan("--topo", "dgx1-v100", "--gpus", "0,1,4", "--explain", "--json")
    told = json.loads(done.stdout)["explanation"]
    assert told["limits"][0]["sides"] == [[1], [0, 2]] and told["gains"][0]["rate"] == "40"


@pytest.mark.parametrize(
    ("topo", "gpus", "collective"), [("hgx-h100", "0,1,2,3,4", "allgather"), ("dgx1-v100*2@12.5", None, "allreduce"), ("dgx1-v100", None, "alltoall"), ("dgx1-v100", "0,1,2", "scatter")]
)  # fmt: skip
def test_every_form_of_limit_can_be_told(topo, gpus, collective):
    done = plan("--topo", topo, *(["--gpus", gpus] if gpus else []), "--collective", collective, *(["--root", "0"] if collective == "scatter" else []), "--explain")
    assert done.returncode == 0, done.stderr
    assert "what limits it" in done.stdout and "one more GPU" in done.stdout


def test_trade_offs_are_a_table():
    done = plan("--topo", "dgx1-p100", "--gpus", "0,1,2,3", "--collective", "broadcast", "--root", "0", "--pareto")
    rows = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    assert rows == [["54", "100.0%", "3", "3", "2"], ["36", "66.7%", "2", "2", "2"], ["18", "33.3%", "1", "1", "1"]]
    done = plan("--topo", "dgx1-p100", "--gpus", "0,1,2,3", "--collective", "broadcast", "--root", "0", "--pareto", "--json")
    assert [len(made["trees"]) for made in json.loads(done.stdout)["plans"]] == [3, 2, 1]


@pytest.mark.parametrize("arguments", [("--pareto", "--explain"), ("--method", "nccl", "--explain"), ("--method", "nccl", "--max-trees", "2"), ("--pareto", "--minimise", "trees")])
def test_what_does_not_go_together_is_a_usage_error(arguments):
    assert plan("--topo", "dgx1-v100", *arguments).returncode == 2


def test_a_wish_that_is_none_fails_with_its_reason():
    done = plan("--topo", "dgx1-v100", "--minimise", "width")
    assert done.returncode == 1 and "minimise must be" in done.stderr
