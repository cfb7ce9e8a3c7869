"""What all executors share: one verified program, memory set up once, then any number of calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import ExecutionError, WaitTimeout
from ..schedules import Program, encode, verify
from ..schedules.contract import elements, view
from ..schedules.unequal import Counts
from .buffers import RankBuffers, buffers_of, check_count, region_elements
from .launch import Arena, LaunchRecord, Work, describe_work, explain_records, launch_record, lay_out, lay_out_host
from .shards import Shards, shards_of

Array = np.ndarray[Any, np.dtype[Any]]
#: About three years: what 64 bits of nanoseconds hold is far more.
_LONGEST_S = 1e8


class Executor(ABC):
    """Runs one program again and again.

    Parameters
    ----------
    program
        Verified before anything is set up; ``executor.program_hash`` names it.
    max_count
        The most elements of any call, in the collective's sense: all shards together where ranks have a shard each.
    dtype
        A numpy dtype, or ``"bfloat16"``, whose arrays are the bits as uint16. Reductions take float64, float32, float16,
        bfloat16, int64, int32, int16, int8, uint8 and bool; what only copies takes any.
    op
        ``"sum"``, ``"prod"``, ``"min"``, ``"max"``; ``"band"``, ``"bor"``, ``"bxor"`` of integers and bool; ``"avg"``
        (a sum divided by the number of ranks; integers towards zero); ``"premul_sum"`` of floats (each rank's input
        times its factor).
    chunk_bytes
        The most bytes of a chunk; the program's own default where None.
    timeout_s
        How long a rank may go without progress before the call fails and says who waited for whom.
    uneven
        Whether calls may give ``counts``: buffers and slots are then as large as if one shard were all of ``max_count``.
    """

    def __init__(
        self, program: Program, *, max_count: int, dtype: Any = np.float32, op: str = "sum",
        chunk_bytes: int | None = None, timeout_s: float = 60.0, uneven: bool = False,
    ) -> None:  # fmt: skip
        verify(program)
        self.dtype_name = "bfloat16" if str(dtype) == "bfloat16" else np.dtype(dtype).name
        self.dtype = np.dtype(np.uint16 if self.dtype_name == "bfloat16" else dtype)
        _check_executable(program, self.dtype, timeout_s)
        self.program = program
        self.program_hash = program.hash
        self.code = encode(program)
        self.op = op
        self.max_count = max_count
        self.timeout_s = timeout_s
        self.uneven = uneven
        if uneven:  # what cannot be is refused here already
            shards_of(program, _no_counts(program))
            check_count(program, max_count, uneven)
        self.chunk_bytes = program.chunk_bytes if chunk_bytes is None else chunk_bytes
        self.epoch = 0
        slot_bytes = self._work(0 if uneven else max_count).slot_bytes
        self.arenas: list[Arena] = [lay_out(program, self.code, rank, slot_bytes) for rank in range(program.nexecutors)]
        self.host_arenas = lay_out_host(program, slot_bytes)
        self._failed = self._closed = False
        self._factors: list[float] = []

    def run(
        self, inputs: Sequence[Array | None], *, in_place: bool = False, factors: Sequence[float] | None = None, counts: Counts | None = None
    ) -> list[Array]:
        """One call of the collective; arrays are taken as flat. It begins and ends on all ranks together.

        Parameters
        ----------
        inputs
            One array a rank, as the collective has it (elements of the executor's dtype): the whole, or the rank's own
            shard. Where a rank has no input (all but the root of a broadcast) it is not looked at and may be None.
        in_place
            Whether input and output are the same memory while it runs. ``inputs`` itself is never written.
        factors
            What each rank's input is multiplied by, for ``premul_sum``.
        counts
            Elements of each rank's shard where they are not equal (all-gather, reduce-scatter, gather, scatter); for an
            all-to-all lowered with ``uneven=True`` a row for each rank, of what it sends to each. The executor must have been
            made with ``uneven=True``.

        Returns
        -------
        list of arrays
            Each rank's output, flat; empty where the collective gives a rank none.

        Raises
        ------
        WaitTimeout
            Where a rank made no progress for ``timeout_s``; says who waited for whom. The executor is of no use after.
        """
        if self._closed:
            raise ExecutionError("this executor was closed")
        if self._failed:
            raise ExecutionError("this executor failed in an earlier call: its counters are in the middle of it; make a new one")
        if in_place and not self.program.in_place:
            raise ExecutionError(f"program {self.program_hash} is not made to be called in place")
        if (factors is not None) != (self.op == "premul_sum") or len(factors or inputs) != len(inputs):
            raise ExecutionError(f"{self.op} with {'no' if factors is None else len(factors)} factors: premul_sum takes one a rank, other operations none")
        shards = self._shards(counts)
        arrays, count = self._check(inputs) if shards is None else self._check_uneven(inputs, shards)
        everyone = range(self.program.nexecutors)
        self._factors = [1.0] * len(everyone)
        self._factors[: len(inputs)] = [1.0] * len(inputs) if factors is None else [float(f) for f in factors]
        bounds = None if shards is None else shards.bounds
        buffers = [buffers_of(self.program, executor, count, in_place, bounds) for executor in everyone]
        self.epoch += 1
        self._failed = True
        outputs = self._run(arrays, self._work(count, shards), buffers)
        self._failed = False
        return outputs[: self.program.nranks]

    def close(self) -> None:
        """Give back what the executor holds; it cannot run any more. Again: nothing."""
        if not self._closed:
            self._closed = True
            self._release()

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def _run(self, inputs: list[Array], work: Work, buffers: list[RankBuffers]) -> list[Array]:
        """One call on memory that is set up."""

    @abstractmethod
    def _release(self) -> None:
        """What close does."""

    def _work(self, count: int, shards: Shards | None = None) -> Work:
        described = (count, self.max_count, self.dtype_name, self.dtype.itemsize, self.op, self.chunk_bytes)
        return describe_work(self.program, *described, uneven=self.uneven, shards=shards)

    def _record(self, work: Work, rank: int, base: int) -> LaunchRecord:
        return launch_record(work, rank, self.arenas[rank], base, self.epoch, self.timeout_s, self._factors[rank])

    def _region_bytes(self, rank: int) -> tuple[int, int, int]:
        """Sizes of a rank's input, output and scratch at ``max_count``; none is empty, so that each has an address."""
        sizes = [max(1, size) * self.dtype.itemsize for size in region_elements(self.program, rank, self.max_count, self.uneven)]
        return sizes[0], sizes[1], sizes[2]

    def _check(self, inputs: Sequence[Array | None]) -> tuple[list[Array], int]:
        """The inputs that the collective looks at (empty arrays for others and for relays), and the count they agree on."""
        program = self.program
        if len(inputs) != program.nranks:
            raise ExecutionError(f"{len(inputs)} inputs for a program of {program.nranks} ranks")
        arrays = [np.zeros(0, dtype=self.dtype)] * program.nexecutors
        first: tuple[int, int] | None = None  # the first rank that has an input, and its size
        for rank, array in enumerate(inputs):
            if view(program.collective, "input", rank, program.root) == "none":
                continue
            if array is None or array.dtype != self.dtype:
                raise ExecutionError(f"rank {rank}: input is {None if array is None else array.dtype}, this executor was made for {self.dtype}")
            first = first or (rank, array.size)
            if array.size != first[1]:
                raise ExecutionError(f"rank {rank}: input has {array.size} elements, rank {first[0]}'s has {first[1]}")
            arrays[rank] = np.ascontiguousarray(array).reshape(-1)
        if first is None:
            return arrays, 1  # a barrier: nothing moves, and one chunk of nothing makes it run
        own = view(program.collective, "input", first[0], program.root) == "own"
        count = first[1] * (program.nranks if own else 1)
        if count > self.max_count:
            raise ExecutionError(f"inputs make {count} elements, this executor was made for at most {self.max_count}")
        check_count(program, count)
        return arrays, count

    def _shards(self, counts: Counts | None) -> Shards | None:
        if counts is None:
            if self.program.collective == "alltoallv":
                raise ExecutionError("alltoallv needs counts: a row for each rank, of what it sends to each")
            return None
        if not self.uneven:
            raise ExecutionError("this executor was made for equal shards; make it with uneven=True to give counts")
        return shards_of(self.program, counts)

    def _check_uneven(self, inputs: Sequence[Array | None], shards: Shards) -> tuple[list[Array], int]:
        """The inputs that the collective looks at (empty arrays for others and for relays), and how many elements there are in all."""
        program, count = self.program, shards.count
        if len(inputs) != program.nranks:
            raise ExecutionError(f"{len(inputs)} inputs for a program of {program.nranks} ranks")
        if count > self.max_count:
            raise ExecutionError(f"counts make {count} elements, this executor was made for at most {self.max_count}")
        arrays = [np.zeros(0, dtype=self.dtype)] * program.nexecutors
        for rank, array in enumerate(inputs):
            if view(program.collective, "input", rank, program.root) == "none":
                continue
            wanted = elements(program.collective, "input", rank, program.root, program.nranks, count, shards.bounds)
            if array is None or array.dtype != self.dtype:
                raise ExecutionError(f"rank {rank}: input is {None if array is None else array.dtype}, this executor was made for {self.dtype}")
            if array.size != wanted:
                raise ExecutionError(f"rank {rank}: input has {array.size} elements, counts say {wanted}")
            arrays[rank] = np.ascontiguousarray(array).reshape(-1)
        return arrays, count

    def _timed_out(self, records: Sequence[bytes]) -> WaitTimeout:
        what = f"{self.program.collective} (program {self.program_hash}, call {self.epoch})"
        return WaitTimeout(f"{what} did not finish:\n  {explain_records(self.program, records, self.timeout_s)}")


def _no_counts(program: Program) -> Counts:
    n = program.nranks
    return [[0] * n] * n if program.collective == "alltoallv" else [0] * n


def _check_executable(program: Program, dtype: np.dtype[Any], timeout_s: float) -> None:
    """What no executor can do is refused before anything is set up."""
    if dtype.hasobject or dtype.itemsize == 0 or not dtype.isnative:
        raise ExecutionError(f"dtype {dtype!r} cannot be moved: elements must be plain data of a fixed size in this machine's byte order")
    if not 0 < timeout_s <= _LONGEST_S:
        raise ExecutionError(f"timeout_s is {timeout_s}, expected more than 0 and at most {_LONGEST_S:g} seconds")
