"""Inputs that every rank can make for every other, and what numpy makes of them: the oracle of measured runs.

Values are small whole numbers, so few and so small that sums and products of all ranks are exact in every dtype and in any order;
what a collective returns is then right to the last bit, or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce as fold
from typing import Any

import numpy as np

from ..errors import ExecutionError
from ..schedules.contract import elements, view

Array = np.ndarray[Any, np.dtype[Any]]

#: nccl-tests' names of element types, to numpy's; bfloat16 is kept as its bits.
NUMPY_NAMES = {
    "int8": "int8", "uint8": "uint8", "int32": "int32", "uint32": "uint32", "int64": "int64", "uint64": "uint64",
    "half": "float16", "float": "float32", "double": "float64", "bfloat16": "bfloat16",
}  # fmt: skip
#: Up to which whole numbers are exact.
_EXACT = {"float16": 1 << 11, "float32": 1 << 24, "float64": 1 << 53, "bfloat16": 1 << 8, "int8": 127, "uint8": 255}
_LARGEST = 9
_COMBINE: dict[str, Callable[[Array, Array], Array]] = {
    "sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A collective with one choice of everything: ``count`` is of the whole, ``dtype`` numpy's name or bfloat16."""

    collective: str
    count: int
    dtype: str
    op: str
    root: int | None

    @property
    def storage(self) -> np.dtype[Any]:
        """What arrays hold elements as."""
        return np.dtype(np.uint16 if self.dtype == "bfloat16" else self.dtype)

    @property
    def nbytes(self) -> int:
        """The collective's size, as nccl-tests counts it."""
        return self.count * self.storage.itemsize


def held(case: Case, buffer: str, rank: int, nranks: int) -> slice:
    """Which elements of the whole a rank's input or output is."""
    size = elements(case.collective, buffer, rank, case.root, nranks, case.count)
    first = rank * size if view(case.collective, buffer, rank, case.root) == "own" else 0
    return slice(first, first + size)


def make_input(case: Case, rank: int, nranks: int) -> Array:
    """A rank's input; empty where it has none. The same wherever it is made."""
    part = held(case, "input", rank, nranks)
    return _stored(_values(case, rank, nranks, part.stop - part.start), case.dtype)


def expected_output(case: Case, rank: int, nranks: int) -> Array:
    """What a rank must end with; empty where it gets nothing."""
    mine = held(case, "output", rank, nranks)

    def values(source: int) -> Array:
        part = held(case, "input", source, nranks)
        return _values(case, source, nranks, part.stop - part.start)

    if mine.stop == mine.start:
        return _stored(np.zeros(0, np.int8), case.dtype)
    if case.collective in ("allreduce", "reduce", "reducescatter"):
        return _stored(_combined(case, values, mine, nranks), case.dtype)
    if case.collective in ("allgather", "gather"):
        return _stored(np.concatenate([values(source) for source in range(nranks)]), case.dtype)
    if case.collective == "alltoall":
        size = case.count // nranks
        return _stored(np.concatenate([values(source)[rank * size : (rank + 1) * size] for source in range(nranks)]), case.dtype)
    assert case.root is not None and case.collective in ("broadcast", "scatter"), case
    return _stored(values(case.root)[mine], case.dtype)


def count_wrong(got: Array, want: Array) -> int:
    """How many elements differ."""
    return got.size + want.size if got.size != want.size else int(np.count_nonzero(got != want))


def as_argument(array: Array, dtype: str) -> Any:
    """What a communicator takes for these elements.

    Raises
    ------
    ExecutionError
        Where bfloat16 is asked for and neither torch nor ml_dtypes is there to name it.
    """
    if dtype != "bfloat16":
        return array
    try:
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    except ImportError:
        pass
    try:
        import torch
    except ImportError:
        raise ExecutionError("arrays of bfloat16 need ml_dtypes or torch; neither is installed") from None
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def _values(case: Case, rank: int, nranks: int, size: int) -> Array:
    rng = np.random.default_rng([case.count & 0xFFFFFFFF, rank])
    if case.op == "prod" and case.collective in ("allreduce", "reduce", "reducescatter"):
        signs: Array = rng.integers(0, 2, size, dtype=np.int8)
        if _signed(case.dtype):
            return 1 + signs if rank == 0 else signs * 2 - 1
        return np.where(np.arange(size) % nranks == rank, 1 + signs, np.int8(1))  # one factor an element may be 2
    most = max(1, min(_LARGEST, _EXACT.get(case.dtype, 1 << 31) // nranks))
    return rng.integers(-most if _signed(case.dtype) else 0, most, size, dtype=np.int8, endpoint=True)


def _signed(dtype: str) -> bool:
    return not dtype.startswith("uint")


def _combined(case: Case, values: Callable[[int], Array], part: slice, nranks: int) -> Array:
    wide = np.float64 if "float" in case.dtype else np.int64
    total: Array = fold(_COMBINE[case.op], (values(rank)[part].astype(wide) for rank in range(nranks)))
    if case.op != "avg":
        return total
    if wide is np.int64:
        total = np.sign(total) * (np.abs(total) // nranks)  # towards zero, as C++ divides
        return total
    return total / nranks if case.dtype == "float64" else total.astype(np.float32) / np.float32(nranks)


def _stored(values: Array, dtype: str) -> Array:
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded: Array = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16)  # to nearest, ties to even; no NaN comes here
