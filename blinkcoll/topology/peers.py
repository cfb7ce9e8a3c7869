"""Over what two GPUs of a server reach each other's memory: the driver's rules, from the topology's facts.

Where a pair has peer access over NVLink (or xGMI), every access between the two takes that way: what is to go over PCIe
beside it has to be staged in pinned host memory (Blink, Wang et al., MLSys 2020, section 4.1, has to disable peer access
for its PCIe trees). Other pairs reach each other over PCIe, switches and CPUs in between, unless the driver refuses the
pair (``Topology.no_peer_access``) or a GPU hangs on its CPU's own interconnect (POWER9, Grace), over which GPUs do not
map each other. Such pairs, too, exchange through pinned host memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from .model import Topology

#: Links over which peer access takes precedence over all others.
FAST_KINDS = ("NVLINK", "XGMI")
_Vertex = int | str


class Peers:
    """The pairs of a topology by what joins them; vertices are ranks, and relays by name."""

    def __init__(self, topology: Topology) -> None:
        devices = (*topology.devices, *topology.relays)
        self.gpus = frozenset(topology.vertex(d.name) for d in devices if d.kind == "gpu")
        self.cpus = frozenset(s.name for s in topology.switches if s.kind == "cpu")
        self.outside = frozenset(s.name for s in topology.switches if s.kind in ("nic", "network"))
        self.refused = frozenset((topology.vertex(a), topology.vertex(b)) for a, b in topology.no_peer_access)
        self.on_interconnect = {topology.vertex(k.src) for k in topology.links if k.kind == "CPU"} & self.gpus
        switches = {s.name for s in topology.switches if s.kind == "nvswitch"}
        out: dict[_Vertex, set[_Vertex]] = {}
        for link in topology.links:
            if link.kind in FAST_KINDS:
                out.setdefault(topology.vertex(link.src), set()).add(topology.vertex(link.dst))
        self.fast_arcs = frozenset((a, b) for a, ends in out.items() for b in ends)
        reach = {a: ends.union(*(out.get(s, set()) for s in ends if s in switches)) for a, ends in out.items()}
        self._joined = frozenset((a, b) for a, ends in reach.items() for b in ends if a != b)

    def fast(self, a: _Vertex, b: _Vertex) -> bool:
        """Whether accesses between the two take NVLink or xGMI, one way or the other."""
        return (a, b) in self._joined or (b, a) in self._joined

    def over_fast_links(self, path: Sequence[_Vertex]) -> bool:
        """Whether every hop of the path is NVLink or xGMI."""
        return all(hop in self.fast_arcs for hop in pairwise(path))

    def needs_staging(self, a: _Vertex, b: _Vertex) -> bool:
        """Whether what goes from a to b beside the fast links has to be staged in host memory."""
        if a not in self.gpus or b not in self.gpus:
            return False
        return self.fast(a, b) or bool({(a, b), (b, a)} & self.refused) or not self.on_interconnect.isdisjoint((a, b))

    def staged(self, path: Sequence[_Vertex]) -> bool:
        """Whether a path between two devices leads through pinned host memory; paths over a network are none of these."""
        if self.over_fast_links(path) or not self.outside.isdisjoint(path):
            return False
        return self.needs_staging(path[0], path[-1])

    def staging_place(self, path: Sequence[_Vertex]) -> int | None:
        """Where in a path the host memory lies: its first CPU; None where it crosses none."""
        return next((i for i, v in enumerate(path) if v in self.cpus), None)

    def taken_by_fast_link(self, path: Sequence[_Vertex]) -> bool:
        """Whether nothing can go this way: accesses between its ends take their fast link, and it crosses no CPU's memory."""
        return self.staged(path) and self.fast(path[0], path[-1]) and self.staging_place(path) is None
