"""How many channels a rank may run where its caller has not said."""

from __future__ import annotations

from ..schedules.trees import MAX_CHANNELS
from ..simulator.baselines.nccl import nvls_channels
from ..topology import Topology, group_switches

#: Of a share over switches that add: one that copies into the shared buffer, its head's, and one that copies out of it.
_PER_BLOCK = 3


def default_channels(topology: Topology) -> int:
    """32, as for lowering; where switches add and copy, as many as NCCL takes there if that is more.

    NCCL runs NVLS in 16 thread blocks on Hopper and 24 on Blackwell, each of warps that do what three channels do here:
    48 and 72.
    """
    archs = [device.arch.removeprefix("sm_").rstrip("abf") for device in topology.devices]
    if not group_switches(topology, adds=True, copies=True) or not all(arch.isdigit() for arch in archs):
        return MAX_CHANNELS
    return max(MAX_CHANNELS, _PER_BLOCK * nvls_channels(min(map(int, archs))))
