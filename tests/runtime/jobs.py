"""Jobs of processes to which things happen: each rank tells what became of it, and the test looks at what is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blinkcoll as bc

PATIENCE_S = 60


def open_files() -> list[str]:
    """What this process has open; another thread may be closing some of it."""
    held = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            held.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(held)


class Job:
    """``body(communicator, tell)`` in a process a rank; ``tell(x)`` sends something to the test at once."""

    def __init__(self, world_size: int, folder: Path, body: Callable[[Any, Callable[[Any], None]], Any], **options: Any) -> None:
        self.world_size, self._body = world_size, body
        self._folder, self._options = folder, {"timeout_s": 30, **options}
        context = multiprocessing.get_context("fork")
        self._pipes, self._processes = [], []
        for rank in range(world_size):
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=self._run, args=(rank, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def _run(self, rank: int, pipe: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for other in self._pipes:  # of ranks started before
            other.close()

        def tell(what: Any) -> None:
            pipe.send(("told", what))

        try:
            with bc.Communicator(rank, self.world_size, bc.FileStore(self._folder / "store"), **self._options) as comm:
                try:
                    pipe.send(("result", self._body(comm, tell), time.monotonic()))
                except BaseException as error:
                    pipe.send((type(error).__name__, str(error), time.monotonic()))
        except BaseException as error:
            with contextlib.suppress(OSError):
                pipe.send((type(error).__name__, str(error), time.monotonic()))

    def pid(self, rank: int) -> int:
        return self._processes[rank].pid

    def signal(self, rank: int, number: int) -> float:
        """Send a signal; when."""
        os.kill(self.pid(rank), number)
        return time.monotonic()

    def heard(self, rank: int, patience_s: float = PATIENCE_S) -> tuple[Any, ...]:
        """The next that the rank tells: ("told", x), ("result", x, when), or (error's name, its text, when)."""
        assert self._pipes[rank].poll(patience_s), f"rank {rank} says nothing"
        try:
            return self._pipes[rank].recv()
        except EOFError:
            return ("dead",)

    def ending(self, rank: int, patience_s: float = PATIENCE_S) -> tuple[Any, ...]:
        """How it ended: what it told meanwhile is left out."""
        while (heard := self.heard(rank, patience_s))[0] == "told":
            pass
        return heard

    def exit_code(self, rank: int) -> int | None:
        self._processes[rank].join(PATIENCE_S)
        return self._processes[rank].exitcode

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            process.join(PATIENCE_S)
            process.close()
        for pipe in self._pipes:
            pipe.close()
