"""NCCL's plans on one server, by a rebuilding of its own graph search (versions 2.30.7, 2.7.8 and 2.4.8).

What NCCL would do is what any claim of being faster is measured against, so it is rebuilt from the sources rather than
guessed: the same model of the server, the same paths, the same order of search with the same limits in steps, the same
tuner. ``docs/baselines.md`` names the files and functions, and where this departs from them.
"""

from .compute import Graph
from .plan import NcclPlan, search
from .programs import nccl_program, program_across_servers, program_of_choice
from .system import CPU_MODELS
from .tuner import Choice, nvls_channels
from .versions import VERSIONS, Version

__all__ = [
    "CPU_MODELS", "VERSIONS", "Choice", "Graph", "NcclPlan", "Version", "nccl_program", "nvls_channels", "program_across_servers",
    "program_of_choice", "search",
]  # fmt: skip
