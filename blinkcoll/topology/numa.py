"""Memory nodes of this host as Linux shows them (``/sys/devices/system/node``), and which of them a process is on."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from .draft import UNKNOWN_CPU_GB_S
from .rates import cpu_rate
from .sysfs import Sysfs

_SYS, _CPUINFO = Path("/sys"), Path("/proc/cpuinfo")
_NODES = "devices/system/node"
#: What Linux takes for the distance of two nodes where the firmware says nothing, and that of a node to itself
#: (include/linux/topology.h: REMOTE_DISTANCE, LOCAL_DISTANCE).
REMOTE_DISTANCE, LOCAL_DISTANCE = 20, 10


@dataclass(frozen=True)
class HostNodes:
    """On which memory node each rank is, and what joins the nodes.

    Parameters
    ----------
    of_rank
        A node's number for each rank.
    distances
        Of a reader's node and the memory's, as ACPI's SLIT has them: latencies in tenths of a node's own. Left out: 20.
    gb_s
        What a pair of nodes exchanges, GB/s one way.
    """

    of_rank: tuple[int, ...]
    distances: Mapping[tuple[int, int], int] = field(default_factory=dict)
    gb_s: Fraction = UNKNOWN_CPU_GB_S

    @property
    def used(self) -> list[int]:
        """Nodes with a rank."""
        return sorted(set(self.of_rank))


def nodes_here(of_rank: Sequence[int], sys: Path | None = None, cpuinfo: Path | None = None) -> HostNodes:
    """The ranks' nodes with what this machine says of their interconnect: distances of the firmware, GB/s of NCCL's table."""
    sys, cpuinfo = sys or _SYS, cpuinfo or _CPUINFO
    rate = cpu_rate(*Sysfs(sys, cpuinfo).cpu())
    return HostNodes(tuple(of_rank), _distances(sys), UNKNOWN_CPU_GB_S if rate is None else rate)


def own_node(allowed: Collection[int] | None = None, running_on: int | None = None, sys: Path | None = None) -> int | None:
    """The node that all CPUs this thread may use are on; else that of the CPU it runs on. None where Linux shows no nodes.

    Parameters
    ----------
    allowed, running_on
        CPUs; what the system says of this thread where None.
    """
    nodes = _cpus_by_node(sys or _SYS)
    allowed = os.sched_getaffinity(0) if allowed is None else allowed
    possible = [node for node, cpus in nodes.items() if cpus.intersection(allowed)]
    if len(possible) == 1:
        return possible[0]
    here = ctypes.CDLL(None).sched_getcpu() if running_on is None else running_on
    return next((node for node, cpus in nodes.items() if here in cpus), None)


def _cpus_by_node(sys: Path) -> dict[int, set[int]]:
    return {node: _read_list(folder / "cpulist") for node, folder in _folders(sys)}


def _distances(sys: Path) -> dict[tuple[int, int], int]:
    """A node's file lists its distance to every node there is, in their order."""
    folders = _folders(sys)
    found = {}
    for node, folder in folders:
        listed = re.findall(r"[0-9]+", _read(folder / "distance"))
        if len(listed) == len(folders):
            found.update({(node, other): int(text) for (other, _), text in zip(folders, listed, strict=True)})
    return found


def _folders(sys: Path) -> list[tuple[int, Path]]:
    folders = (sys / _NODES).glob("node[0-9]*")
    return sorted((int(folder.name[4:]), folder) for folder in folders if folder.name[4:].isdecimal())


def _read_list(path: Path) -> set[int]:
    """``0-3,8`` as numbers."""
    found: set[int] = set()
    for first, last in re.findall(r"([0-9]+)(?:-([0-9]+))?", _read(path)):
        found.update(range(int(first), int(last or first) + 1))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
