"""The simulator against published nccl-tests results: the targets of docs/simulator.md."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from statistics import median

import pytest

_SPEC = importlib.util.spec_from_file_location("simulator_validation", Path(__file__).with_name("validation.py"))
assert _SPEC is not None and _SPEC.loader is not None
validation = importlib.util.module_from_spec(_SPEC)
sys.modules["simulator_validation"] = validation
_SPEC.loader.exec_module(validation)

TIMINGS = [t for t in validation.read_timings() if not t.anchors]


def test_large_sizes_are_within_15_percent_in_the_median():
    large = [t for t in TIMINGS if t.size_bytes >= 64_000_000]
    assert len(large) >= 39
    off = sorted((abs(e), t) for e, t in zip(validation.errors(large), large, strict=True))
    assert median(e for e, _ in off) <= 0.15, off[-5:]
    assert off[-1][0] <= 0.35, off[-5:]


@pytest.mark.parametrize("timing", [t for t in TIMINGS if t.size_bytes <= 65536], ids=lambda t: f"{t.machine}-{len(t.gpus)}-{t.size_bytes}")
def test_small_sizes_are_within_a_factor_of_two(timing):
    simulated = validation.simulate(timing)
    assert 0.5 <= simulated / timing.time_us <= 2, (simulated, timing)


def test_every_row_names_its_source():
    assert all(t.source and t.time_us > 0 for t in TIMINGS)


def test_the_document_shows_what_the_script_prints(capsys):
    validation.main()
    page = Path(__file__).resolve().parents[2] / "docs" / "simulator.md"
    printed = capsys.readouterr().out.strip()
    assert printed in page.read_text(encoding="utf-8"), "put the output of tests/simulator/validation.py into docs/simulator.md"
