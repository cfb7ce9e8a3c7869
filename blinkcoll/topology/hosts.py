"""The machine that host ranks see: memory that all of them share."""

from __future__ import annotations

from dataclasses import replace

from ..errors import TopologyError
from .layouts import load_layout
from .model import GpuIndex, Topology


def host_topology(nranks: int) -> Topology:
    """``nranks`` host ranks under one memory, with the rates of the layout ``host``.

    Raises
    ------
    TopologyError
        Where ``nranks`` is not positive.
    """
    if nranks < 1:
        raise TopologyError(f"a host of {nranks} ranks: expected at least one")
    layout = load_layout("host")
    first = layout.devices[0]
    devices = tuple(replace(first, name=first.name.rstrip("0123456789") + str(i), index=GpuIndex(i)) for i in range(nranks))
    wires = [link for link in layout.links if first.name in (link.src, link.dst)]
    links = tuple(
        replace(w, src=d.name if w.src == first.name else w.src, dst=d.name if w.dst == first.name else w.dst) for d in devices for w in wires
    )
    return replace(layout, devices=devices, links=links)
