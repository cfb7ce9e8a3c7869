"""Costs in closed form, and the few formulas that the simulator, the tables and the schedulers share."""

from .chunks import default_chunk_bytes
from .factors import algbw_gb_s, busbw_factor, busbw_gb_s

__all__ = ["algbw_gb_s", "busbw_factor", "busbw_gb_s", "default_chunk_bytes"]
