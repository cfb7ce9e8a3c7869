"""How a connection's slots are reached: in the reader's memory over peer access, or in pinned host memory."""

from __future__ import annotations

from ..errors import ScheduleError
from ..topology import Path, Topology

#: ``"peer"``: slots in the reader's memory, which the writer stores into. ``"host"``: slots and counters in pinned memory
#: of a CPU on the path, which the writer stores into and the reader reads. ``"c10d"``: an engine between servers, named by
#: exchanges only.
TRANSPORTS = ("peer", "host", "c10d")


def transport_of(topology: Topology, path: Path) -> str:
    """The transport of a connection over this path.

    Raises
    ------
    ScheduleError
        Where the path is none that the driver offers: beside the NVLink of a pair, and through no CPU's memory.
    """
    peers = topology.peers
    if peers.taken_by_fast_link(path):
        way = "→".join(map(str, path))
        raise ScheduleError(f"path {way}: its ends have peer access over NVLink, so this way has to lead through a CPU's memory; plan with method='hybrid', or 'three-phase' for several servers")
    # A pair without peer access below one switch is "peer": refused by nobody here, though a driver would.
    return "host" if peers.staged(path) and peers.staging_place(path) is not None else "peer"


def host_parts(topology: Topology, path: Path) -> tuple[Path, Path]:
    """The two parts of a way through host memory: what the writer's stores cross, and what the reader's loads do.

    Raises
    ------
    ScheduleError
        Where it crosses no CPU.
    """
    place = topology.peers.staging_place(path)
    if place is None:
        raise ScheduleError(f"a connection over {'→'.join(map(str, path))} cannot have its slots in host memory: it crosses no CPU")
    return path[: place + 1], path[place:]
