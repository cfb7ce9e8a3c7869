"""The event-driven simulator: programs timed without hardware, and the baselines they are compared with."""

from ..cost.parameters import DEFAULT_LAUNCH, FLUID, LAUNCH_MODES, Launch, Parameters, Protocol, parameters_for
from .critical_path import CriticalPath, critical_path
from .result import SimulationResult, StepRecord
from .run import run

__all__ = [
    "DEFAULT_LAUNCH", "FLUID", "LAUNCH_MODES", "CriticalPath", "Launch", "Parameters", "Protocol", "SimulationResult", "StepRecord",
    "critical_path", "parameters_for", "run",
]  # fmt: skip
