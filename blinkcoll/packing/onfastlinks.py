"""Trees' ways beside a pair's NVLink (or xGMI), put onto that link where it has room.

Peer access between two GPUs takes their fast link whatever else joins them (``topology/peers.py``), so a PCIe switch that
a packing counts beside it cannot be had. Where slow links limit a plan, as on GPUs that NVLink does not join, the fast ones
have room to spare and what went beside them goes over them at the same rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import TypeVar

from ..topology import Path
from .links import Arc, Vertex, network_of
from .plan import Partition, Plan, Tree

_Part = TypeVar("_Part", Tree, Partition)
Loads = dict[Arc, Fraction]


def onto_fast_links(plan: Plan) -> Plan:
    """The plan with every way of its trees that a fast link takes over moved there, where that has room; the others stay."""
    if not has_lost_ways(plan):
        return plan
    capacity = network_of(plan.topology, plan.links, plan.rates).capacity
    load: Loads = {}
    for part in _parts(plan):
        _add(load, (*_ways(part), *(part.exchange if isinstance(part, Partition) else ())), part.rate)
    trees = tuple(_moved(plan, tree, load, capacity) for tree in plan.trees)
    return replace(plan, trees=trees, partitions=tuple(_moved(plan, part, load, capacity) for part in plan.partitions))


def has_lost_ways(plan: Plan) -> bool:
    """Whether trees take ways beside a pair's fast link, which no data can go."""
    return any(plan.topology.peers.taken_by_fast_link(path) for part in _parts(plan) for path in _ways(part))


def _parts(plan: Plan) -> tuple[Tree | Partition, ...]:
    return (*plan.trees, *plan.partitions)


def _ways(part: Tree | Partition) -> tuple[Path, ...]:
    return (*(part.up or ()), *(part.down or ()))


def _moved(plan: Plan, part: _Part, load: Loads, capacity: Mapping[Arc, Fraction]) -> _Part:
    up, down = (None if half is None else tuple(_best(plan, path, part.rate, load, capacity) for path in half) for half in (part.up, part.down))
    return replace(part, up=up, down=down)


def _best(plan: Plan, path: Path, rate: Fraction, load: Loads, capacity: Mapping[Arc, Fraction]) -> Path:
    """The path itself where data can take it, else a fast way between its ends that has room; the path where none has."""
    peers = plan.topology.peers
    if not peers.taken_by_fast_link(path):
        return path
    through: list[tuple[Vertex, ...]] = [(), *((switch.name,) for switch in plan.topology.switches)]
    for way in ((path[0], *middle, path[-1]) for middle in through):
        if peers.over_fast_links(way) and all(load.get(arc, 0) + rate <= capacity.get(arc, 0) for arc in pairwise(way)):
            _add(load, (way,), rate)
            _add(load, (path,), -rate)
            return way
    return path


def _add(load: Loads, paths: Iterable[Path], rate: Fraction) -> None:
    for path in paths:
        for arc in pairwise(path):
            load[arc] = load.get(arc, Fraction(0)) + rate
