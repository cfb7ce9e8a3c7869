"""The tables in the documentation are the ones that the code prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from blinkcoll.simulator.baselines.nccl.table import DGX1, class_table, machine_table

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "baselines.md"


@pytest.fixture(scope="module")
def text() -> str:
    if not DOCUMENT.exists():
        pytest.skip(f"{DOCUMENT} is not beside the tests")
    return DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize(("layout", "classes"), [("dgx1-v100", 46), ("dgx1-p100", 14)])
def test_the_table_of_every_class_is_up_to_date(text, layout, classes):
    table = class_table(layout)
    assert layout in DGX1
    assert len(table.splitlines()) == 2 + classes
    assert table in text, "run python -m blinkcoll.simulator.baselines.nccl.table and paste its output"


def test_the_table_of_machines_is_up_to_date(text):
    assert machine_table() in text
