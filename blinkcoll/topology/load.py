"""One way in for every source of a topology: a layout's name, servers over a network, or a file of any known format."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import TopologyError
from .clusters import cluster
from .formats import parse
from .layouts import layout_names, load_layout
from .model import Topology, exact
from .source import read_source

_CLUSTER = re.compile(r"(?P<server>.+)\*(?P<servers>[0-9]{1,9})(?:@(?P<rate>.*))?", re.DOTALL)


def load_topology(source: str, arch: str = "") -> Topology:
    """The topology that a name or a file means.

    Parameters
    ----------
    source
        The name or alias of a layout (``"dgx1-v100"``); the path of a file in any format that blinkcoll reads (the
        content tells which); or ``NAME*N@RATE`` for N such servers over a network, RATE in GB/s one way a NIC.
    arch
        The GPUs' architecture (``"sm_80"``, ``"gfx90a"``) for files that do not say it.

    Raises
    ------
    TopologyError
        Where it is none of these, or the file cannot be read or understood.

    Examples
    --------
    >>> load_topology("dgx1-v100").nranks
    8
    >>> load_topology("dgx1-v100*2@12.5").nranks
    16
    """
    if source in layout_names():
        return load_layout(source)
    if is_file(source):
        return parse(read_source(Path(source)), arch)
    servers = _CLUSTER.fullmatch(source)
    if servers:
        if "*" in servers["server"] and not Path(servers["server"]).is_file():
            raise TopologyError(f"{source[:200]!r}: servers of servers; expected NAME*N@RATE with one *")
        if servers["rate"] is None:
            raise TopologyError(f"{source!r}: expected NAME*N@RATE with RATE in GB/s a NIC, as in 'dgx1-v100*2@12.5'")
        rate = exact(servers["rate"], f"{source!r}: the rate of a NIC in GB/s")
        return cluster(load_topology(servers["server"], arch), int(servers["servers"]), rate)
    raise TopologyError(f"{source[:200]!r} is neither a file nor a layout; layouts: {', '.join(layout_names())}")


def is_file(source: str) -> bool:
    """Whether a file has that name, whatever it holds."""
    try:
        return Path(source).is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte, for the file system
        return False
