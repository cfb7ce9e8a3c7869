"""GPU ranks: one kernel a rank, one block a channel, slots in the reader's device memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ...schedules.contract import REDUCING
from ..buffers import RankBuffers, Regions
from ..executor import Array, Executor
from ..launch import ChannelRecord, LaunchRecord, Work, buffer_table, connection_table
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
        ranks = range(self.program.nranks)
        self._bases = [layer.allocate(self.arenas[r].nbytes, r, f"arena of rank {r}") for r in ranks]
        self._buffers = [self._allocate(r) for r in ranks]
        table = connection_table(self.program, self.arenas, self._bases)
        for base, arena in zip(self._bases, self.arenas, strict=True):
            layer.write(base + arena.program, self.code)
            layer.write(base + arena.connections, table)

    def _variant(self) -> tuple[str, str]:
        """The dtype and operation to compile for; programs that only copy share one kernel."""
        return (self.dtype_name, self.op) if self.program.collective in REDUCING else ("float32", "sum")

    def _allocate(self, rank: int) -> Regions:
        names = [f"{what} of rank {rank}" for what in ("input", "output", "scratch")]
        made = [self._layer.allocate(nbytes, rank, name) for nbytes, name in zip(self._region_bytes(rank), names, strict=True)]
        return made[0], made[1], made[2]

    def _run(self, inputs: list[Array], work: Work, buffers: list[RankBuffers]) -> list[Array]:
        table = buffer_table([b.addresses(r, work.elem_size) for b, r in zip(buffers, self._buffers, strict=True)])
        for rank, array in enumerate(inputs):
            base, arena, regions = self._bases[rank], self.arenas[rank], self._buffers[rank]
            self._layer.write(base + arena.buffers, table)
            for address, nbytes in zip(regions, self._region_bytes(rank), strict=True):
                self._layer.write(address, bytes(nbytes))
            if array.nbytes:
                self._layer.write(buffers[rank].input_at(regions, work.elem_size), array.tobytes())
        for rank in range(self.program.nranks):
            self._launch(self._record(work, rank, self._bases[rank]), rank)
        self._layer.synchronize()
        records = [self._records(rank) for rank in range(self.program.nranks)]
        if any(ChannelRecord.from_buffer_copy(r, at).code for r in records for at in range(0, len(r), ctypes.sizeof(ChannelRecord))):
            raise self._timed_out(records)
        return [self._output(b, r, work.elem_size) for b, r in zip(buffers, self._buffers, strict=True)]

    def _output(self, buffers: RankBuffers, regions: Regions, elem_size: int) -> Array:
        if not buffers.output:
            return np.zeros(0, dtype=self.dtype)
        return np.frombuffer(self._layer.read(buffers.output_at(regions, elem_size), buffers.output * elem_size), dtype=self.dtype)

    def _launch(self, record: LaunchRecord, rank: int) -> None:
        channels = len(self.program.ranks[rank])
        if channels:
            self._layer.launch(self._module, KERNEL, device=rank, grid=channels, block=self._threads, argument=bytes(record))

    def _records(self, rank: int) -> bytes:
        nbytes = len(self.program.ranks[rank]) * ctypes.sizeof(ChannelRecord)
        return self._layer.read(self._bases[rank] + self.arenas[rank].records, nbytes)

    def close(self) -> None:
        """Free the device memory."""
        for address in (*self._bases, *(a for of_rank in self._buffers for a in of_rank)):
            self._layer.free(address)
        self._bases, self._buffers = [], []
