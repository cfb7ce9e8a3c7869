"""The machine as a graph: devices, switches and directed links.

Every number a link carries is exact (``fractions.Fraction``), so that bounds and plans derived from it are exact too.
``capacity`` is the planning rate in GB/s (1e9 B/s) one way; ``measured_gb_s`` is what such a link really reaches.
Vertices are named by strings; a device's *rank* is its position in ``Topology.devices``, its *GPU index* is the number
the driver shows, and the two disagree as soon as a subset is taken.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NewType, Union

from ..errors import TopologyError

Rank = NewType("Rank", int)
GpuIndex = NewType("GpuIndex", int)

#: Kinds of link, from the fastest class down: the order in which ``links="fastest"`` adds them.
LINK_KINDS = ("NVLINK", "XGMI", "PCIE", "CPU", "NIC", "SHM")
#: Kinds of switch.
SWITCH_KINDS = ("nvswitch", "pcie", "cpu", "nic", "network")

SCHEMA = 1


class PciBusId(str):
    """A PCI bus id, normalised to ``domain:bus:device.function`` in lower case with a 4-digit domain."""

    _FORM = re.compile(r"^(?:([0-9a-f]{4,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})(?:\.([0-7]))?$")

    def __new__(cls, text: str) -> PciBusId:
        match = cls._FORM.match(str(text).strip().lower())
        if not match:
            raise TopologyError(f"{text!r} is not a PCI bus id (expected something like 0000:3b:00.0)")
        domain, bus, device, function = match.groups()
        return super().__new__(
            cls, f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}.{function or '0'}"
        )


class Uuid(str):
    """A GPU's UUID as the driver prints it (``GPU-...``)."""


#: What ``Topology.subset`` takes for a device: a GPU index, a PCI bus id, a UUID or the device's name.
DeviceRef = Union[int, str]


@dataclass(frozen=True)
class Device:
    """A GPU or a host rank: something that holds data and runs programs."""

    name: str
    kind: str = "gpu"
    index: GpuIndex | None = None
    arch: str = ""  # "sm_70", "gfx90a", "" where unknown
    bus_id: PciBusId | None = None
    uuid: Uuid | None = None
    server: int = 0


@dataclass(frozen=True)
class Switch:
    """Something that forwards. It copies (``multicast``) or adds (``reduce``) only where it says so."""

    name: str
    kind: str
    multicast: bool = False
    reduce: bool = False
    server: int = 0


@dataclass(frozen=True)
class Link:
    """One direction of a wire. ``lanes`` bonded lanes together give ``capacity``."""

    src: str
    dst: str
    kind: str
    capacity: Fraction
    latency_us: Fraction = Fraction(0)
    measured_gb_s: Fraction | None = None
    lanes: int = 1
    generation: int | None = None

    def rate(self, rates: str = "planning") -> Fraction:
        """The capacity under ``rates``: ``"planning"``, or ``"measured"`` (the planning rate where none is known)."""
        return self.measured_gb_s if rates == "measured" and self.measured_gb_s is not None else self.capacity


@dataclass(frozen=True)
class Topology:
    """A machine, or the part of it that a job got. Rank i is ``devices[i]``.

    Parameters
    ----------
    name
        What the layout or the source calls the machine.
    devices
        In rank order.
    switches, links
        In any order; two topologies that differ in it alone have the same fingerprint.
    parent
        The topology this one was cut from (``subset``, ``restrict``), or None.

    Raises
    ------
    TopologyError
        Where two vertices share a name, a link names no vertex, joins a vertex to itself, or has a capacity that is
        not positive.
    """

    name: str
    devices: tuple[Device, ...]
    switches: tuple[Switch, ...] = ()
    links: tuple[Link, ...] = ()
    relays: tuple[Device, ...] = ()
    parent: Topology | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        names = [v.name for v in (*self.devices, *self.relays, *self.switches)]
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise TopologyError(f"topology {self.name}: two vertices are called {name!r}")
            seen.add(name)
        for link in self.links:
            for end in (link.src, link.dst):
                if end not in seen:
                    raise TopologyError(f"topology {self.name}: link {link.src}->{link.dst} names {end!r}, which is no device or switch")
            if link.src == link.dst:
                raise TopologyError(f"topology {self.name}: link {link.src}->{link.dst} joins a vertex to itself")
            if link.kind not in LINK_KINDS:
                raise TopologyError(f"topology {self.name}: link {link.src}->{link.dst} has kind {link.kind!r}; known: {', '.join(LINK_KINDS)}")
            if link.capacity <= 0:
                raise TopologyError(f"topology {self.name}: link {link.src}->{link.dst} has capacity {link.capacity}, expected GB/s > 0")

    @property
    def nranks(self) -> int:
        """How many ranks there are."""
        return len(self.devices)

    @cached_property
    def _rank_by_name(self) -> dict[str, int]:
        return {device.name: rank for rank, device in enumerate(self.devices)}

    def vertex(self, name: str) -> int | str:
        """The name used in paths: a rank for a device, the name itself for a switch or relay."""
        return self._rank_by_name.get(name, name)

    def vertex_name(self, vertex: int | str) -> str:
        """The inverse of :meth:`vertex`."""
        return self.devices[vertex].name if isinstance(vertex, int) else vertex

    def kinds(self) -> tuple[str, ...]:
        """The kinds of link present, fastest class first."""
        present = {link.kind for link in self.links}
        return tuple(kind for kind in LINK_KINDS if kind in present)

    def capacities(self, rates: str = "planning") -> dict[tuple[int | str, int | str], Fraction]:
        """Total capacity in GB/s per directed pair of vertices (ranks as ints, switches by name)."""
        total: dict[tuple[int | str, int | str], Fraction] = {}
        for link in self.links:
            key = (self.vertex(link.src), self.vertex(link.dst))
            total[key] = total.get(key, Fraction(0)) + link.rate(rates)
        return total

    # -- cutting ------------------------------------------------------------------------------------------------

    def device(self, ref: DeviceRef) -> Device:
        """The device that a GPU index, PCI bus id, UUID or name means."""
        for device in (*self.devices, *self.relays):
            if isinstance(ref, int):
                if device.index == ref:
                    return device
            elif ref == device.name or ref == device.uuid:
                return device
            elif device.bus_id is not None and ":" in ref and device.bus_id == PciBusId(ref):
                return device
        have = ", ".join(str(d.index if d.index is not None else d.name) for d in self.devices)
        raise TopologyError(f"topology {self.name}: no device {ref!r}; it has {have}")

    def subset(self, devices: Sequence[DeviceRef], relays: Sequence[DeviceRef] = ()) -> Topology:
        """The machine as a job sees it that got ``devices``: rank i is the i-th listed.

        Parameters
        ----------
        devices
            GPU indices (ints), PCI bus ids, UUIDs or names; the order is the rank order.
        relays
            Devices that may forward without being ranks.

        Raises
        ------
        TopologyError
            Where a device is unknown or listed twice, or none is listed.
        """
        chosen = [self.device(ref) for ref in devices]
        helpers = [self.device(ref) for ref in relays]
        if not chosen:
            raise TopologyError(f"topology {self.name}: a subset needs at least one device")
        names = [d.name for d in (*chosen, *helpers)]
        for name in names:
            if names.count(name) > 1:
                raise TopologyError(f"topology {self.name}: {name} is listed twice in the subset")
        gone = {d.name for d in (*self.devices, *self.relays)} - set(names)
        links = tuple(link for link in self.links if link.src not in gone and link.dst not in gone)
        cut = replace(self, devices=tuple(chosen), relays=tuple(helpers), links=links, parent=self)
        return cut._without_dead_switches()

    def restrict(self, kinds: Iterable[str]) -> Topology:
        """Only the links of these kinds, and the switches that they reach."""
        keep = {kind.upper() for kind in kinds}
        unknown = keep - set(LINK_KINDS)
        if unknown:
            raise TopologyError(f"unknown link kind {', '.join(sorted(unknown))}; known: {', '.join(LINK_KINDS)}")
        links = tuple(link for link in self.links if link.kind in keep)
        return replace(self, links=links, parent=self)._without_dead_switches()

    def _without_dead_switches(self) -> Topology:
        """Drop switches that no longer lie between two others, again and again until none is left."""
        links, switches = self.links, self.switches
        while True:
            neighbours: dict[str, set[str]] = {switch.name: set() for switch in switches}
            for link in links:
                for here, there in ((link.src, link.dst), (link.dst, link.src)):
                    if here in neighbours:
                        neighbours[here].add(there)
            dead = {name for name, around in neighbours.items() if len(around) < 2}
            if not dead:
                return replace(self, switches=switches, links=links, parent=self.parent)
            switches = tuple(s for s in switches if s.name not in dead)
            links = tuple(k for k in links if k.src not in dead and k.dst not in dead)

    # -- identity -----------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over ranks, switches and links, whatever order they were listed in."""
        body = self._as_dict()
        body.pop("name")
        for part in ("switches", "links"):
            body[part] = sorted(body[part], key=lambda item: json.dumps(item, sort_keys=True))
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]

    # -- JSON ---------------------------------------------------------------------------------------------------

    def _as_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "devices": [_device_dict(d) for d in self.devices],
            "relays": [_device_dict(d) for d in self.relays],
            "switches": [_without_defaults(vars(s), Switch) for s in self.switches],
            "links": [_link_dict(k) for k in self.links],
        }

    def to_json(self) -> str:
        """This topology as JSON; capacities are ints or ``"p/q"`` strings, so nothing is rounded."""
        return json.dumps(self._as_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Topology:
        """The topology that :meth:`to_json` wrote.

        Raises
        ------
        TopologyError
            Where the text is not JSON, has another schema, or a field is missing or malformed.
        """
        try:
            body = json.loads(text)
        except ValueError as error:
            raise TopologyError(f"not JSON: {error}") from None
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            found = body.get("schema") if isinstance(body, dict) else type(body).__name__
            raise TopologyError(f"expected a topology of schema {SCHEMA}, got {found!r}")
        try:
            return cls(
                name=str(body["name"]),
                devices=tuple(_device_from(d) for d in body["devices"]),
                relays=tuple(_device_from(d) for d in body.get("relays", ())),
                switches=tuple(Switch(**s) for s in body.get("switches", ())),
                links=tuple(_link_from(k) for k in body.get("links", ())),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise TopologyError(f"topology JSON: missing or malformed field: {error}") from None


def exact(value: int | float | str | Fraction, what: str = "number") -> Fraction:
    """An int, a decimal or ``"p/q"`` as an exact rational (0.1 means one tenth, as written)."""
    try:
        return Fraction(str(value)) if isinstance(value, float) else Fraction(value)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise TopologyError(f"{what}: {value!r} is not an int, a decimal or 'p/q'") from None


def _plain(value: Fraction) -> int | str:
    return int(value) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def _without_defaults(values: dict[str, Any], cls: type) -> dict[str, Any]:
    defaults = {f.name: f.default for f in cls.__dataclass_fields__.values()}  # type: ignore[attr-defined]
    return {k: v for k, v in values.items() if k in defaults and v != defaults[k]}


def _device_dict(device: Device) -> dict[str, Any]:
    return _without_defaults(vars(device), Device)


def _device_from(body: dict[str, Any]) -> Device:
    body = dict(body)
    if body.get("bus_id") is not None:
        body["bus_id"] = PciBusId(body["bus_id"])
    if body.get("uuid") is not None:
        body["uuid"] = Uuid(body["uuid"])
    return Device(**body)


def _link_dict(link: Link) -> dict[str, Any]:
    return {k: _plain(v) if isinstance(v, Fraction) else v for k, v in _without_defaults(vars(link), Link).items()}


def _link_from(body: dict[str, Any]) -> Link:
    body = dict(body)
    for name in ("capacity", "latency_us", "measured_gb_s"):
        if body.get(name) is not None:
            body[name] = exact(body[name], f"link {body.get('src')}->{body.get('dst')}: {name}")
    return Link(**body)
