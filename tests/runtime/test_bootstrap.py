"""Ranks that cannot meet say why: docs/failures.md says what each one says, and this is what it says."""

from __future__ import annotations

import pytest
from runtime.bootstrap_table import BEGIN, DOC, END, TRIED

#: What takes a second or more: part of ci/full.
SLOW = {what for what in TRIED if "stopped" in what or "killed while" in what or "two jobs" in what or "two processes" in what}


def documented():
    _, _, rest = DOC.read_text().partition(BEGIN)
    rows = rest.partition(END)[0].strip().splitlines()[2:]
    return {row.split(" | ")[0].removeprefix("| "): row for row in rows}


def test_everything_that_is_tried_is_documented():
    assert list(documented()) == list(TRIED)


@pytest.mark.parametrize("what", [pytest.param(what, marks=[pytest.mark.slow] if what in SLOW else []) for what in TRIED])
def test_ranks_say_what_is_documented(what, tmp_path):
    assert TRIED[what](tmp_path / "store").row(what) == documented()[what]
