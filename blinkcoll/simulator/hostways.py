"""Ways between GPUs that lead through a host, as machines take them rather than as plans count them.

Where the driver refuses peer access, the sender writes into host memory and the receiver reads it there: the data goes
up to the sender's CPU and down again, even between two GPUs below one PCIe switch, so that all of a switch's GPUs share its
link to the CPU. The two directions of a pair share the way through host memory: two RTX 4090s pass 18 GB/s one way and 9
each way at once, two RTX 2080 Tis 11 and 4 (all_reduce_perf against broadcast_perf).

Where peers may write to each other and their traffic turns round in one Intel CPU, that cuts it into packets of 64 bytes:
``Switch.p2p_efficiency``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..topology import Link, Path, Topology, pcie_tree


@dataclass(frozen=True)
class HostWay:
    """A path, the medium that both directions of its pair share (None: none), and payload per byte on the links."""

    path: Path
    medium: tuple[str, str] | None = None
    efficiency: float = 1.0


class HostWays:
    """The ways of one topology."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        machine = topology
        while machine.parent is not None:  # a cut drops CPUs that join nothing any more, memory and all
            machine = machine.parent
        self.tree = pcie_tree(machine)
        self.cpus = {switch.name: switch for switch in machine.switches if switch.kind == "cpu"}
        kept = {device.name for device in (*topology.devices, *topology.relays)}
        others = {device.name for device in (*machine.devices, *machine.relays)} - kept
        #: The machine's links but for those of devices that the topology does not have.
        self.links: tuple[Link, ...] = tuple(link for link in machine.links if not others & {link.src, link.dst})
        self.refused, self.outside = frozenset(topology.no_peer_access), topology.peers.outside

    def refuses(self, path: Path) -> bool:
        """Whether the path's ends have no access to each other's memory; ends joined over a network need none."""
        ends = self._ends(path)
        return self.outside.isdisjoint(path) and (ends in self.refused or ends[::-1] in self.refused)

    def _ends(self, path: Path) -> tuple[str, str]:
        return self.topology.vertex_name(path[0]), self.topology.vertex_name(path[-1])

    def way(self, path: Path) -> HostWay:
        """The way that data takes whose path is ``path``, rank to rank."""
        ends = self._ends(path)
        if self.refuses(path):
            first, second = sorted(ends)
            return HostWay(self._through_host(path, *ends), (f"{first}+{second}", "host memory"))
        turned = [self.cpus[v] for v in path[1:-1] if v in self.cpus]
        return HostWay(path, efficiency=float(turned[0].p2p_efficiency) if len(turned) == 1 else 1.0)

    def _through_host(self, path: Path, src: str, dst: str) -> Path:
        """Up to the sender's CPU and down to the receiver, unless the path does that already."""
        if any(v in self.cpus for v in path[1:-1]):
            return path
        up, down = [[link.dst for link in self.tree.way_up(end)] for end in (src, dst)]
        if not up or not down or up[-1] != down[-1]:
            return path  # no host is known above them
        return (path[0], *up, *reversed(down[:-1]), path[-1])
