"""GPU ranks: one kernel a rank, one block a channel, slots in the reader's device memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ..executor import Array, Executor
from ..launch import BUFFER_ORDER, ChannelRecord, LaunchRecord, Work, buffer_table, connection_table, launch_record
from .device import DeviceLayer
from .kernel import KERNEL, kernel_ptx


class CudaExecutor(Executor):
    """Rank i runs on device i of a device layer.

    Parameters
    ----------
    program, options
        As for :class:`blinkcoll.runtime.executor.Executor`.
    layer
        The device layer.
    arch
        The architecture to compile for, ``"sm_80"``.
    threads
        Threads of a block.
    """

    def __init__(self, program: Any, *, layer: DeviceLayer, arch: str, threads: int = 256, **options: Any) -> None:
        super().__init__(program, **options)
        self._layer = layer
        self._threads = threads
        self._module = layer.load(kernel_ptx(arch))
        self._addresses: list[int] = []
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        nbytes = max(self.max_count * self.dtype.itemsize, 1)
        ranks, layer = range(self.program.nranks), self._layer
        self._bases = [self._allocate(self.arenas[r].nbytes, r, "arena") for r in ranks]
        self._buffers = [tuple(self._allocate(nbytes, r, what) for what in BUFFER_ORDER) for r in ranks]
        table = connection_table(self.program, self.arenas, self._bases)
        for base, arena in zip(self._bases, self.arenas, strict=True):
            layer.write(base + arena.program, self.code)
            layer.write(base + arena.connections, table)

    def _allocate(self, nbytes: int, rank: int, what: str) -> int:
        self._addresses.append(self._layer.allocate(nbytes, rank, f"{what} of rank {rank}"))
        return self._addresses[-1]

    def _run(self, inputs: list[Array], work: Work, in_place: bool) -> list[Array]:
        places = [(o, o, s) if in_place else (i, o, s) for i, o, s in self._buffers]
        table = buffer_table(places)
        for rank, array in enumerate(inputs):
            base, arena = self._bases[rank], self.arenas[rank]
            self._layer.write(base + arena.buffers, table)
            self._layer.write(places[rank][1], bytes(array.nbytes))
            self._layer.write(places[rank][0], array.tobytes())
        try:
            for rank, arena in enumerate(self.arenas):
                self._launch(launch_record(work, rank, arena, self._bases[rank], self.epoch, self.timeout_s), rank)
        except BaseException:
            self._abort()  # kernels that were launched wait for those that were not
            self._layer.synchronize()
            raise
        self._layer.synchronize()
        records = [self._records(rank) for rank in range(self.program.nranks)]
        if any(ChannelRecord.from_buffer_copy(r, at).code for r in records for at in range(0, len(r), ctypes.sizeof(ChannelRecord))):
            raise self._timed_out(records)
        nbytes = work.count * work.elem_size
        return [np.frombuffer(self._layer.read(output, nbytes), dtype=self.dtype).copy() for _, output, _ in places]

    def _launch(self, record: LaunchRecord, rank: int) -> None:
        channels = len(self.program.ranks[rank])
        if channels:
            self._layer.launch(self._module, KERNEL, device=rank, grid=channels, block=self._threads, argument=bytes(record))

    def _records(self, rank: int) -> bytes:
        nbytes = len(self.program.ranks[rank]) * ctypes.sizeof(ChannelRecord)
        return self._layer.read(self._bases[rank] + self.arenas[rank].records, nbytes)

    def _abort(self) -> None:
        for base, arena in zip(self._bases, self.arenas, strict=True):
            self._layer.write(base + arena.abort, (1).to_bytes(4, "little"))

    def _release(self) -> None:
        for address in self._addresses:
            self._layer.free(address)
        self._addresses = []
