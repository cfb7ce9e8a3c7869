"""The chunks that NCCL passes along chains and up and down trees.

By the simple protocol a step of its buffer each, an eighth of 4 MiB whatever the size of the data (``calcCollChunking`` in src/enqueue.cc of
NCCL 2.30.7). By LL and LL128 a chunk is only what a slot is given back for: flags come with every line, and threads pass lines on as
they arrive, so that chunks are as small here as is good for the pipeline.
"""

from __future__ import annotations

from ....cost.chunks import default_chunk_bytes
from ....schedules.program import Program

SIMPLE_CHUNK_BYTES = 1 << 19


def pipeline_chunk_bytes(program: Program, nbytes: int) -> int:
    """The chunk size of a chain's or tree's program for a buffer of ``nbytes``."""
    if all(connection.protocol == "simple" for connection in program.connections):
        return SIMPLE_CHUNK_BYTES
    return default_chunk_bytes(program, nbytes)
