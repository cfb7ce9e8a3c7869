"""Buffers that are not plain: tensors with DLPack, bfloat16, dtypes that are only copied (float8), views with gaps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ExecutionError
from ..schedules.contract import REDUCING
from .launch import DTYPES
from .shards import Shards

Array = np.ndarray[Any, np.dtype[Any]]


def run_other(
    calls: Any, table: int, name: str, array: Any, out: Any, op: int, divisor: int, factor: float, timeout_ns: int,
    shards: Shards | None = None,
) -> int:  # fmt: skip
    """One call by address; how it ended. Views with gaps are copied before and after.

    Raises
    ------
    ExecutionError
        Where an argument is no array, may not be written, or its dtype cannot be reduced.
    """
    source, dtype = as_array(array, "array")
    target, target_dtype = (source, dtype) if out is None else as_array(out, "out")
    if target_dtype != dtype:
        raise ExecutionError(f"{name}: array is {dtype}, out is {target_dtype}")
    if not target.flags.writeable:
        raise ExecutionError(f"{name}: the array that gets the result may not be written")
    if name in REDUCING and dtype not in DTYPES:
        why = " (float8 is copied only: eight bits do not hold sums)" if dtype.startswith("float8") else ""
        raise ExecutionError(f"{name}: {dtype} cannot be reduced{why}; dtypes that can: {', '.join(DTYPES)}")
    read = np.ascontiguousarray(source)
    written = read if out is None else target if target.flags.c_contiguous else np.ascontiguousarray(target)
    if out is None and read is source:
        written = source
    ended: int = calls.run_addresses(
        table, read.ctypes.data, read.size, written.ctypes.data, written.size, out is None, DTYPES.get(dtype, 0), read.itemsize, op, divisor, factor, timeout_ns,
        *(() if shards is None else (shards.bounds, shards.places or ())),
    )  # fmt: skip
    if written is not target and ended == 0:
        target[...] = written.reshape(target.shape)
    return ended


def as_array(value: Any, what: str) -> tuple[Array, str]:
    """A numpy view of the same memory, and its dtype's name; bfloat16, and torch's float8, as their bits.

    Raises
    ------
    ExecutionError
        Where it has neither the buffer protocol nor DLPack for memory of this host.
    """
    kind = str(getattr(value, "dtype", ""))
    try:
        if kind == "torch.bfloat16" or kind.startswith("torch.float8"):  # torch has them, numpy has not
            import torch

            bits = value.detach().view(torch.int16 if kind == "torch.bfloat16" else torch.uint8)
            return _from_dlpack(bits), kind.removeprefix("torch.")
        if isinstance(value, np.ndarray):
            array = value
        elif hasattr(value, "__dlpack__"):
            array = _from_dlpack(value.detach() if hasattr(value, "detach") else value)
        else:
            array = np.frombuffer(value, dtype=np.uint8) if isinstance(value, (bytes, bytearray)) else np.asarray(memoryview(value))
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise ExecutionError(f"{what}: a {type(value).__name__} is no array in this host's memory: {error}") from None
    if array.dtype.hasobject or array.dtype.itemsize == 0 or not array.dtype.isnative:
        raise ExecutionError(f"{what}: elements of {array.dtype!r} cannot be moved: plain data of a fixed size in this machine's byte order is needed")
    if array.dtype.name == "bfloat16":  # ml_dtypes
        return array.view(np.uint16), "bfloat16"
    return array, array.dtype.name


def copy_of(value: Any) -> Any:
    """The same elements, of the same kind, in memory of their own."""
    if hasattr(value, "clone"):  # a torch tensor
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else as_array(value, "array")[0].copy()


class _Writable:
    """Memory that numpy is told may be written; it lives as long as who looks at it."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def _from_dlpack(value: Any) -> Array:
    """A view of the same memory. A torch tensor may always be written, which releases before DLPack 1.0 have no way to say."""
    array: Array = np.from_dlpack(value)
    return array if array.flags.writeable or not hasattr(value, "data_ptr") else np.asarray(_Writable(array))
