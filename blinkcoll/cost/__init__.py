"""Costs in closed form, and what the simulator, the tables and the schedulers share: factors, parameters, chunk sizes."""

from .chunks import default_chunk_bytes
from .estimate import estimate_us
from .factors import algbw_gb_s, busbw_factor, busbw_gb_s
from .miad import MiadTuner
from .parameters import DEFAULT_LAUNCH, FLUID, LAUNCH_MODES, Launch, Parameters, Protocol, parameters_for

__all__ = [
    "DEFAULT_LAUNCH", "FLUID", "LAUNCH_MODES", "Launch", "MiadTuner", "Parameters", "Protocol", "algbw_gb_s", "busbw_factor", "busbw_gb_s",
    "default_chunk_bytes", "estimate_us", "parameters_for",
]  # fmt: skip
