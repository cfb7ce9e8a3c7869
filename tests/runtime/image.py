"""Memory images of all ranks of a program at a fixed address, which small C++ programs map and run (``tests/csrc``)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from blinkcoll.runtime.buffers import buffers_of
from blinkcoll.runtime.launch import (
    LINE_BYTES,
    LaunchRecord,
    buffer_table,
    connection_table,
    describe_work,
    launch_record,
    lay_out,
)
from blinkcoll.runtime.segment import lay_out_segment
from blinkcoll.schedules import encode
from blinkcoll.schedules.contract import view

BASE = 0x7EA000000000
#: Multicast mappings: no memory of anybody's, only the shim's multimem instructions know what is meant.
NOWHERE = 0x5EA000000000


@dataclass(frozen=True)
class Image:
    """A file with the image, and where each rank's output begins in it, with its bytes."""

    path: Path
    nranks: int
    outputs: list[tuple[int, int]]

    def results(self) -> list[np.ndarray]:
        """What the outputs hold."""
        held = np.fromfile(self.path, dtype=np.uint8)
        return [held[at : at + nbytes].view(np.float32) for at, nbytes in self.outputs]


def make_image(folder: Path, program, inputs: list[np.ndarray], *, chunk_bytes: int, in_place: bool, mapped: bool = False, headed: bool = False, skewed: bool = False, spots: int = 1, timeout_s: float = 60.0) -> Image:
    """The image of a float32 sum (or what else the program does); ``headed``: with a counter in front of each slot; ``skewed``: data in slots
    begin in their lines like what they are copied from, and connections that are written alike share them; ``spots``: slots have room for so many chunks."""
    code = encode(program)
    given = next(i for i in inputs if i is not None)
    count = given.size * (program.nranks if view(program.collective, "input", 0, program.root) == "own" else 1)
    work = describe_work(program, count, count, "float32", 4, "sum", chunk_bytes)
    if skewed:
        work = replace(work, slot_bytes=work.slot_bytes + LINE_BYTES)
    if spots > 1:
        work = replace(work, slot_bytes=-(-work.slot_bytes // LINE_BYTES) * LINE_BYTES * spots)
    arenas = [lay_out(program, code, rank, work.slot_bytes, headed=headed, shared=skewed) for rank in range(program.nranks)]
    head = -(-program.nranks * ctypes.sizeof(LaunchRecord) // 4096) * 4096
    layout = lay_out_segment(arenas, [(4 * count,) * 3] * program.nranks)
    bases = [BASE + head + at for at in layout.arenas]
    held = [buffers_of(program, rank, count, in_place) for rank in range(program.nranks)]
    places = [buffers.addresses(regions, 4) for buffers, regions in zip(held, layout.buffers, strict=True)]
    image = np.zeros(head + layout.nbytes, dtype=np.uint8)

    def store(at: int, data: bytes) -> None:
        image[at : at + len(data)] = np.frombuffer(data, dtype=np.uint8)

    connections = connection_table(program, arenas, bases)
    buffers = buffer_table([tuple(BASE + head + at for at in place) for place in places])
    for rank, arena in enumerate(arenas):
        start = head + layout.arenas[rank]
        multicast = (NOWHERE, NOWHERE + (1 << 33), NOWHERE + (2 << 33)) if mapped else (0, 0, 0)
        record = launch_record(work, rank, arena, bases[rank], 1, timeout_s, multicast=multicast)
        record.skewed, record.spots = skewed, spots
        store(rank * ctypes.sizeof(LaunchRecord), bytes(record))
        store(start + arena.program, code)
        store(start + arena.connections, connections)
        store(start + arena.buffers, buffers)
        if inputs[rank] is not None:
            store(head + held[rank].input_at(layout.buffers[rank], 4), inputs[rank].tobytes())
    path = folder / "image"
    image.tofile(path)
    return Image(path, program.nranks, [(head + b.output_at(regions, 4), 4 * b.output) for regions, b in zip(layout.buffers, held, strict=True)])
