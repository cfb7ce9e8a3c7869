"""A picture of a topology: fast links between GPUs on a circle, and beside it the PCIe tree. SVG, no dependency.

Widths of lines grow with bonded lanes; every GPU has one place on each side, so that a pair can be found in both. Servers
that repeat the first are counted instead of drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from ..topology import BETWEEN_SERVERS, Device, PcieTree, Topology, pcie_tree
from .numbers import gb_s
from .topology_dot import COLOURS, wires

_FILL = {"gpu": "#eaf4d9", "host": "#eaf4d9", "nvswitch": "#d9ebd3", "pcie": "#e3ebf6", "cpu": "#ece5f5", "nic": "#fbeeda", "network": "#fbeeda"}
_EDGE = {"gpu": "#5b8c00", "host": "#5b8c00", "nvswitch": "#3f6f3a", "pcie": "#4a6fa5", "cpu": "#7d5ba6", "nic": "#c77c11", "network": "#c77c11"}
_BOX_W, _BOX_H, _GAP, _LEVEL, _MARGIN = 58, 28, 12, 92, 36


@dataclass
class _Canvas:
    """SVG elements collected back to front."""

    back: list[str] = field(default_factory=list)
    front: list[str] = field(default_factory=list)

    def line(self, a: tuple[float, float], b: tuple[float, float], colour: str, width: float, dash: str = "") -> None:
        """A straight line."""
        style = f' stroke-dasharray="{dash}"' if dash else ""
        self.back.append(
            f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{colour}" stroke-width="{width:.1f}"{style}/>'
        )

    def path(self, points: str, colour: str, width: float) -> None:
        """An open path."""
        self.back.append(f'<path d="{points}" fill="none" stroke="{colour}" stroke-width="{width:.1f}" stroke-linejoin="round"/>')

    def box(self, at: tuple[float, float], text: str, kind: str, w: float = _BOX_W, h: float = _BOX_H) -> None:
        """A labelled box around a point."""
        size = min(12.0, 1.62 * w / max(4, len(text)))
        self.front.append(
            f'<rect x="{at[0] - w / 2:.1f}" y="{at[1] - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5" fill="{_FILL[kind]}" '
            f'stroke="{_EDGE[kind]}" stroke-width="1.4"/>'
        )
        self.text(at, text, size)

    def text(self, at: tuple[float, float], text: str, size: float = 11, colour: str = "#1f2733", anchor: str = "middle") -> None:
        """A line of text around a point."""
        self.front.append(
            f'<text x="{at[0]:.1f}" y="{at[1] + size * 0.35:.1f}" font-size="{size:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def label(self, at: tuple[float, float], text: str, colour: str) -> None:
        """Small text on a white patch, on top of lines."""
        w = 5.6 * len(text) + 6
        self.front.append(f'<rect x="{at[0] - w / 2:.1f}" y="{at[1] - 7:.1f}" width="{w:.1f}" height="14" rx="3" fill="#ffffff" fill-opacity="0.9"/>')
        self.text(at, text, 9.5, colour)


def topology_svg(topology: Topology) -> str:
    """The text of an SVG file."""
    tree = pcie_tree(topology)
    canvas = _Canvas()
    top = 78.0
    fast = any(kind in ("NVLINK", "XGMI") for kind in topology.kinds())
    circle, lower = _circle(canvas, topology, top) if fast else (0.0, top)
    width, height = _trees(canvas, topology, tree, circle, top)
    height, width = max(height, lower), max(width, circle, 520.0)
    _head(canvas, topology)
    _legend(canvas, topology, height)
    height += 34
    body = "\n".join([*canvas.back, *canvas.front])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="Helvetica, Arial, sans-serif">\n<title>{escape(topology.name)}</title>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _head(canvas: _Canvas, topology: Topology) -> None:
    models = sorted({d.model or d.arch for d in topology.devices} - {""})
    canvas.text((_MARGIN, 28), topology.name, 18, anchor="start")
    canvas.text((_MARGIN, 50), f"{topology.nranks}x {' and '.join(models) or 'device'}; capacities in GB/s one way", 11, "#5a6472", "start")


def _legend(canvas: _Canvas, topology: Topology, y: float) -> None:
    x = float(_MARGIN)
    for kind in topology.kinds():
        canvas.line((x, y + 8), (x + 24, y + 8), COLOURS[kind], 3)
        canvas.text((x + 30, y + 8), kind, 10.5, "#1f2733", "start")
        x += 54 + 7.5 * len(kind)
    if topology.no_peer_access:
        canvas.text((x, y + 8), f"{len(topology.no_peer_access)} ordered pairs without peer access", 10.5, "#c0392b", "start")


# -- the circle of fast links ------------------------------------------------------------------------------------


def _first_server(topology: Topology) -> list[Device]:
    """The devices of the first server where fast links stay within servers, else all."""
    home = {d.name: d.server for d in (*topology.devices, *topology.relays)} | {s.name: s.server for s in topology.switches}
    fast = [k for k in topology.links if k.kind in ("NVLINK", "XGMI")]
    if any(home[k.src] != home[k.dst] for k in fast):
        return list(topology.devices)
    first = min(d.server for d in topology.devices)
    return [d for d in topology.devices if d.server == first]


def _circle(canvas: _Canvas, topology: Topology, top: float) -> tuple[float, float]:
    """Devices on a circle with their fast links; returns its right and lower edges."""
    devices = _first_server(topology)
    n = len(devices)
    box_w = _BOX_W if n <= 24 else 34.0
    radius = max(150.0, n * (box_w + (22 if n <= 24 else 8)) / (2 * math.pi))
    centre = (_MARGIN + radius + box_w / 2, top + radius + _BOX_H / 2)
    place = {
        d.name: (centre[0] + radius * math.sin(2 * math.pi * (i + 0.5) / n), centre[1] - radius * math.cos(2 * math.pi * (i + 0.5) / n))
        for i, d in enumerate(devices)
    }
    hubs = [s for s in topology.switches if s.kind == "nvswitch" and s.server in (BETWEEN_SERVERS, devices[0].server)]
    for i, hub in enumerate(hubs):
        place[hub.name] = (centre[0], centre[1] + 60.0 * (i - (len(hubs) - 1) / 2))
    most = max((link.lanes for link, _ in wires(topology) if link.kind in ("NVLINK", "XGMI")), default=1)
    labels = set()
    for link, _ in wires(topology):
        if link.kind not in ("NVLINK", "XGMI") or link.src not in place or link.dst not in place:
            continue
        width = _line(link.lanes, most, n)
        _chord(canvas, place[link.src], place[link.dst], centre, COLOURS[link.kind], width)
        labels.add((link.kind, link.lanes, gb_s(link.capacity)))
    for i, device in enumerate(devices):
        name = device.name if n <= 24 else str(device.index if device.index is not None else i)
        canvas.box(place[device.name], name, device.kind, box_w, _BOX_H if n <= 24 else 20)
    for hub in hubs:
        sharp = " + SHARP" if hub.reduce else ""
        canvas.box(place[hub.name], hub.name, "nvswitch", 118, 46)
        canvas.text((place[hub.name][0], place[hub.name][1] + 15), f"{hub.planes} chips{sharp}", 9, "#3f6f3a")
    below = centre[1] + radius + _BOX_H / 2 + 26
    _widths(canvas, labels, (centre[0], below), most, n)
    return 2 * radius + box_w + _MARGIN + 30, below + _MARGIN


def _line(lanes: int, most: int, devices: int) -> float:
    """The width of a line of so many lanes: 1.3 to 6, thinner where many devices share the middle."""
    return (1.3 + 4.7 * lanes / most if most > 1 else 1.8) * (1.0 if devices <= 24 else 0.35)


def _chord(canvas: _Canvas, a: tuple[float, float], b: tuple[float, float], centre: tuple[float, float], colour: str, width: float) -> None:
    """A chord bent a little towards the centre, so that neighbours on the circle are told apart."""
    middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
    pull = 0.0 if centre in (a, b) else 0.25
    bend = (middle[0] + (centre[0] - middle[0]) * pull, middle[1] + (centre[1] - middle[1]) * pull)
    canvas.path(f"M {a[0]:.1f} {a[1]:.1f} Q {bend[0]:.1f} {bend[1]:.1f} {b[0]:.1f} {b[1]:.1f}", colour, width)


def _widths(canvas: _Canvas, labels: set[tuple[str, int, str]], at: tuple[float, float], most: int, n: int) -> None:
    """What the widths mean, below the circle."""
    step = 118.0
    x = at[0] - step * (len(labels) - 1) / 2 - 44
    for kind, lanes, rate in sorted(labels):
        width = _line(lanes, most, n)
        canvas.line((x, at[1]), (x + 22, at[1]), COLOURS[kind], width)
        canvas.text((x + 28, at[1]), f"{lanes}x = {rate} GB/s", 10, "#1f2733", "start")
        x += step


# -- the PCIe trees ----------------------------------------------------------------------------------------------


def _trees(canvas: _Canvas, topology: Topology, tree: PcieTree, left: float, top: float) -> tuple[float, float]:
    """The trees below the CPUs of the first server, side by side; returns the right and lower edges."""
    servers = sorted({s.server for s in topology.switches if s.kind == "cpu"})
    cpus = [s for s in topology.switches if s.kind == "cpu" and s.server == servers[0]] if servers else []
    kinds = {s.name: s.kind for s in topology.switches} | {d.name: d.kind for d in topology.devices}
    start = left + _MARGIN
    x, lowest = start, top
    place: dict[str, tuple[float, float]] = {}
    y = top + 30
    for cpu in cpus:
        wide = _width(tree, cpu.name)
        if x > start and x + wide > start + 16 * (_BOX_W + _GAP):  # a new row of CPUs
            x, y = start, lowest + 70
        lowest = max(lowest, _tree(canvas, tree, kinds, cpu.name, (x, y), place))
        x += wide + 22
    between = [k for k, _ in wires(topology) if k.kind == "CPU" and k.src in place and k.dst in place and kinds[k.src] == kinds[k.dst] == "cpu"]
    if len(between) == 1 and place[between[0].src][1] == place[between[0].dst][1]:
        _cpu_arc(canvas, place[between[0].src], place[between[0].dst], gb_s(between[0].capacity))
    elif between:
        rates = " or ".join(gb_s(rate) for rate in sorted({k.capacity for k in between}))
        canvas.text((start, top - 6), f"between {'any two' if len(between) > 1 else 'the'} CPUs: {rates} GB/s", 11, COLOURS["CPU"], "start")
    if len(servers) > 1:
        rates = " or ".join(gb_s(r) for r in sorted({k.capacity for k in topology.links if k.kind == "NIC"}))
        network = f"; each NIC has {rates} GB/s to the network" if rates else ""
        canvas.text((start, lowest + 34), f"one of {len(servers)} servers{network}", 11, "#5a6472", "start")
        lowest += 40
    right = max((p[0] for p in place.values()), default=left) + _BOX_W / 2 + _MARGIN
    return right, lowest + _MARGIN


def _width(tree: PcieTree, vertex: str) -> float:
    children = tree.children(vertex)
    return sum(_width(tree, child) for child in children) if children else _BOX_W + _GAP


def _tree(
    canvas: _Canvas, tree: PcieTree, kinds: dict[str, str], vertex: str, at: tuple[float, float], place: dict[str, tuple[float, float]]
) -> float:
    """A vertex over its children, from ``at`` to the right; returns the lower edge."""
    wide = _width(tree, vertex)
    place[vertex] = (at[0] + wide / 2, at[1])
    x, lowest = at[0], at[1] + _BOX_H
    for child in tree.children(vertex):
        link = tree.up[child]
        lowest = max(lowest, _tree(canvas, tree, kinds, child, (x, at[1] + _LEVEL), place))
        here, there = place[vertex], place[child]
        half = (here[1] + there[1]) / 2
        colour = COLOURS[link.kind]
        canvas.path(f"M {here[0]:.1f} {here[1]:.1f} V {half:.1f} H {there[0]:.1f} V {there[1]:.1f}", colour, 1.6 if link.kind == "PCIE" else 2.6)
        canvas.label((there[0], there[1] - _BOX_H / 2 - 14), gb_s(link.capacity), colour)
        x += _width(tree, child)
    canvas.box(place[vertex], vertex, kinds[vertex])
    return lowest


def _cpu_arc(canvas: _Canvas, a: tuple[float, float], b: tuple[float, float], text: str) -> None:
    """An arc over two CPUs."""
    height = min(60.0, 18 + abs(b[0] - a[0]) * 0.05)
    middle = ((a[0] + b[0]) / 2, a[1] - _BOX_H / 2 - height)
    canvas.path(f"M {a[0]:.1f} {a[1] - _BOX_H / 2:.1f} Q {middle[0]:.1f} {middle[1]:.1f} {b[0]:.1f} {b[1] - _BOX_H / 2:.1f}", COLOURS["CPU"], 2)
    canvas.label((middle[0], (middle[1] + a[1] - _BOX_H / 2) / 2), text, COLOURS["CPU"])
