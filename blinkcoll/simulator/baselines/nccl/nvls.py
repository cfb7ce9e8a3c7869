"""NCCL's NVLS as a program: every head adds up its shard in the switch and stores the sum to all ranks.

Of 2.30.7: ``ncclNvlsTuning`` and ``ncclNvlsBufferSetup`` (src/transport/nvls.cc), ``RunWorkColl`` for NVLS on one node
(src/device/all_reduce.h, all_gather.h, reduce_scatter.h), ``calcCollChunking`` (src/enqueue.cc). Each of its channels has
warps that scatter the input into a registered buffer, warps of the head that add and multicast, and warps that gather
from the buffer to the output: three channels of ours. Its buffer is a queue of eight chunks, here a place for every
chunk with eight signals in flight. What callers register with NCCL themselves, and then is not copied, is not modelled.
"""

from __future__ import annotations

from ....errors import SimulationError
from ....schedules.nvls import lower_groups
from ....schedules.program import Program
from ....topology import group_switches
from .plan import NcclPlan

#: ``NCCL_STEPS``.
_STEPS = 8
#: ``NVLS_CHUNKSIZE``, and what it shrinks to while fewer than so many rounds of all channels and heads remain.
_CHUNK = 128 << 10
_SMALLER = ((64, 64 << 10), (8, 32 << 10), (2, 16 << 10))


def nvls_program(plan: NcclPlan, collective: str, nchannels: int, name: str) -> Program:
    """The program of all-reduce, all-gather or reduce-scatter over the heads that NCCL found.

    Raises
    ------
    SimulationError
        Where the plan has no heads, or no switch joins all ranks.
    """
    switches = group_switches(plan.topology, adds=True, copies=True)
    if plan.nvls is None or not switches:
        raise SimulationError(f"NCCL {plan.version.release} has no NVLS on {plan.topology.name}")
    heads = sorted(channel[0] for channel in plan.nvls.channels)
    return lower_groups(plan.topology, collective, None, heads, switches[0], nchannels, slots=_STEPS, algorithm=name)


def nvls_chunk_bytes(program: Program, nbytes: int) -> int:
    """The size of a head's chunk in a channel."""
    concurrent, chunk = len(program.weights) * program.nshards, _CHUNK
    for rounds, smaller in _SMALLER:
        if nbytes < rounds * concurrent * chunk:
            chunk = min(chunk, smaller)
    return chunk
