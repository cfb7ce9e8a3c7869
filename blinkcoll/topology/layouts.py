"""Named layouts: one TOML file a machine, every number with its source, read into a :class:`Topology`."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import TopologyError
from .model import Device, GpuIndex, Link, Switch, Topology, exact

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = Path(__file__).resolve().parent.parent / "topologies"
SCHEMA = 1


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
    try:
        body = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(f"{where}: not TOML: {error}") from None
    if body.get("schema") != SCHEMA:
        raise TopologyError(f"{where}: expected a layout of schema {SCHEMA}, got {body.get('schema')!r}")
    try:
        gpus = body["gpus"]
        devices = tuple(
            Device(name=f"gpu{i}", index=GpuIndex(i), arch=gpus.get("arch", "")) for i in range(int(gpus["count"]))
        )
        switches = tuple(
            Switch(name=name, kind=group["kind"], multicast=group.get("multicast", False), reduce=group.get("reduce", False))
            for group in body.get("switches", ())
            for name in group["names"]
        )
        links = tuple(link for group in body.get("wires", ()) for link in _wires(group, body["class"], where))
        return Topology(name=body["name"], devices=devices, switches=switches, links=links)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, TopologyError):
            raise TopologyError(f"{where}: {error}") from None
        raise TopologyError(f"{where}: missing or malformed entry: {error!r}") from None


def _wires(group: dict[str, Any], classes: dict[str, Any], where: str) -> list[Link]:
    """Both directions of every wire of a group."""
    spec = classes[group["class"]]
    bonded = int(group.get("lanes", 1))
    measured = spec.get("measured_gb_s")
    found = []
    for pair in group["between"]:
        a, b = (f"gpu{end}" if isinstance(end, int) else str(end) for end in pair)
        for src, dst in ((a, b), (b, a)):
            found.append(
                Link(
                    src=src,
                    dst=dst,
                    kind=spec["kind"],
                    capacity=exact(spec["capacity"], f"{where}: class {group['class']}: capacity") * bonded,
                    latency_us=exact(spec.get("latency_us", 0), f"{where}: class {group['class']}: latency_us"),
                    measured_gb_s=None if measured is None else exact(measured, f"{where}: class {group['class']}: measured_gb_s") * bonded,
                    lanes=bonded * int(spec.get("lanes", 1)),
                    generation=spec.get("generation"),
                )
            )
    return found
