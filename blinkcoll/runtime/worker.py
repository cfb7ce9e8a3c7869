"""One rank as a process: maps the segment it is given and runs launches that arrive on its standard input.

Started by :mod:`blinkcoll.runtime.processes` with four numbers: the segment's descriptor and size, ranks, connections.
Each line in is a launch record in hex, with offsets; each line out is ``ran`` or ``stopped``. Ends when its input does.
"""

from __future__ import annotations

import sys

from .. import _core
from .segment import Segment, rebase


def main() -> None:
    """Serve launches until standard input ends."""
    fd, nbytes, nranks, nconnections = map(int, sys.argv[1:])
    segment = Segment(nbytes, fd)
    print("ready", flush=True)
    for line in sys.stdin:
        record, tables = rebase(bytes.fromhex(line), segment, nranks, nconnections)
        ran = _core.run_rank(record)
        del tables  # the record pointed into them
        print("ran" if ran else "stopped", flush=True)
