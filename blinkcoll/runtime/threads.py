"""Host ranks as threads of this process: the executor that tests and small tools use."""

from __future__ import annotations

import ctypes

import numpy as np

from .. import _core
from .executor import Array, Executor
from .launch import ChannelRecord, Work, buffer_table, connection_table, launch_record


class ThreadExecutor(Executor):
    """Every rank on a thread of its own, slots and counters in this process's memory."""

    _memory: list[Array] | None = None

    def _run(self, inputs: list[Array], work: Work, in_place: bool) -> list[Array]:
        memory = self._set_up()
        bases = [m.ctypes.data for m in memory]
        outputs = [a.copy() if in_place else np.zeros_like(a) for a in inputs]
        scratch = [np.zeros_like(a) for a in inputs]
        sources = outputs if in_place else inputs
        table = buffer_table([(i.ctypes.data, o.ctypes.data, s.ctypes.data) for i, o, s in zip(sources, outputs, scratch, strict=True)])
        launches = []
        for rank, arena in enumerate(self.arenas):
            _store(memory[rank], arena.buffers, table)
            launches.append(bytes(launch_record(work, rank, arena, bases[rank], self.epoch, self.timeout_s)))
        if not all(_core.run_threads(launches)):
            raise self._timed_out([_records(m, a.records, len(c)) for m, a, c in zip(memory, self.arenas, self.program.ranks, strict=True)])
        return outputs

    def _release(self) -> None:
        self._memory = None

    def _set_up(self) -> list[Array]:
        if self._memory is None:
            self._memory = [_aligned_zeros(arena.nbytes) for arena in self.arenas]
            table = connection_table(self.program, self.arenas, [m.ctypes.data for m in self._memory])
            for memory, arena in zip(self._memory, self.arenas, strict=True):
                _store(memory, arena.program, self.code)
                _store(memory, arena.connections, table)
        return self._memory


def _aligned_zeros(nbytes: int, alignment: int = 256) -> Array:
    raw = np.zeros(nbytes + alignment, dtype=np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


def _store(memory: Array, offset: int, data: bytes) -> None:
    memory[offset : offset + len(data)] = np.frombuffer(data, dtype=np.uint8)


def _records(memory: Array, offset: int, nchannels: int) -> bytes:
    return memory[offset : offset + nchannels * ctypes.sizeof(ChannelRecord)].tobytes()
