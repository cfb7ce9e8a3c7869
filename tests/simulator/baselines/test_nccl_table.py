"""The tables in the documentation are the ones that the code prints."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from blinkcoll.simulator.baselines.nccl.table import DGX1, class_table, machine_table, subsets_table
from blinkcoll.topology import load_topology, unique_subsets

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "baselines.md"


@pytest.fixture(scope="module")
def text() -> str:
    if not DOCUMENT.exists():
        pytest.skip(f"{DOCUMENT} is not beside the tests")
    return DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("layout", DGX1)
def test_lines_of_some_classes_are_up_to_date(text, layout):
    whole = load_topology(layout)
    classes = [topology for k in range(3, whole.nranks + 1) for topology in unique_subsets(whole, k)]
    lines = subsets_table(Random(3).sample(classes, 5)).splitlines()
    assert not [line for line in lines if line not in text], "run python -m blinkcoll.simulator.baselines.nccl.table and paste its output"


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "classes"), [("dgx1-v100", 46), ("dgx1-p100", 14)])
def test_the_table_of_every_class_is_up_to_date(text, layout, classes):
    table = class_table(layout)
    assert layout in DGX1
    assert len(table.splitlines()) == 2 + classes
    assert table in text, "run python -m blinkcoll.simulator.baselines.nccl.table and paste its output"


def test_the_table_of_machines_is_up_to_date(text):
    assert machine_table() in text
