"""GPU ranks: one kernel a rank, one block a channel, slots in the reader's device memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ...schedules.contract import REDUCING
from ..buffers import RankBuffers, Regions
from ..executor import Array, Executor
from ..launch import BUFFER_ORDER, ChannelRecord, LaunchRecord, Work, buffer_table, connection_table
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
        self._module = layer.load(kernel_ptx(arch, *self._variant()))
        self._addresses: list[int] = []
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        ranks, layer = range(self.program.nranks), self._layer
        self._bases = [self._allocate(self.arenas[r].nbytes, r, "arena") for r in ranks]
        self._buffers = [self._allocate_regions(r) for r in ranks]
        table = connection_table(self.program, self.arenas, self._bases)
        for base, arena in zip(self._bases, self.arenas, strict=True):
            layer.write(base + arena.program, self.code)
            layer.write(base + arena.connections, table)

    def _variant(self) -> tuple[str, str]:
        """The dtype and operation to compile for; programs that only copy share one kernel."""
        return (self.dtype_name, self.op) if self.program.collective in REDUCING else ("float32", "sum")

    def _allocate(self, nbytes: int, rank: int, what: str) -> int:
        self._addresses.append(self._layer.allocate(nbytes, rank, f"{what} of rank {rank}"))
        return self._addresses[-1]

    def _allocate_regions(self, rank: int) -> Regions:
        made = [self._allocate(nbytes, rank, what) for nbytes, what in zip(self._region_bytes(rank), BUFFER_ORDER, strict=True)]
        return made[0], made[1], made[2]

    def _run(self, inputs: list[Array], work: Work, buffers: list[RankBuffers]) -> list[Array]:
        table = buffer_table([b.addresses(r, work.elem_size) for b, r in zip(buffers, self._buffers, strict=True)])
        for rank, array in enumerate(inputs):
            base, arena, regions = self._bases[rank], self.arenas[rank], self._buffers[rank]
            self._layer.write(base + arena.buffers, table)
            if work.shards is not None:
                self._layer.write(base + arena.shards, work.shards.table())
            for address, nbytes in zip(regions, self._region_bytes(rank), strict=True):
                self._layer.write(address, bytes(nbytes))
            if array.nbytes:
                self._layer.write(buffers[rank].input_at(regions, work.elem_size), array.tobytes())
        try:
            for rank in range(self.program.nranks):
                self._launch(self._record(work, rank, self._bases[rank]), rank)
        except BaseException:
            self._abort()  # kernels that were launched wait for those that were not
            self._layer.synchronize()
            raise
        self._layer.synchronize()
        records = [self._records(rank) for rank in range(self.program.nranks)]
        if any(ChannelRecord.from_buffer_copy(r, at).code for r in records for at in range(0, len(r), ctypes.sizeof(ChannelRecord))):
            raise self._timed_out(records)
        return [self._output(b, r, work.elem_size) for b, r in zip(buffers, self._buffers, strict=True)]

    def _output(self, buffers: RankBuffers, regions: Regions, elem_size: int) -> Array:
        if not buffers.output:
            return np.zeros(0, dtype=self.dtype)
        return np.frombuffer(self._layer.read(buffers.output_at(regions, elem_size), buffers.output * elem_size), dtype=self.dtype).copy()

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
