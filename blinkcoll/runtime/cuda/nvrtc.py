"""CUDA C++ to PTX text through NVRTC: no driver, no toolkit, no GPU.

The library is the one of the ``nvidia-cuda-nvrtc-cu12`` (or ``-cu13``) wheel, or one that the loader finds.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ...errors import CompileError


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    tried = []
    for candidate in (*_wheel_libraries(), "libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"):
        try:
            return ctypes.CDLL(candidate)
        except OSError as error:
            tried.append(f"{candidate} ({error})")
    raise CompileError(f"no NVRTC library found; pip install nvidia-cuda-nvrtc-cu12. Tried: {'; '.join(tried)}")


def _wheel_libraries() -> list[str]:
    found: list[str] = []
    for package, pattern in (("nvidia.cuda_nvrtc", "lib/libnvrtc.so.*"), ("nvidia.cu13", "lib/libnvrtc.so.*")):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found += [str(path) for path in sorted(Path(folder).glob(pattern)) if "alt" not in path.name]
    return found


def compile_ptx(source: str, arch: str, *, name: str = "kernel.cu", include: Sequence[str] = (), options: Sequence[str] = ()) -> str:
    """Compile device code.

    Parameters
    ----------
    source
        CUDA C++ without host code.
    arch
        ``"sm_70"`` and the like.
    include
        Folders for ``#include``.

    Raises
    ------
    CompileError
        With the compiler's log, where it refuses the source or the architecture; or where no NVRTC is installed.
    """
    library = _library()
    program = ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None), "nvrtcCreateProgram")
    try:
        arguments = [f"--gpu-architecture={arch.replace('sm_', 'compute_')}", "--std=c++17", *(f"--include-path={folder}" for folder in include), *options]
        array = (ctypes.c_char_p * len(arguments))(*(a.encode() for a in arguments))
        status = library.nvrtcCompileProgram(program, len(arguments), array)
        if status:
            raise CompileError(f"NVRTC refused {name} for {arch}:\n{_text(program, 'ProgramLog')}")
        return _text(program, "PTX")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    _check(getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)), f"nvrtcGet{what}Size")
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(_library(), f"nvrtcGet{what}")(program, buffer), f"nvrtcGet{what}")
    return buffer.value.decode()


def _check(status: int, call: str) -> None:
    if status:
        get = _library().nvrtcGetErrorString
        get.restype = ctypes.c_char_p
        raise CompileError(f"{call}: {get(status).decode()}")
