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

TIMINGS = [t for t in validation.read_timings() if not t.anchors and not validation.several_servers(t)]


def _ratios(least, most):
    rows = [t for t in TIMINGS if least <= t.size_bytes <= most]
    return sorted(((validation.simulate(t) / t.time_us, t) for t in rows), key=lambda item: item[0])


def test_large_sizes_are_within_15_percent_in_the_median():
    found = _ratios(64_000_000, 1 << 60)
    off = sorted(abs(ratio - 1) for ratio, _ in found)
    assert len(found) >= 160 and len({t.machine for _, t in found}) >= 9
    assert median(off) <= 0.06, found[:5] + found[-5:]
    assert off[len(off) * 9 // 10] <= 0.25 and off[-1] <= 0.35, found[:5] + found[-5:]


@pytest.mark.parametrize("machine", sorted({t.machine for t in TIMINGS if t.size_bytes >= 64_000_000}))
def test_no_machine_is_off_by_more_than_30_percent_at_large_sizes(machine):
    off = [abs(ratio - 1) for ratio, t in _ratios(64_000_000, 1 << 60) if t.machine == machine]
    assert median(off) <= 0.3


def test_small_sizes_are_within_a_factor_of_two_but_for_a_few():
    found = _ratios(0, 65536)
    factors = sorted(max(ratio, 1 / ratio) for ratio, _ in found)
    assert len(found) >= 80
    assert median(factors) <= 1.3
    assert factors[len(factors) * 9 // 10] <= 2 and factors[-1] <= 3, found[:5] + found[-5:]


def test_rows_between_are_within_a_factor_of_two_but_for_a_few():
    factors = sorted(max(ratio, 1 / ratio) for ratio, _ in _ratios(65537, 63_999_999))
    assert median(factors) <= 1.25 and factors[len(factors) * 9 // 10] <= 2


def test_every_row_names_its_source():
    assert all(t.source and t.time_us > 0 for t in TIMINGS)


PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulator.md"


def test_the_document_shows_every_row_that_judges_as_it_is_simulated():
    page = PAGE.read_text(encoding="utf-8").splitlines()
    assert not set(validation.table(TIMINGS)) - set(page), "put the output of tests/simulator/validation.py into docs/simulator.md"


@pytest.mark.slow
def test_the_document_shows_what_the_script_prints(capsys):
    validation.main()
    assert capsys.readouterr().out.strip() in PAGE.read_text(encoding="utf-8"), "put the output of tests/simulator/validation.py into docs/simulator.md"
