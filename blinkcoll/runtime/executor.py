"""What all executors share: one verified program, memory set up once, then any number of calls."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import ExecutionError, WaitTimeout
from ..schedules import Program, encode, verify
from .launch import Arena, Work, describe_work, explain_records, lay_out

Array = np.ndarray[Any, np.dtype[Any]]
#: About three years: what 64 bits of nanoseconds hold is far more.
_LONGEST_S = 1e8


class Executor:
    """Runs one program again and again.

    Parameters
    ----------
    program
        Verified before anything is set up; ``executor.program_hash`` names it.
    max_count
        The most elements of any call.
    dtype
        A numpy dtype. Reductions need float32; what only copies takes any.
    op
        ``"sum"``.
    chunk_bytes
        The most bytes of a chunk; the program's own default where None.
    timeout_s
        How long a rank may go without progress before the call fails and says who waited for whom.
    """

    def __init__(
        self, program: Program, *, max_count: int, dtype: Any = np.float32, op: str = "sum",
        chunk_bytes: int | None = None, timeout_s: float = 60.0,
    ) -> None:  # fmt: skip
        verify(program)
        _check_executable(program, np.dtype(dtype), timeout_s)
        self.program = program
        self.program_hash = program.hash
        self.code = encode(program)
        self.dtype = np.dtype(dtype)
        self.op = op
        self.max_count = max_count
        self.timeout_s = timeout_s
        self.chunk_bytes = program.chunk_bytes if chunk_bytes is None else chunk_bytes
        self.epoch = 0
        self.arenas: list[Arena] = [
            lay_out(program, self.code, rank, self._work(max_count).slot_bytes) for rank in range(program.nranks)
        ]
        self._failed = self._closed = False

    def run(self, inputs: Sequence[Array], *, in_place: bool = False) -> list[Array]:
        """One call of the collective; arrays are taken as flat.

        Parameters
        ----------
        inputs
            One array a rank, all of the same length (elements of the executor's dtype, up to ``max_count``).
        in_place
            Whether input and output are the same memory while it runs. ``inputs`` itself is never written.

        Returns
        -------
        list of arrays
            Each rank's output, flat. Where the collective gives a rank none: zeros, or in place its input.

        Raises
        ------
        WaitTimeout
            Where a rank made no progress for ``timeout_s``; says who waited for whom. The executor is of no use after.
        """
        if self._closed:
            raise ExecutionError("this executor was closed")
        if self._failed:
            raise ExecutionError("this executor failed in an earlier call: its counters are in the middle of it; make a new one")
        arrays = self._check(inputs)
        self.epoch += 1
        self._failed = True
        outputs = self._run(arrays, self._work(arrays[0].size), in_place)
        self._failed = False
        return outputs

    def close(self) -> None:
        """Give back what the executor holds; it cannot run any more. Again: nothing."""
        if not self._closed:
            self._closed = True
            self._release()

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _run(self, inputs: list[Array], work: Work, in_place: bool) -> list[Array]:
        raise NotImplementedError

    def _release(self) -> None:
        """What close does."""

    def _work(self, count: int) -> Work:
        return describe_work(self.program, count, self.max_count, self.dtype.name, self.dtype.itemsize, self.op, self.chunk_bytes)

    def _check(self, inputs: Sequence[Array]) -> list[Array]:
        if len(inputs) != self.program.nranks:
            raise ExecutionError(f"{len(inputs)} inputs for a program of {self.program.nranks} ranks")
        for rank, array in enumerate(inputs):
            if array.dtype != self.dtype:
                raise ExecutionError(f"rank {rank}: input is {array.dtype}, this executor was made for {self.dtype}")
            if array.size != inputs[0].size:
                raise ExecutionError(f"rank {rank}: input has {array.size} elements, rank 0's has {inputs[0].size}")
        if inputs[0].size > self.max_count:
            raise ExecutionError(f"inputs have {inputs[0].size} elements, this executor was made for at most {self.max_count}")
        return [np.ascontiguousarray(array).reshape(-1) for array in inputs]

    def _timed_out(self, records: Sequence[bytes]) -> WaitTimeout:
        what = f"{self.program.collective} (program {self.program_hash}, call {self.epoch})"
        return WaitTimeout(f"{what} did not finish:\n  {explain_records(self.program, records, self.timeout_s)}")


def _check_executable(program: Program, dtype: np.dtype[Any], timeout_s: float) -> None:
    """What no executor can do is refused before anything is set up."""
    if dtype.hasobject or dtype.itemsize == 0 or not dtype.isnative:
        raise ExecutionError(f"dtype {dtype!r} cannot be moved: elements must be plain data of a fixed size in this machine's byte order")
    if not 0 < timeout_s <= _LONGEST_S:
        raise ExecutionError(f"timeout_s is {timeout_s}, expected more than 0 and at most {_LONGEST_S:g} seconds")
    for i, connection in enumerate(program.connections):
        if connection.protocol != "simple":
            raise ExecutionError(f"c{i} has protocol {connection.protocol}, executors have the simple one only")
