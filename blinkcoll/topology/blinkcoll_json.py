"""blinkcoll's own JSON, read back: every field checked for its name and type, so that errors say where they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..errors import TopologyError
from .model import SCHEMA, Device, GpuIndex, Link, PciBusId, Switch, Topology, Uuid, exact

_TOP = {"schema", "units", "fingerprint", "name", "devices", "relays", "switches", "links", "no_peer_access", "notes"}


def parse_blinkcoll_json(text: str, where: str) -> Topology:
    """The topology that :meth:`Topology.to_json` wrote; ``where`` names the source in errors.

    Raises
    ------
    TopologyError
        Where the text is not JSON, has another schema, or a field is unknown, missing or malformed.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TopologyError(f"{where}: not JSON: {error}") from None
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        found = body.get("schema") if isinstance(body, dict) else type(body).__name__
        raise TopologyError(f"{where}: expected a topology of schema {SCHEMA}, got {str(found)[:80]!r}")
    unknown = sorted(set(body) - _TOP)
    if unknown:
        raise TopologyError(f"{where}: unknown entry {unknown[0][:80]!r}; known: {', '.join(sorted(_TOP))}")
    topology = Topology(
        name=_text(body.get("name"), f"{where}: name"),
        devices=tuple(_device(d, f"{where}: devices[{i}]") for i, d in enumerate(_list(body, "devices", where))),
        relays=tuple(_device(d, f"{where}: relays[{i}]") for i, d in enumerate(_list(body, "relays", where))),
        switches=tuple(_switch(s, f"{where}: switches[{i}]") for i, s in enumerate(_list(body, "switches", where))),
        links=tuple(_link(k, f"{where}: links[{i}]") for i, k in enumerate(_list(body, "links", where))),
        notes=tuple(_text(note, f"{where}: notes") for note in _list(body, "notes", where)),
        no_peer_access=tuple(_pair(p, f"{where}: no_peer_access") for p in _list(body, "no_peer_access", where)),
    )
    if not topology.devices:
        raise TopologyError(f"{where}: lists no device")
    return topology


def _list(body: dict[str, Any], name: str, where: str) -> list[Any]:
    value = body.get(name, [])
    if not isinstance(value, list):
        raise TopologyError(f"{where}: {name}: expected a list, got {type(value).__name__}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TopologyError(f"{what}: expected printable text, got {str(value)[:80]!r}")
    return value


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise TopologyError(f"{what}: expected true or false, got {str(value)[:80]!r}")
    return value


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TopologyError(f"{what}: expected an int, got {str(value)[:80]!r}")
    return value


def _pair(value: Any, what: str) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise TopologyError(f"{what}: expected a pair of names, got {str(value)[:80]!r}")
    return _text(value[0], what), _text(value[1], what)


def _checked(body: Any, readers: dict[str, Callable[[Any, str], Any]], needed: tuple[str, ...], what: str) -> dict[str, Any]:
    """The fields of one record, each through its reader; unknown and missing ones are errors."""
    if not isinstance(body, dict):
        raise TopologyError(f"{what}: expected an object, got {type(body).__name__}")
    for name in body:
        if name not in readers:
            raise TopologyError(f"{what}: unknown field {name[:80]!r}; known: {', '.join(readers)}")
    for name in needed:
        if body.get(name) is None:
            raise TopologyError(f"{what}: field {name!r} is missing")
    return {name: readers[name](value, f"{what}: {name}") for name, value in body.items() if value is not None}


def _bus_id(value: Any, what: str) -> PciBusId:
    try:
        return PciBusId(_text(value, what))
    except TopologyError as error:
        raise TopologyError(f"{what}: {error}") from None


_DEVICE: dict[str, Callable[[Any, str], Any]] = {
    "name": _text,
    "kind": _text,
    "index": lambda value, what: GpuIndex(_whole(value, what)),
    "arch": _text,
    "bus_id": _bus_id,
    "uuid": lambda value, what: Uuid(_text(value, what)),
    "server": _whole,
    "model": _text,
}
_SWITCH: dict[str, Callable[[Any, str], Any]] = {
    "name": _text, "kind": _text, "multicast": _flag, "reduce": _flag, "server": _whole, "planes": _whole,
    "arch": _text, "vendor": _text, "model": _text,
}  # fmt: skip
_LINK: dict[str, Callable[[Any, str], Any]] = {
    "src": _text, "dst": _text, "kind": _text, "capacity": exact, "latency_us": exact, "measured_gb_s": exact,
    "lanes": _whole, "generation": _whole, "port": _text,
}  # fmt: skip


def _device(body: Any, what: str) -> Device:
    return Device(**_checked(body, _DEVICE, ("name",), what))


def _switch(body: Any, what: str) -> Switch:
    return Switch(**_checked(body, _SWITCH, ("name", "kind"), what))


def _link(body: Any, what: str) -> Link:
    return Link(**_checked(body, _LINK, ("src", "dst", "kind", "capacity"), what))
