"""One way in for every source of a topology: a layout's name, or a file whose format its content tells."""

from __future__ import annotations

from pathlib import Path

from ..errors import TopologyError
from .layouts import layout_names, load_layout, parse_layout
from .model import Topology


def load_topology(source: str) -> Topology:
    """The topology that a name or a file means.

    Parameters
    ----------
    source
        The name or alias of a layout (``"dgx1-v100"``), or the path of a file in blinkcoll's JSON or TOML.

    Raises
    ------
    TopologyError
        Where it is neither, or the file cannot be read or understood.

    Examples
    --------
    >>> load_topology("dgx1-v100").nranks
    8
    """
    if source in layout_names():
        return load_layout(source)
    path = Path(source)
    if not path.is_file():
        raise TopologyError(f"{source!r} is neither a file nor a layout; layouts: {', '.join(layout_names())}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(f"{source}: cannot be read: {error}") from None
    if text.lstrip().startswith("{"):
        return Topology.from_json(text)
    return parse_layout(text, source)
