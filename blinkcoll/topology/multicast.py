"""Which switches can serve a multicast group of all ranks: they copy what a rank stores, or add what all ranks hold."""

from __future__ import annotations

from collections.abc import Collection

from .model import Topology


def group_switches(topology: Topology, *, adds: bool, copies: bool, kinds: Collection[str] | None = None) -> tuple[str, ...]:
    """The switches that do what is asked for and are linked to and from every rank, by links of ``kinds`` (any where None)."""
    joined = {(link.src, link.dst) for link in topology.links if kinds is None or link.kind in kinds}
    return tuple(
        switch.name
        for switch in topology.switches
        if (switch.reduce or not adds)
        and (switch.multicast or not copies)
        and all((d.name, switch.name) in joined and (switch.name, d.name) in joined for d in topology.devices)
    )
