"""Which format a file has, told from its content, and the parser for it."""

from __future__ import annotations

from ..errors import TopologyError
from .layouts import parse_layout
from .model import Topology
from .source import Source


def parse(source: Source, arch: str = "") -> Topology:
    """The topology in a file of any known format; ``arch`` helps where the file names no architecture."""
    head = source.text.lstrip()[:1]
    if not head:
        raise source.error("is empty")
    if head == "{":
        return Topology.from_json(source.text, source.name)
    return parse_layout(source.text, source.name)


__all__ = ["TopologyError", "parse"]
