"""Clusters of equal servers: what looks the same from every server is simulated on one of them.

Turn a cluster of equal servers round by one, each server's devices to the next one's: where links, ways and steps are the
same afterwards, so are the times, because max-min fair rates are unique. One server then stands for all (the quotient by
the rotation): what it sends to others arrives at it from others, over its own NICs. Its links carry what they carry in the
whole cluster, and its channels do what they do there, at the same times, while there are n / S ranks to look at, not n.

Exact for shards of one size and servers that are equal as written down; for other sizes every shard counts as large as the
largest, which is an element more. A rank's sends and receives by :func:`folded_exchange` do not share its memory's rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..schedules.program import Channel, Connection, Program, Step
from ..schedules.rings import ring_steps
from ..topology import Path, Topology, route

#: Ranks of a ring with one of each kind of step, and what is repeated twice.
_SMALL_RING = 4


@dataclass(frozen=True)
class Rotation:
    """A cluster of equal servers, folded.

    Parameters
    ----------
    topology
        The whole.
    server
        The first server with everything between servers; rank i is the cluster's.
    nservers
        How many servers there are.
    fold
        A vertex of the whole to the one that stands for it.
    """

    topology: Topology
    server: Topology
    nservers: int
    fold: dict[int | str, int | str]

    def way(self, src: int, dst: int) -> Path:
        """The way between two ranks of the whole, folded."""
        return tuple(self.fold[vertex] for vertex in route(self.topology, src, dst))


def rotation_of(topology: Topology) -> Rotation | None:
    """The rotation of a cluster's servers; None where they are not equal, or ranks do not run server by server."""
    homes = [device.server for device in topology.devices]
    numbers = sorted(set(homes))
    each, left = divmod(topology.nranks, len(numbers))
    if len(numbers) < 2 or left or topology.relays or homes != [s for s in numbers for _ in range(each)]:
        return None
    of_server: dict[int, list[str]] = defaultdict(list)
    boxes = _boxes(topology)
    for name, home in boxes.items():
        of_server[home].append(name)
    first = of_server[numbers[0]]
    if any(len(of_server[s]) != len(first) for s in numbers):
        return None
    stands_for = {name: mine for s in numbers for name, mine in zip(of_server[s], first, strict=True)}
    if not _equal(topology, stands_for, numbers):
        return None
    own = set(first)
    kept = tuple(s for s in topology.switches if s.name in own or s.name not in stands_for)
    names = own | {s.name for s in kept}
    server = Topology(
        f"{topology.name}, one server for all", tuple(topology.devices[:each]), kept, tuple(k for k in topology.links if k.src in names and k.dst in names),
        notes=topology.notes, no_peer_access=tuple((a, b) for a, b in topology.no_peer_access if a in own and b in own),
    )  # fmt: skip
    vertices = map(topology.vertex, boxes)
    fold: dict[int | str, int | str] = {v: v % each if isinstance(v, int) else stands_for.get(v, v) for v in vertices}
    return Rotation(topology, server, len(numbers), fold)


def _boxes(topology: Topology) -> dict[str, int]:
    """Every device and switch, and its server."""
    return {d.name: d.server for d in topology.devices} | {s.name: s.server for s in topology.switches}


def _equal(topology: Topology, stands_for: dict[str, str], numbers: Sequence[int]) -> bool:
    """Whether every server's boxes, links and refused peers are those of the first, and none join two servers or what lies between them.

    A link between two switches of the network carries what all servers send over it, one server's part of the whole.
    """
    home = _boxes(topology)
    wires: dict[int, list[object]] = {s: [] for s in numbers}
    for link in topology.links:
        ends = {home[name] for name in (link.src, link.dst) if name in stands_for}
        if len(ends) != 1:
            return False
        wires[ends.pop()].append(replace(link, src=stands_for.get(link.src, link.src), dst=stands_for.get(link.dst, link.dst), port=""))
    for device in topology.devices:
        wires[device.server].append((stands_for[device.name], device.kind, device.arch, device.model))
    for switch in topology.switches:
        if switch.name in stands_for:
            wires[switch.server].append(replace(switch, name=stands_for[switch.name], server=0))
    for a, b in topology.no_peer_access:
        if home[a] != home[b]:
            return False
        wires[home[a]].append((stands_for[a], stands_for[b]))
    alike = [sorted(map(repr, wires[s])) for s in numbers]
    return all(other == alike[0] for other in alike)


def folded_rings(rotation: Rotation, collective: str, orders: Sequence[Sequence[int]], *, algorithm: str, protocol: str, slots: int = 4) -> Program | None:
    """Rings that go through server after server, all in one order of GPUs: what one server does of an all-reduce, all-gather or reduce-scatter.

    None where an order is none such, or where a server has one rank only.
    """
    each, n = rotation.server.nranks, rotation.topology.nranks
    if each < 2:
        return None
    connections: list[Connection] = []
    channels: list[list[Channel]] = [[] for _ in range(each)]
    for share, order in enumerate(orders):
        turned = [(rank + each) % n for rank in order[:-each]]
        if list(order[each:]) != turned or {rank // each for rank in order[:each]} != {order[0] // each}:
            return None
        base = len(connections)
        for here, there in pairwise(order[: each + 1]):
            connections.append(Connection(here % each, there % each, rotation.way(here, there), slots, protocol))
        for place, rank in enumerate(order[:each]):
            steps = ring_steps(collective, range(_SMALL_RING), 0, share, base + (place - 1) % each, base + place)
            channels[rank % each].append(Channel(_stretched(steps, n)))
    return Program(
        algorithm=algorithm, collective=collective, topology=rotation.server, nshards=n, weights=(1,) * len(orders),
        connections=tuple(connections), ranks=tuple(map(tuple, channels)),
    )  # fmt: skip


def _stretched(steps: Sequence[Step], n: int) -> tuple[Step, ...]:
    """The steps of a ring of four as those of a ring of ``n``: every kind between two others is repeated, all for the first shard."""
    first, *rest = (replace(step, shard=0) for step in steps)
    stretched = [first]
    for i in range(0, len(rest), _SMALL_RING - 1):
        repeated, end = rest[i], rest[i + _SMALL_RING - 2]
        stretched += [*[repeated] * (n - 2), end]
    return tuple(stretched)
