"""Tests run against the installed package, never against the source tree beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import blinkcoll

sys.path.append(str(Path(__file__).parent))  # for the shared helpers: allocations.py, emulator.py

_TREE = Path(__file__).resolve().parent.parent / "blinkcoll"
if Path(blinkcoll.__file__).resolve().parent == _TREE:
    raise RuntimeError(f"tests must run against the installed package, not {_TREE}; run `pytest`, not `python -m pytest`")
