"""Says on stderr what is being planned once that takes longer than two seconds, and again at ever longer intervals."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_S = 2.0


@contextmanager
def progress(what: str, first_s: float = FIRST_S) -> Iterator[None]:
    """Report ``what`` after ``first_s`` seconds, then each time the waiting time has doubled."""
    done = threading.Event()

    def report() -> None:
        waited, pause = first_s, first_s
        while not done.wait(pause):
            print(f"# {what}: {waited:g} s so far", file=sys.stderr, flush=True)
            pause, waited = waited, 2 * waited

    thread = threading.Thread(target=report, name="blinkcoll-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
