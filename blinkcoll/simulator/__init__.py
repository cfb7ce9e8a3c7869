"""The event-driven simulator: programs timed without hardware, and the baselines they are compared with."""

from .parameters import Parameters, parameters_for
from .result import SimulationResult
from .run import run

__all__ = ["Parameters", "SimulationResult", "parameters_for", "run"]
