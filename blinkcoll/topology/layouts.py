"""Named layouts: one TOML file a machine, every number with its source, read into a :class:`Topology`."""

from __future__ import annotations

import sys
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import TopologyError
from .clusters import MOST_DEVICES
from .model import BETWEEN_SERVERS, Device, GpuIndex, Link, Switch, Topology, exact

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = Path(__file__).resolve().parent.parent / "topologies"
SCHEMA = 1
#: Characters of a layout; that of the largest rack has 10000.
MOST_TEXT = 1 << 20


@lru_cache(maxsize=1)
def _names() -> dict[str, Path]:
    """Every name and alias of a layout, to its file."""
    found: dict[str, Path] = {}
    for path in sorted(_FOLDER.glob("*.toml")):
        found[path.stem] = path
        for alias in tomllib.loads(path.read_text(encoding="utf-8")).get("aliases", ()):
            found[alias] = path
    return found


def layout_names() -> list[str]:
    """The names of the layouts that come with blinkcoll, aliases included."""
    return sorted(_names())


@lru_cache(maxsize=32)
def load_layout(name: str) -> Topology:
    """The layout of that name or alias.

    Raises
    ------
    TopologyError
        Where there is none of that name; the message lists those there are.
    """
    path = _names().get(name)
    if path is None:
        raise TopologyError(f"no layout is called {name!r}; known: {', '.join(layout_names())}")
    return parse_layout(path.read_text(encoding="utf-8"), str(path))


def parse_layout(text: str, where: str) -> Topology:
    """A topology from the TOML of a layout file; ``where`` names it in errors."""
    if len(text) > MOST_TEXT:
        raise TopologyError(f"{where}: {len(text)} characters of TOML, expected at most {MOST_TEXT}")
    try:
        body = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TopologyError(f"{where}: not TOML: {error}") from None
    if body.get("schema") != SCHEMA:
        raise TopologyError(f"{where}: expected a layout of schema {SCHEMA}, got {body.get('schema')!r}")
    try:
        devices = tuple(_devices(body["gpus"]))
        switches = tuple(switch for group in body.get("switches", ()) for switch in _switches(group))
        links = tuple(link for group in body.get("wires", ()) for link in _wires(group, body["class"], devices))
        refused = body["gpus"].get("no_peer_access", False)
        pairs = tuple((a.name, b.name) for a in devices[:1024] for b in devices[:1024] if refused and a is not b)
        if not isinstance(body["name"], str):
            raise TopologyError(f"name: expected text, got {body['name']!r}")
        return Topology(name=body["name"], devices=devices, switches=switches, links=links, no_peer_access=pairs)
    except TopologyError as error:
        raise TopologyError(f"{where}: {error}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TopologyError(f"{where}: missing or malformed entry: {error!r}") from None


def _devices(group: dict[str, Any]) -> list[Device]:
    """``gpus``: count, arch, model, kind ("gpu" or "host") and, for a rack, the number of servers they are spread over."""
    count, kind = int(group["count"]), str(group.get("kind", "gpu"))
    if not 0 < count <= MOST_DEVICES:
        raise TopologyError(f"gpus.count is {count}, expected 1 to {MOST_DEVICES}")
    servers = int(group.get("servers", 1))
    if not 0 < servers <= count or count % servers:
        raise TopologyError(f"gpus.servers is {servers}, expected a divisor of {count}")
    share = count // servers
    return [
        Device(
            name=f"{kind}{i}", kind=kind, index=GpuIndex(i), arch=group.get("arch", ""), server=i // share, model=group.get("model", "")
        )
        for i in range(count)
    ]


def _switches(group: dict[str, Any]) -> list[Switch]:
    """A group of like switches; ``per_server`` of them stand in each server, ``shared`` ones between servers."""
    fields = {name: group[name] for name in ("multicast", "reduce", "planes", "arch", "vendor", "model") if name in group}
    for name, value in fields.items():
        wanted = bool if name in ("multicast", "reduce") else int if name == "planes" else str
        if type(value) is not wanted:
            raise TopologyError(f"switches {group['names']}: {name}: expected {wanted.__name__}, got {value!r}")
    share = int(group.get("per_server", len(group["names"]))) or 1
    return [
        Switch(name=name, kind=group["kind"], server=BETWEEN_SERVERS if group.get("shared") else i // share, **fields)
        for i, name in enumerate(group["names"])
    ]


def _wires(group: dict[str, Any], classes: dict[str, Any], devices: tuple[Device, ...]) -> list[Link]:
    """Both directions of every wire of a group: ``between`` lists pairs (and ports), ``each_gpu`` names one far end for all."""
    spec = classes[group["class"]]
    bonded = int(group.get("lanes", 1))
    what = f"class {group['class']}"
    rates = {name: exact(spec[name], f"{what}: {name}") for name in ("capacity", "latency_us", "measured_gb_s") if name in spec}
    measured = rates.get("measured_gb_s")
    pairs = [[i, group["each_gpu"]] for i in range(len(devices))] if "each_gpu" in group else group["between"]
    found = []
    for pair in pairs:
        a, b = (devices[end].name if isinstance(end, int) else str(end) for end in pair[:2])
        for src, dst in ((a, b), (b, a)):
            found.append(
                Link(
                    src=src,
                    dst=dst,
                    kind=spec["kind"],
                    capacity=rates["capacity"] * bonded,
                    latency_us=rates.get("latency_us", Fraction(0)),
                    measured_gb_s=None if measured is None else measured * bonded,
                    lanes=bonded * int(spec.get("lanes", 1)),
                    generation=spec.get("generation"),
                    port=str(pair[2]) if len(pair) > 2 else "",
                )
            )
    return found
