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
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, NewType

from ..errors import TopologyError

if TYPE_CHECKING:
    from .peers import Peers

Rank = NewType("Rank", int)
GpuIndex = NewType("GpuIndex", int)

#: Kinds of link, from the fastest class down: the order in which ``links="fastest"`` adds them.
LINK_KINDS = ("NVLINK", "XGMI", "PCIE", "CPU", "NIC", "SHM")
#: Kinds of switch.
SWITCH_KINDS = ("nvswitch", "pcie", "cpu", "nic", "network")
#: Kinds of device.
DEVICE_KINDS = ("gpu", "host")

SCHEMA = 1


class PciBusId(str):
    """A PCI bus id, normalised to ``domain:bus:device.function`` in lower case with a 4-digit domain."""

    _FORM = re.compile(r"^(?:([0-9a-f]{4,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})(?:\.([0-7]))?$")

    def __new__(cls, text: str) -> PciBusId:
        """The normal form of ``text``; :class:`TopologyError` where it is no bus id."""
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
DeviceRef = int | str


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
    model: str = ""  # what the driver calls it ("Tesla V100-SXM2-16GB"), "" where unknown


#: ``Switch.server`` of what stands between servers.
BETWEEN_SERVERS = -1


@dataclass(frozen=True)
class Switch:
    """Something that forwards. It copies (``multicast``) or adds (``reduce``) only where it says so.

    ``planes`` is how many chips one vertex stands for: the NVSwitches of a machine are one vertex, because every GPU
    reaches every other through each of them alike. ``arch``, ``vendor`` and ``model`` describe a CPU (``"x86_64"``,
    ``"GenuineIntel"``, ``"Skylake"``).
    """

    name: str
    kind: str
    multicast: bool = False
    reduce: bool = False
    server: int = 0
    planes: int = 1
    arch: str = ""
    vendor: str = ""
    model: str = ""

    @property
    def p2p_efficiency(self) -> Fraction:
        """The share of a PCIe link's capacity that device-to-device traffic keeps when it turns round in this CPU.

        An Intel root complex cuts it into 64-byte packets: 5/6 (NCCL 2.30.7 src/graph/topo.h, INTEL_P2P_OVERHEAD).
        Link capacities do not contain it.
        """
        return Fraction(5, 6) if self.kind == "cpu" and self.vendor == "GenuineIntel" else Fraction(1)


@dataclass(frozen=True)
class Link:
    """One direction of a wire. ``lanes`` bonded lanes together give ``capacity``.

    ``port`` says which part of the upper end a PCIe link hangs from: within one part traffic passes a single bridge
    (PIX below a switch, PHB below a CPU), between parts several (PXB, NODE). It names distances and carries no rate.
    """

    src: str
    dst: str
    kind: str
    capacity: Fraction
    latency_us: Fraction = Fraction(0)
    measured_gb_s: Fraction | None = None
    lanes: int = 1
    generation: int | None = None
    port: str = ""

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
    notes
        What a parser or probe assumed or threw away, one sentence each; no part of equality or of the fingerprint.
    no_peer_access
        Ordered pairs of device names ``(reader, owner)`` that the driver refuses to map into each other: what the links
        say they could exchange has to be staged through host memory.

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
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)
    no_peer_access: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        names = [*(d.name for d in (*self.devices, *self.relays)), *(s.name for s in self.switches)]
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise TopologyError(f"topology {self.name}: two vertices are called {name!r}")
            seen.add(name)
        for switch in self.switches:
            if switch.kind not in SWITCH_KINDS:
                raise TopologyError(f"topology {self.name}: switch {switch.name} has kind {switch.kind!r}; known: {', '.join(SWITCH_KINDS)}")
        for device in (*self.devices, *self.relays):
            if device.kind not in DEVICE_KINDS:
                raise TopologyError(f"topology {self.name}: device {device.name} has kind {device.kind!r}; known: {', '.join(DEVICE_KINDS)}")
        for pair in self.no_peer_access:
            if not seen.issuperset(pair):
                raise TopologyError(f"topology {self.name}: no_peer_access names {pair}, of which one is no device")
        for link in self.links:
            for end in (link.src, link.dst):
                if end not in seen:
                    raise TopologyError(f"topology {self.name}: link {link.src}->{link.dst} names {end!r}, which is no device or switch")
            if link.src == link.dst:
                raise TopologyError(f"topology {self.name}: link {link.src}->{link.dst} joins a vertex to itself")
            if link.kind not in LINK_KINDS:
                raise TopologyError(f"topology {self.name}: link {link.src}->{link.dst} has kind {link.kind!r}; known: {', '.join(LINK_KINDS)}")
            if link.lanes < 1:
                raise TopologyError(f"topology {self.name}: link {link.src}->{link.dst} has {link.lanes} lanes, expected at least 1")
            if link.capacity <= 0:
                raise TopologyError(f"topology {self.name}: link {link.src}->{link.dst} has capacity {link.capacity}, expected GB/s > 0")

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.devices, self.switches, self.links, self.relays, self.no_peer_access))

    def __hash__(self) -> int:
        return self._hash  # hundreds of fractions: taken once

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}  # another process hashes text otherwise

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

    @cached_property
    def _capacities(self) -> dict[str, dict[tuple[int | str, int | str], Fraction]]:
        return {}

    @cached_property
    def _routes(self) -> dict[tuple[int, int], tuple[int | str, ...]]:
        """What :func:`blinkcoll.topology.route` has found; it keeps its answers here."""
        return {}

    def capacities(self, rates: str = "planning") -> dict[tuple[int | str, int | str], Fraction]:
        """Total capacity in GB/s per directed pair of vertices (ranks as ints, switches by name)."""
        if rates not in self._capacities:
            total: dict[tuple[int | str, int | str], Fraction] = {}
            for link in self.links:
                key = (self.vertex(link.src), self.vertex(link.dst))
                total[key] = total.get(key, Fraction(0)) + link.rate(rates)
            self._capacities[rates] = total
        return dict(self._capacities[rates])

    @cached_property
    def latencies_us(self) -> dict[tuple[int | str, int | str], float]:
        """The longest latency of the links of each directed pair of vertices, µs."""
        found: dict[tuple[int | str, int | str], float] = {}
        for link in self.links:
            hop = (self.vertex(link.src), self.vertex(link.dst))
            found[hop] = max(found.get(hop, 0.0), float(link.latency_us))
        return found

    @cached_property
    def kinds_between(self) -> dict[tuple[int | str, int | str], frozenset[str]]:
        """The kinds of link of each directed pair of vertices."""
        found: dict[tuple[int | str, int | str], frozenset[str]] = {}
        for link in self.links:
            hop = (self.vertex(link.src), self.vertex(link.dst))
            found[hop] = found.get(hop, frozenset()) | {link.kind}
        return found

    @cached_property
    def ways_on(self) -> dict[int | str, list[tuple[int | str, Fraction]]]:
        """From every vertex where its links lead, in a fixed order, and their capacity."""
        out: dict[int | str, list[tuple[int | str, Fraction]]] = {}
        for (a, b), gb_s in sorted(self.capacities().items(), key=lambda item: str(item[0])):
            out.setdefault(a, []).append((b, gb_s))
        return out

    @cached_property
    def ways_back(self) -> dict[int | str, list[tuple[int | str, Fraction]]]:
        """From every vertex where its links come from, and their capacity."""
        back: dict[int | str, list[tuple[int | str, Fraction]]] = {}
        for a, ways in self.ways_on.items():
            for b, gb_s in ways:
                back.setdefault(b, []).append((a, gb_s))
        return back

    @cached_property
    def switch_names(self) -> frozenset[str]:
        """The names of the switches."""
        return frozenset(switch.name for switch in self.switches)

    @cached_property
    def peers(self) -> Peers:
        """Over what its GPUs reach each other's memory."""
        from .peers import Peers

        return Peers(self)

    # -- cutting ------------------------------------------------------------------------------------------------

    def device(self, ref: DeviceRef) -> Device:
        """The device that a GPU index, PCI bus id, UUID or name means."""
        for device in (*self.devices, *self.relays):
            if isinstance(ref, int):
                if device.index == ref:
                    return device
            elif ref == device.name or ref == device.uuid or (device.bus_id is not None and ":" in ref and device.bus_id == PciBusId(ref)):
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
            Idle devices that plans may let forward, copy and add without their being ranks.

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
        for name, times in Counter(names).items():
            if times > 1:
                raise TopologyError(f"topology {self.name}: {name} is listed {times} times in the subset")
        gone = {d.name for d in (*self.devices, *self.relays)} - set(names)
        links = tuple(link for link in self.links if link.src not in gone and link.dst not in gone)
        refused = tuple(pair for pair in self.no_peer_access if not gone.intersection(pair))
        cut = replace(
            self, devices=tuple(chosen), relays=tuple(helpers), links=links, parent=self, no_peer_access=refused
        )
        return cut._without_dead_switches()

    def without_relays(self) -> Topology:
        """The ranks alone: what a library sees that knows no relays."""
        return self.subset([device.name for device in self.devices]) if self.relays else self

    def restrict(self, kinds: Iterable[str]) -> Topology:
        """Only the links of these kinds, and the switches that they reach."""
        keep = {kind.upper() for kind in kinds}
        unknown = keep - set(LINK_KINDS)
        if unknown:
            raise TopologyError(f"unknown link kind {', '.join(sorted(unknown))}; known: {', '.join(LINK_KINDS)}")
        links = tuple(link for link in self.links if link.kind in keep)
        return replace(self, links=links, parent=self)._without_dead_switches()

    def _without_dead_switches(self) -> Topology:
        """Drop switches that no longer lie between two others, again and again until none is left.

        A CPU stays while anything but CPUs hangs from it: in its memory what came up is staged and goes down again.
        """
        links, switches = self.links, self.switches
        cpus = {switch.name for switch in switches if switch.kind == "cpu"}
        while True:
            neighbours: dict[str, set[str]] = {switch.name: set() for switch in switches}
            for link in links:
                for here, there in ((link.src, link.dst), (link.dst, link.src)):
                    if here in neighbours:
                        neighbours[here].add(there)
            dead = {name for name, around in neighbours.items() if len(around) < 2 and not (name in cpus and around - cpus)}
            if not dead:
                return replace(self, switches=switches, links=links, parent=self.parent)
            switches = tuple(s for s in switches if s.name not in dead)
            links = tuple(k for k in links if k.src not in dead and k.dst not in dead)

    def unique_subsets(self, k: int) -> list[Topology]:
        """One subset of each connected class of ``k`` devices; see :func:`blinkcoll.topology.unique_subsets`."""
        from .subsets import unique_subsets

        return unique_subsets(self, k)

    # -- identity -----------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over ranks, switches and links, whatever order switches and links were listed in.

        What does not change a plan is left out: the topology's name, bus ids, UUIDs, model names, ports and notes. Two
        servers of one make have one fingerprint.
        """
        body = self._as_dict()
        for part in ("name", "notes"):
            body.pop(part, None)
        for device in (*body["devices"], *body["relays"]):
            for part in ("bus_id", "uuid", "model"):
                device.pop(part, None)
        for link in body["links"]:
            link.pop("port", None)
        if "no_peer_access" in body:
            body["no_peer_access"] = sorted(body["no_peer_access"])
        for part in ("switches", "links"):
            body[part] = sorted(body[part], key=lambda item: json.dumps(item, sort_keys=True))
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]

    def isomorphic(self, other: Topology, same_ranks: bool = False) -> bool:
        """Whether the two are one machine under other names; with ``same_ranks``, with every rank in its place.

        See :func:`blinkcoll.topology.isomorphism.isomorphic`.
        """
        from .isomorphism import isomorphic

        return isomorphic(self, other, same_ranks)

    # -- JSON ---------------------------------------------------------------------------------------------------

    def _as_dict(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "schema": SCHEMA,
            "name": self.name,
            "devices": [_record(d) for d in self.devices],
            "relays": [_record(d) for d in self.relays],
            "switches": [_record(s) for s in self.switches],
            "links": [_record(k) for k in self.links],
        }
        if self.no_peer_access:
            body["no_peer_access"] = [list(pair) for pair in self.no_peer_access]
        if self.notes:
            body["notes"] = list(self.notes)
        return body

    def to_json(self) -> str:
        """This topology as JSON; capacities are ints or ``"p/q"`` strings, so nothing is rounded."""
        head = {"units": {"capacity": "GB/s one way", "latency_us": "us"}, "fingerprint": self.fingerprint}
        body = self._as_dict()
        return json.dumps({"schema": body.pop("schema"), **head, **body}, indent=1)

    @classmethod
    def from_json(cls, text: str, where: str = "topology JSON") -> Topology:
        """The topology that :meth:`to_json` wrote; ``where`` names the source in errors.

        Raises
        ------
        TopologyError
            Where the text is not JSON, has another schema, or a field is unknown, missing or malformed.
        """
        from .blinkcoll_json import parse_blinkcoll_json

        return parse_blinkcoll_json(text, where)


_EXACT = re.compile(r"[+-]?[0-9_./]{1,60}(e[+-]?[0-9]{1,2})?", re.IGNORECASE)


def exact(value: int | float | str | Fraction, what: str = "number") -> Fraction:
    """An int, a decimal or ``"p/q"`` as an exact rational (0.1 means one tenth, as written).

    Raises
    ------
    TopologyError
        Where it is none of these, or so long that no rate can be meant (over 60 characters, exponent over 99).
    """
    if isinstance(value, Fraction):
        return value
    try:
        if isinstance(value, bool) or not _EXACT.fullmatch(str(value).strip()):
            raise ValueError
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise TopologyError(f"{what}: {str(value)[:80]!r} is not an int, a decimal or 'p/q'") from None


def _plain(value: Fraction) -> int | str:
    return int(value) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def _record(thing: Device | Switch | Link) -> dict[str, Any]:
    """The fields of a device, switch or link that differ from their defaults, as JSON takes them."""
    defaults = {f.name: f.default for f in fields(thing)}
    found = {name: value for name, value in vars(thing).items() if name in defaults and value != defaults[name]}
    return {name: _plain(value) if isinstance(value, Fraction) else value for name, value in found.items()}
