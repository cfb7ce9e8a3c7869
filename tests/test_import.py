"""`import blinkcoll` costs next to nothing and drags nothing in."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

import blinkcoll


def _seconds(statement: str) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True, cwd="/")
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def test_importing_adds_less_than_three_tenths_of_a_second():
    assert _seconds("import blinkcoll") - _seconds("pass") < 0.3


def test_importing_loads_no_heavy_module():
    code = "import sys, blinkcoll; print([m for m in ('numpy', 'networkx', 'torch', 'cupy', 'highspy', 'typer') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/").stdout.strip() == "[]"


@pytest.mark.parametrize("name", [n for n in blinkcoll.__all__ if n != "__version__"])
def test_every_public_name_loads(name):
    value = getattr(blinkcoll, name)
    assert value.__doc__
    assert not isinstance(value, type(sys)), f"blinkcoll.{name} is a module, not the function of that name"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        blinkcoll.no_such_thing  # noqa: B018
