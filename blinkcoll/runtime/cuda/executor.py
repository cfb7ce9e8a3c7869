"""GPU ranks: one kernel a rank, one block a channel, slots in the reader's device memory or in pinned host memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ...errors import ExecutionError
from ...schedules.contract import REDUCING
from ...schedules.protocols import has_whole_lines, keeps_lines_whole
from ..buffers import RankBuffers, Regions
from ..executor import Array, Executor
from ..launch import BUFFER_ORDER, ChannelRecord, HostArena, LaunchRecord, Work, buffer_table, connection_table
from .device import DeviceLayer
from .kernel import KERNEL, kernel_ptx

#: multimem.* are of PTX ISA 8.1, for this compute capability and newer.
_FIRST_WITH_MULTIMEM = 90


class CudaExecutor(Executor):
    """Rank i runs on device i of a device layer, relays on the devices after the ranks'.

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
    in_switch
        For programs with operands of all ranks: whether switches add and copy (multimem instructions, through multicast
        objects that the layer makes), or each rank's memory is read and written in turn.

    Raises
    ------
    ExecutionError
        Where ``in_switch`` is asked for and the architecture has no such instructions, or the program no such operands.
    """

    def __init__(self, program: Any, *, layer: DeviceLayer, arch: str, threads: int = 256, in_switch: bool = False, **options: Any) -> None:
        super().__init__(program, **options)
        if in_switch and int(arch.removeprefix("sm_")) < _FIRST_WITH_MULTIMEM:
            raise ExecutionError(f"{arch} has no multimem instructions, sm_{_FIRST_WITH_MULTIMEM} and newer have; use in_switch=False, or a program by trees or rings")
        if in_switch and not program.multicasts:
            raise ExecutionError(f"program {program.hash} has no operands of all ranks: there is nothing for a switch to do")
        _check_whole_lines(program, layer, arch, threads)
        self._layer = layer
        self._in_switch = in_switch
        self._mappings: dict[int, int] = {}  # region to the mapping of a multicast object of all ranks' regions
        self._threads = threads
        self._module = layer.load(kernel_ptx(arch, *self._variant(), multicast=bool(program.multicasts), whole_lines=layer.whole_lines))
        self._addresses: list[int] = []
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        ranks, layer = range(self.program.nexecutors), self._layer
        self._bases = [self._allocate(self.arenas[r].nbytes, r, "arena") for r in ranks]
        self._buffers = [self._allocate_regions(r) for r in ranks]
        host_bases = [self._allocate_host(arena) for arena in self.host_arenas]
        table = connection_table(self.program, self.arenas, self._bases, self.host_arenas, host_bases)
        for base, arena in zip(self._bases, self.arenas, strict=True):
            layer.write(base + arena.program, self.code)
            layer.write(base + arena.connections, table)
        if self._in_switch:
            # Called in place, inputs and outputs are one region: either may be meant by either.
            named = {BUFFER_ORDER.index(region) for region, _ in self.program.multicasts}
            for region in sorted(named | ({0, 1} if named & {0, 1} else set())):
                sizes = {self._region_bytes(r)[region] for r in ranks}
                if len(sizes) == 1:
                    self._mappings[region] = layer.multicast([of_rank[region] for of_rank in self._buffers], sizes.pop())

    def _mapped(self, buffers: RankBuffers) -> tuple[int, int, int]:
        """The mappings of input, output and scratch of all ranks, 0 where there is none."""
        if not self._in_switch:
            return 0, 0, 0
        regions = (0, 1) if buffers.shared is None else (buffers.shared,) * 2
        named = {region for region, _ in self.program.multicasts}
        made = [0, 0, 0]
        for i, (name, at) in enumerate(zip(BUFFER_ORDER, (*regions, 2), strict=True)):
            if name in named and at not in self._mappings:
                raise ExecutionError(
                    f"{self.program.collective} called in place: the {name}s of all ranks lie in regions of different kinds, which no multicast "
                    "object joins; call it out of place, or use in_switch=False"
                )
            made[i] = self._mappings[at] if name in named else 0
        return made[0], made[1], made[2]

    def _variant(self) -> tuple[str, str]:
        """The dtype and operation to compile for; programs that only copy share one kernel."""
        return (self.dtype_name, self.op) if self.program.collective in REDUCING else ("float32", "sum")

    def _allocate(self, nbytes: int, rank: int, what: str) -> int:
        self._addresses.append(self._layer.allocate(nbytes, rank, f"{what} of rank {rank}"))
        return self._addresses[-1]

    def _allocate_host(self, arena: HostArena) -> int:
        self._addresses.append(self._layer.allocate_host(arena.nbytes, arena.cpu, f"slots in the memory of {arena.cpu}"))
        return self._addresses[-1]

    def _allocate_regions(self, rank: int) -> Regions:
        made = [self._allocate(nbytes, rank, what) for nbytes, what in zip(self._region_bytes(rank), BUFFER_ORDER, strict=True)]
        return made[0], made[1], made[2]

    def _run(self, inputs: list[Array], work: Work, buffers: list[RankBuffers]) -> list[Array]:
        table = buffer_table([b.addresses(r, work.elem_size) for b, r in zip(buffers, self._buffers, strict=True)])
        mapped = [self._mapped(of_rank) for of_rank in buffers]
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
            for rank in range(self.program.nexecutors):
                record = self._record(work, rank, self._bases[rank])
                record.multicast[:] = mapped[rank]
                self._launch(record, rank)
        except BaseException:
            self._abort()  # kernels that were launched wait for those that were not
            self._layer.synchronize()
            raise
        self._layer.synchronize()
        records = [self._records(rank) for rank in range(self.program.nexecutors)]
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


def _check_whole_lines(program: Any, layer: DeviceLayer, arch: str, threads: int) -> None:
    """LL128 needs teams of eight lanes that run on their own, and ways that its stores cross whole."""
    used = [i for i, c in enumerate(program.connections) if c.protocol == "LL128"]
    if not used:
        return
    if not has_whole_lines(arch):
        raise ExecutionError(f"c{used[0]} has protocol LL128, which {arch} does not have: it needs sm_70 or newer")
    if threads % 8:
        raise ExecutionError(f"c{used[0]} has protocol LL128, whose lines are moved by eight threads; {threads} threads a block are no multiple of that")
    if layer.whole_lines:
        crossed = [i for i in used if not keeps_lines_whole(program.topology, program.connections[i].path)]
        if crossed:
            raise ExecutionError(f"c{crossed[0]} has protocol LL128, but its way is not NVLink alone: stores of 128 bytes may arrive in parts there")
