"""Python's mirrors of the C++ structs are the same size, and the program's bytes read as they were written."""

from __future__ import annotations

import ctypes

from blinkcoll import _core
from blinkcoll.runtime import launch
from blinkcoll.schedules import encoding
from blinkcoll.schedules.split import MOST_OPERANDS


def test_python_mirrors_have_the_sizes_of_the_structs():
    sizes = _core.layout_sizes()
    assert sizes["Launch"] == ctypes.sizeof(launch.LaunchRecord)
    assert sizes["BufferAddresses"] == ctypes.sizeof(launch.BufferAddresses)
    assert sizes["ConnectionAddresses"] == ctypes.sizeof(launch.ConnectionAddresses)
    assert sizes["ChannelRecord"] == ctypes.sizeof(launch.ChannelRecord)
    assert sizes["line"] == launch.LINE_BYTES
    assert sizes["ProgramHeader"] == encoding._HEADER.size
    assert sizes["most_operands"] == MOST_OPERANDS
    entries = {"RankEntry": 8, "ConnectionEntry": 24, "ChannelEntry": 12, "StepEntry": 28, "OperandEntry": 12, "SyncEntry": 8, "AfterEntry": 12}
    assert {name: sizes[name] for name in entries} == entries
