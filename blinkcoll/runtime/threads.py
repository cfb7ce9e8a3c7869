"""Host ranks as threads of this process: the executor that tests and small tools use."""

from __future__ import annotations

import ctypes

import numpy as np

from .. import _core
from .buffers import RankBuffers, Regions
from .executor import Array, Executor
from .launch import ChannelRecord, Work, buffer_table, connection_table, counter_lines


class ThreadExecutor(Executor):
    """Every rank on a thread of its own, slots and counters in this process's memory."""

    _memory: list[Array] | None = None
    _host: list[Array] | None = None

    def _run(self, inputs: list[Array], work: Work, buffers: list[RankBuffers]) -> list[Array]:
        memory = self._set_up()
        held = [[np.zeros(nbytes, dtype=np.uint8) for nbytes in self._region_bytes(rank)] for rank in range(self.program.nexecutors)]
        regions = [(i.ctypes.data, o.ctypes.data, s.ctypes.data) for i, o, s in held]
        table = buffer_table([b.addresses(r, work.elem_size) for b, r in zip(buffers, regions, strict=True)])
        launches = []
        for rank, arena in enumerate(self.arenas):
            ctypes.memmove(buffers[rank].input_at(regions[rank], work.elem_size), inputs[rank].ctypes.data, inputs[rank].nbytes)
            _store(memory[rank], arena.buffers, table)
            if work.shards is not None:
                _store(memory[rank], arena.shards, work.shards.table())
            launches.append(bytes(self._record(work, rank, memory[rank].ctypes.data)))
        if not all(_core.run_threads(launches)):
            raise self._timed_out([_records(m, a.records, len(c)) for m, a, c in zip(memory, self.arenas, self.program.ranks, strict=True)])
        return [self._output(b, r, work.elem_size) for b, r in zip(buffers, regions, strict=True)]

    def _output(self, buffers: RankBuffers, regions: Regions, elem_size: int) -> Array:
        nbytes = buffers.output * elem_size
        return np.frombuffer(ctypes.string_at(buffers.output_at(regions, elem_size), nbytes), dtype=self.dtype)

    def _release(self) -> None:
        self._memory = self._host = None

    def _set_up(self) -> list[Array]:
        if self._memory is None:
            self._memory = [_aligned_zeros(arena.nbytes) for arena in self.arenas]
            self._host = [_aligned_zeros(arena.nbytes) for arena in self.host_arenas]
            bases, host_bases = ([m.ctypes.data for m in memory] for memory in (self._memory, self._host))
            table = connection_table(self.program, self.arenas, bases, self.host_arenas, host_bases)
            for memory, arena in zip(self._memory, self.arenas, strict=True):
                _store(memory, arena.program, self.code)
                _store(memory, arena.connections, table)
                for at, line in counter_lines(arena):
                    _store(memory, at, line)
        return self._memory


def _aligned_zeros(nbytes: int, alignment: int = 256) -> Array:
    raw = np.zeros(nbytes + alignment, dtype=np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


def _store(memory: Array, offset: int, data: bytes) -> None:
    memory[offset : offset + len(data)] = np.frombuffer(data, dtype=np.uint8)


def _records(memory: Array, offset: int, nchannels: int) -> bytes:
    return memory[offset : offset + nchannels * ctypes.sizeof(ChannelRecord)].tobytes()
