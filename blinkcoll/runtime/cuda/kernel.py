"""The kernel: its source, and its PTX per architecture."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..launch import DTYPES, OPS
from .nvrtc import compile_ptx

#: Architectures the kernel is compiled and tested for.
ARCHITECTURES = ("sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
KERNEL = "blinkcoll_run"
SOURCE = Path(__file__).resolve().parents[2] / "csrc"


@lru_cache(maxsize=128)
def kernel_ptx(arch: str, dtype: str = "float32", op: str = "sum", multicast: bool = False, whole_lines: bool = False) -> str:
    """The PTX of ``csrc/cuda/run.cu`` for an architecture (``"sm_80"``), reducing one dtype by one operation.

    ``multicast``: for programs with operands of all ranks; others do without what these need. ``whole_lines``: whether
    LL128 may rely on stores of 128 bytes (:class:`.device.DeviceLayer`).

    Raises
    ------
    CompileError
        Where NVRTC is missing or does not know the architecture.
    """
    source = SOURCE / "cuda" / "run.cu"
    # Sums must round as on every other executor: no fused multiply-add, no flushed denormals.
    options = ["--fmad=false", "--ftz=false", f"-DBC_DTYPE={DTYPES[dtype]}", f"-DBC_OP={OPS[op]}", f"-DBC_WHOLE_LINES={int(whole_lines)}", *(["-DBC_MULTICAST"] if multicast else [])]
    return compile_ptx(source.read_text(encoding="utf-8"), arch, name=str(source), include=[str(SOURCE)], options=options)
