"""Host ranks as processes over one shared mapping: every rank reads and writes the others' slots directly."""

from __future__ import annotations

import contextlib
import ctypes
import json
import selectors
import subprocess
import sys
import time
from typing import IO, Any

import numpy as np

from ..errors import RankFailed, WaitTimeout
from .buffers import RankBuffers
from .executor import Array, Executor
from .launch import ChannelRecord, Work, buffer_table, connection_table
from .segment import Segment, lay_out_segment

#: How long a worker may take to start: an interpreter and numpy, on a busy machine.
_START_S = 60.0
#: How long after its own timeout a rank may take to say so.
_GRACE_S = 10.0
#: A worker imports from where this process does: a source tree in the current folder must not shadow the package.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from blinkcoll.runtime.worker import main; main()"


class ProcessExecutor(Executor):
    """Every rank in a process of its own; use as a context manager, or call :meth:`close`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._workers: list[subprocess.Popen[str]] = []
        self._layout = lay_out_segment(self.arenas, [self._region_bytes(rank) for rank in range(self.program.nranks)])
        self._segment = Segment(self._layout.nbytes)
        try:
            self._store_tables()
            for _ in range(self.program.nranks):
                self._workers.append(self._start())
            self._await_all("ready", _START_S, "start")
        except BaseException:
            self.close()
            raise

    def _store_tables(self) -> None:
        connections = connection_table(self.program, self.arenas, self._layout.arenas)
        for base, arena in zip(self._layout.arenas, self.arenas, strict=True):
            self._segment.store(base + arena.program, self.code)
            self._segment.store(base + arena.connections, connections)

    def _start(self) -> subprocess.Popen[str]:
        fd = self._segment.fd
        numbers = (fd, self._layout.nbytes, self.program.nranks, len(self.program.connections))
        command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), *map(str, numbers)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(fd,))

    def _run(self, inputs: list[Array], work: Work, buffers: list[RankBuffers]) -> list[Array]:
        self._place(inputs, work, buffers)
        for rank, worker in enumerate(self._workers):
            self._tell(worker, bytes(self._record(work, rank, self._layout.arenas[rank])).hex())
        self._await_all("ran", self.timeout_s + _GRACE_S, f"run {self.program.collective}")
        places = [b.output_at(r, work.elem_size) for b, r in zip(buffers, self._layout.buffers, strict=True)]
        return [self._segment.view(at, b.output * work.elem_size).view(self.dtype).copy() for at, b in zip(places, buffers, strict=True)]

    def _place(self, inputs: list[Array], work: Work, buffers: list[RankBuffers]) -> None:
        """Inputs into the segment, on zeros."""
        regions = self._layout.buffers
        table = buffer_table([b.addresses(r, work.elem_size) for b, r in zip(buffers, regions, strict=True)])
        for rank, array in enumerate(inputs):
            self._segment.store(self._layout.arenas[rank] + self.arenas[rank].buffers, table)
            for start, nbytes in zip(regions[rank], self._region_bytes(rank), strict=True):
                self._segment.view(start, nbytes)[:] = 0
            self._segment.view(buffers[rank].input_at(regions[rank], work.elem_size), array.nbytes)[:] = array.view(np.uint8)

    @staticmethod
    def _tell(worker: subprocess.Popen[str], line: str) -> None:
        assert worker.stdin is not None
        # Broken where the worker has died: the end of its answers will say so, with its exit code.
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(line + "\n")
            worker.stdin.flush()

    def _await_all(self, expected: str, seconds: float, doing: str) -> None:
        """One line from every worker, within ``seconds``; a rank that dies makes the others leave at once."""
        silent = dict(enumerate(self._workers))
        stopped: list[int] = []
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for rank, worker in silent.items():
                assert worker.stdout is not None
                selector.register(worker.stdout, selectors.EVENT_READ, rank)
            while silent:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    self._abort()
                    raise WaitTimeout(f"ranks {', '.join(map(str, silent))} did not {doing} within {seconds:g} s")
                for key, _ in ready:
                    answer = _line(key.fileobj)
                    if not answer:
                        self._abort()
                        raise RankFailed(f"rank {key.data} died while it was to {doing} (exit code {self._workers[key.data].wait()})")
                    selector.unregister(key.fileobj)
                    del silent[key.data]
                    if answer != expected:
                        stopped.append(key.data)
        if stopped:
            raise self._timed_out([self._records(rank) for rank in range(self.program.nranks)])

    def _abort(self) -> None:
        for base, arena in zip(self._layout.arenas, self.arenas, strict=True):
            self._segment.store(base + arena.abort, (1).to_bytes(4, "little"))

    def _records(self, rank: int) -> bytes:
        nbytes = len(self.program.ranks[rank]) * ctypes.sizeof(ChannelRecord)
        return self._segment.load(self._layout.arenas[rank] + self.arenas[rank].records, nbytes)

    def close(self) -> None:
        """End the workers and unmap the segment."""
        for worker in self._workers:
            # Closing flushes; the pipe of a worker that has died is broken.
            with contextlib.suppress(OSError):
                if worker.stdin is not None:
                    worker.stdin.close()
        for worker in self._workers:
            try:
                worker.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()
        self._workers = []
        if self._segment is not None:
            self._segment.close()
            self._segment = None  # type: ignore[assignment]


def _line(stream: Any) -> str:
    text: IO[str] = stream
    return text.readline().strip()
