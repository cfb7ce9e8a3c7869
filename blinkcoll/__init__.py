"""blinkcoll: topology-aware collective communication.

Packs spanning trees over the links there are (Blink: Wang et al., MLSys 2020), proves the plans, verifies the programs
made of them, simulates them where there is no GPU and runs them where there is one.

Names load on first use, so that ``import blinkcoll`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load_topology": "topology",
    "Topology": "topology",
    "plan": "api",
    "pareto": "api",
    "Plan": "api",
    "schedule": "api",
    "verify": "api",
    "simulate": "api",
    "select": "selection",
    "Program": "schedules",
    "Communicator": "communicator",
    "Work": "work",
    "FileStore": "runtime.store",
    "BlinkcollError": "errors",
    "TopologyError": "errors",
    "PackingError": "errors",
    "ScheduleError": "errors",
    "SimulationError": "errors",
    "ExecutionError": "errors",
    "WaitTimeout": "errors",
    "RankFailed": "errors",
    "CallMismatch": "errors",
    "Aborted": "errors",
}

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from .api import Plan as Plan
    from .api import pareto as pareto
    from .api import plan as plan
    from .api import schedule as schedule
    from .api import simulate as simulate
    from .api import verify as verify
    from .communicator import Communicator as Communicator
    from .errors import Aborted as Aborted
    from .errors import BlinkcollError as BlinkcollError
    from .errors import CallMismatch as CallMismatch
    from .errors import ExecutionError as ExecutionError
    from .errors import PackingError as PackingError
    from .errors import RankFailed as RankFailed
    from .errors import ScheduleError as ScheduleError
    from .errors import SimulationError as SimulationError
    from .errors import TopologyError as TopologyError
    from .errors import WaitTimeout as WaitTimeout
    from .runtime.store import FileStore as FileStore
    from .schedules import Program as Program
    from .selection import select as select
    from .topology import Topology as Topology
    from .topology import load_topology as load_topology
    from .work import Work as Work


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
