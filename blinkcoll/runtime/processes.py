"""Host ranks as processes over one shared mapping: every rank reads and writes the others' slots directly."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from ..errors import ExecutionError, RankFailed, WaitTimeout
from .buffers import RankBuffers
from .executor import Array, Executor
from .launch import (
    Arena,
    ChannelRecord,
    HostArena,
    Work,
    buffer_table,
    connection_table,
    counter_lines,
    explain_records,
)
from .segment import Segment, lay_out_segment

#: How long a worker may take to start: an interpreter and numpy, on a busy machine.
_START_S = 60.0
#: How long after its own timeout a rank may take to say so, and how long the workers together have to end.
_GRACE_S = 10.0
#: A worker imports from where this process does: a source tree in the current folder must not shadow the package.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from blinkcoll.runtime.worker import main; main()"


@dataclass
class _Worker:
    """A rank's process, and the pipe that it answers on."""

    process: subprocess.Popen[str]
    answers: IO[str]

    def tell(self, line: str) -> None:
        # Broken where the worker has died: the end of its answers will say so, with its exit code.
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()


class ProcessExecutor(Executor):
    """Every rank in a process of its own; use as a context manager, or call :meth:`close`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._layout = lay_out_segment(self.arenas, [self._region_bytes(rank) for rank in range(self.program.nexecutors)], self.host_arenas)
        self._segment = Segment(self._layout.nbytes)
        self._workers: list[_Worker] = []
        # Also where nobody calls close: neither processes nor descriptors outlive the executor.
        self._end = weakref.finalize(self, _shut_down, self._workers, self._segment)
        try:
            self._store_tables()
            for _ in range(self.program.nexecutors):
                self._workers.append(self._start())
            self._await_all("ready", _START_S, "start")
        except BaseException:
            self.close()
            raise

    def _store_tables(self) -> None:
        connections = connection_table(self.program, self.arenas, self._layout.arenas, self.host_arenas, self._layout.host)
        for base, arena in zip(self._layout.arenas, self.arenas, strict=True):
            self._segment.store(base + arena.program, self.code)
            self._segment.store(base + arena.connections, connections)
            for at, line in counter_lines(arena):
                self._segment.store(base + at, line)

    def _start(self) -> _Worker:
        mine, theirs = os.pipe()
        try:
            numbers = (self._segment.fd, self._layout.nbytes, self.program.nexecutors, len(self.program.connections), theirs)
            command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), *map(str, numbers)]
            # A session of its own: an interrupt at the terminal is for this process, which tells the workers to leave.
            process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, pass_fds=(self._segment.fd, theirs), start_new_session=True)
        except BaseException:
            os.close(mine)
            raise
        finally:
            os.close(theirs)
        return _Worker(process, os.fdopen(mine, encoding="ascii"))

    def _run(self, inputs: list[Array], work: Work, buffers: list[RankBuffers]) -> list[Array]:
        self._place(inputs, work, buffers)
        for rank, worker in enumerate(self._workers):
            worker.tell(bytes(self._record(work, rank, self._layout.arenas[rank])).hex())
        try:
            self._await_all("ran", self.timeout_s + _GRACE_S, f"run {self.program.collective}")
        except BaseException:
            self._abort()
            raise
        places = [b.output_at(r, work.elem_size) for b, r in zip(buffers, self._layout.buffers, strict=True)]
        return [self._segment.view(at, b.output * work.elem_size).view(self.dtype).copy() for at, b in zip(places, buffers, strict=True)]

    def _place(self, inputs: list[Array], work: Work, buffers: list[RankBuffers]) -> None:
        """Inputs into the segment, on zeros."""
        regions = self._layout.buffers
        table = buffer_table([b.addresses(r, work.elem_size) for b, r in zip(buffers, regions, strict=True)])
        for rank, array in enumerate(inputs):
            self._segment.store(self._layout.arenas[rank] + self.arenas[rank].buffers, table)
            if work.shards is not None:
                self._segment.store(self._layout.arenas[rank] + self.arenas[rank].shards, work.shards.table())
            for start, nbytes in zip(regions[rank], self._region_bytes(rank), strict=True):
                self._segment.view(start, nbytes)[:] = 0
            self._segment.view(buffers[rank].input_at(regions[rank], work.elem_size), array.nbytes)[:] = array.view(np.uint8)

    def _await_all(self, expected: str, seconds: float, doing: str) -> None:
        """An answer from every worker; a rank that dies makes the others leave at once.

        ``seconds`` is how long there may be neither an answer nor any progress of the ranks' counters.
        """
        silent = dict(enumerate(self._workers))
        stopped: list[int] = []
        mark, deadline = self._progress_mark(), time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for rank, worker in silent.items():
                selector.register(worker.answers, selectors.EVENT_READ, rank)
            while silent:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    seen = self._progress_mark()
                    if seen == mark:
                        raise self._silence(sorted(silent), doing, seconds)
                    mark, deadline = seen, time.monotonic() + seconds
                for key, _ in ready:
                    answer = silent.pop(key.data).answers.readline().strip()
                    selector.unregister(key.fileobj)
                    if not answer:
                        raise self._death(key.data, doing)
                    if answer != expected:
                        stopped.append(key.data)
                    deadline = time.monotonic() + seconds
        if stopped:
            raise self._timed_out(self._all_records())

    def _silence(self, ranks: list[int], doing: str, seconds: float) -> WaitTimeout:
        names = ", ".join(map(str, ranks))
        told = explain_records(self.program, self._all_records(), self.timeout_s)
        return WaitTimeout(f"ranks {names} did not {doing}: no answer and no progress for {seconds:g} s\n  {told}")

    def _death(self, rank: int, doing: str) -> ExecutionError:
        try:
            code = str(self._workers[rank].process.wait(_GRACE_S))
        except subprocess.TimeoutExpired:
            code = "none yet: it closed its answers and lives on"
        return RankFailed(f"{self.program.executor_label(rank)} died while it was to {doing} (exit code {code})")

    def _progress_mark(self) -> bytes:
        """All counters of all ranks: they change while chunks move."""
        placed: list[tuple[int, Arena | HostArena]] = [
            *zip(self._layout.arenas, self.arenas, strict=True), *zip(self._layout.host, self.host_arenas, strict=True)
        ]  # fmt: skip
        words = [base + at for base, arena in placed for at in (*arena.heads.values(), *arena.tails.values())]
        return b"".join(self._segment.load(at, 8) for at in words)

    def _abort(self) -> None:
        for base, arena in zip(self._layout.arenas, self.arenas, strict=True):
            self._segment.store(base + arena.abort, (1).to_bytes(4, "little"))

    def _all_records(self) -> list[bytes]:
        sizes = [len(channels) * ctypes.sizeof(ChannelRecord) for channels in self.program.ranks]
        return [self._segment.load(self._layout.arenas[r] + self.arenas[r].records, size) for r, size in enumerate(sizes)]

    def _release(self) -> None:
        self._end()


def _shut_down(workers: list[_Worker], segment: Segment) -> None:
    """End the workers, all within one grace period, and unmap the segment."""
    deadline = time.monotonic() + _GRACE_S
    for worker in workers:
        worker.tell("end")  # closing the pipe is not enough where a fork of this process holds it too
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        with contextlib.suppress(OSError):  # closing flushes; the pipe of a worker that has died is broken
            if worker.process.stdin is not None:
                worker.process.stdin.close()
        worker.answers.close()
    workers.clear()
    segment.close()
