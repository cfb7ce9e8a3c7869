"""One rank as a process: maps the segment it is given and runs launches that arrive on its standard input.

Started by :mod:`blinkcoll.runtime.processes` with five numbers: the segment's descriptor and size, ranks, connections,
and the descriptor to answer on. Each line in is a launch record in hex, with offsets; each answer is ``ran`` or
``stopped``. Ends at the line ``end``, or when its input does.
"""

from __future__ import annotations

import os
import sys

from .. import _core
from .segment import Segment, rebase


def main() -> None:
    """Serve launches until told to end."""
    fd, nbytes, nranks, nconnections, answers = map(int, sys.argv[1:])
    segment = Segment(nbytes, fd)
    with os.fdopen(answers, "w", encoding="ascii") as out:
        print("ready", file=out, flush=True)
        for line in sys.stdin:
            if line.strip() == "end":
                return
            record, tables = rebase(bytes.fromhex(line), segment, nranks, nconnections)
            ran = _core.run_rank(record)
            del tables  # the record pointed into them
            print("ran" if ran else "stopped", file=out, flush=True)
