"""Ranks of a communicator for tests: as threads of this process, or as processes."""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blinkcoll as bc

JOIN_S = 120


def as_threads(world_size: int, folder: Path, body: Callable[[Any], Any], **options: Any) -> list[Any]:
    """``body(communicator)`` on every rank at once; their results. The first error is raised here."""
    results: list[Any] = [None] * world_size
    errors: list[tuple[int, BaseException]] = []

    def run(rank: int) -> None:
        try:
            with bc.Communicator(rank, world_size, bc.FileStore(folder / "store"), **{"timeout_s": 30, **options}) as comm:
                results[rank] = body(comm)
        except BaseException as error:
            errors.append((rank, error))

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}") for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
        assert not thread.is_alive(), f"{thread.name} is still running"
    if errors:
        raise errors[0][1]
    return results


def as_processes(world_size: int, folder: Path, body: Callable[[Any], Any], **options: Any) -> list[Any]:
    """The same with a process a rank; what cannot be pickled cannot be a result."""
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []

    def run(rank: int, pipe: Any) -> None:
        try:
            with bc.Communicator(rank, world_size, bc.FileStore(folder / "store"), **{"timeout_s": 30, **options}) as comm:
                pipe.send(("result", body(comm)))
        except BaseException:
            pipe.send(("error", traceback.format_exc()))

    for rank in range(world_size):
        mine, theirs = context.Pipe()
        process = context.Process(target=run, args=(rank, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    results = []
    for rank, pipe in enumerate(pipes):
        assert pipe.poll(JOIN_S), f"rank {rank} is still running"
        kind, value = pipe.recv()
        assert kind == "result", f"rank {rank}: {value}"
        results.append(value)
    for process in processes:
        process.join(JOIN_S)
        assert process.exitcode == 0
    return results
