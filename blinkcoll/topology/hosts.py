"""The machine that host ranks see: memory that all of them share."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from ..errors import TopologyError
from .layouts import load_layout
from .model import Device, GpuIndex, Link, Switch, Topology
from .numa import LOCAL_DISTANCE, REMOTE_DISTANCE, HostNodes


def host_topology(nranks: int, nodes: HostNodes | None = None) -> Topology:
    """``nranks`` host ranks under one memory, with the rates of the layout ``host``; or under several that are joined.

    Parameters
    ----------
    nranks
        How many.
    nodes
        Which memory node each is on. Without it, or with all on one node, there is one memory.

    Raises
    ------
    TopologyError
        Where ``nranks`` is not positive, or ``nodes`` is of another number of ranks.

    Notes
    -----
    Every two nodes in use are joined by a link of their own, as NCCL takes it, whether or not the wires pass through a third.
    Its latency follows from the distance: that of a node's own memory times ``distance / 10 - 1`` comes on top.
    """
    if nranks < 1:
        raise TopologyError(f"a host of {nranks} ranks: expected at least one")
    layout = load_layout("host")
    first, memory = layout.devices[0], layout.switches[0]
    devices = tuple(replace(first, name=first.name.rstrip("0123456789") + str(i), index=GpuIndex(i)) for i in range(nranks))
    if nodes is not None and len(nodes.of_rank) != nranks:
        raise TopologyError(f"a host of {nranks} ranks, and nodes of {len(nodes.of_rank)}")
    wires = [link for link in layout.links if first.name in (link.src, link.dst)]
    if nodes is None or len(nodes.used) < 2:
        return replace(layout, devices=devices, links=_attached(wires, first, memory, devices, [memory.name] * nranks))
    memories = {node: replace(memory, name=f"{memory.name}{node}") for node in nodes.used}
    links = _attached(wires, first, memory, devices, [memories[node].name for node in nodes.of_rank])
    own_latency_us = sum((w.latency_us for w in wires), Fraction(0))
    return replace(layout, devices=devices, switches=tuple(memories.values()), links=(*links, *_between(memories, nodes, own_latency_us)))


def _attached(wires: list[Link], first: Device, memory: Switch, devices: tuple[Device, ...], to: list[str]) -> tuple[Link, ...]:
    """The first device's links to its memory, for every device and the memory that it is attached to."""
    names = [{first.name: device.name, memory.name: name} for device, name in zip(devices, to, strict=True)]
    return tuple(replace(wire, src=called[wire.src], dst=called[wire.dst]) for called in names for wire in wires)


def _between(memories: dict[int, Switch], nodes: HostNodes, own_latency_us: Fraction) -> list[Link]:
    """What a node reads of another's memory crosses the link from there."""
    found = []
    for owner in memories:
        for reader in memories:
            if owner != reader:
                distance = max(nodes.distances.get((reader, owner), REMOTE_DISTANCE), LOCAL_DISTANCE)
                latency_us = own_latency_us * (Fraction(distance, LOCAL_DISTANCE) - 1)
                found.append(Link(memories[owner].name, memories[reader].name, "CPU", nodes.gb_s, latency_us))
    return found
