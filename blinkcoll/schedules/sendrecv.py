"""Send and receive: one rank's buffer to the other of two."""

from __future__ import annotations

from ..errors import ScheduleError
from ..topology import Topology, route
from .program import INPUT, OUTPUT, Channel, Connection, Program, Step, slot


def lower_sendrecv(topology: Topology, root: int, *, shares: int = 1, slots: int = 4, chunk_bytes: int = 1 << 19) -> Program:
    """The program in which rank ``root`` of two sends and the other receives, in ``shares`` channels.

    Raises
    ------
    ScheduleError
        Where there are not two ranks, or ``root`` is none of them.
    TopologyError
        Where nothing leads from one to the other.
    """
    if topology.nranks != 2 or root not in (0, 1):
        raise ScheduleError(f"sendrecv joins two ranks, one of which sends: got {topology.nranks} ranks, root {root}")
    path = route(topology, root, 1 - root)
    channels: list[list[Channel]] = [[], []]
    for share in range(shares):
        channels[root].append(Channel((Step("copy", share, (INPUT,), (slot(share),), wait=(share,), signal=(share,)),)))
        channels[1 - root].append(Channel((Step("copy", share, (slot(share),), (OUTPUT,), wait=(share,), signal=(share,)),)))
    return Program(
        algorithm="direct", collective="sendrecv", root=root, topology=topology, nshards=1, weights=(1,) * shares,
        connections=(Connection(root, 1 - root, path, slots),) * shares, ranks=tuple(map(tuple, channels)), chunk_bytes=chunk_bytes,
    )  # fmt: skip
