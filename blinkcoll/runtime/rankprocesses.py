"""A process a rank, on this host, for a job that is told to all of them: started, watched, and ended with whoever started them.

Each process has a socket pair to its parent: the job comes down it, lines of JSON go up. Rank 0's address goes through the
parent, so there is no folder to clean up. A process dies with its parent (``PR_SET_PDEATHSIG``); one that dies, or says nothing
for a while though it should say every few seconds that it lives, ends the job.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from ..errors import BlinkcollError, ExecutionError, RankFailed, WaitTimeout

#: How long a process may take to start (an interpreter and numpy on a busy machine), how often it says that it lives, and for
#: how long it may say nothing.
_START_S, _BEAT_S, _SILENCE_S = 60.0, 5.0, 60.0
#: How long to listen on for the cause after the first failure: a rank's death makes others fail, too.
_AFTERMATH_S = 0.5
#: Errors that follow from another rank's.
_CONSEQUENCES = ("RankFailed", "Aborted")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: A process imports from where its parent does: a source tree in the current folder must not shadow the package.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from blinkcoll.runtime.rankprocesses import serve; serve()"

Message = dict[str, Any]


class RankProcesses:
    """``nranks`` processes that run a job together; use as a context manager.

    Parameters
    ----------
    nranks
        How many.
    body
        ``"module:function"``, called in each process as ``function(rank, nranks, store, job, say)``: ``store`` is one for
        :class:`blinkcoll.Communicator`, ``say`` sends a message (a dict) to the parent.
    job
        What all are told; anything that JSON holds.
    environment
        Variables that they get beside this process's own.
    """

    def __init__(self, nranks: int, body: str, job: Any, environment: Mapping[str, str] | None = None) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lines: list[socket.SocketIO] = []
        self._sockets: list[socket.socket] = []
        head = json.dumps({"body": body, "job": job, "nranks": nranks, "parent": os.getpid()}).encode() + b"\n"
        try:
            for rank in range(nranks):
                self._start(rank, dict(os.environ) | dict(environment or {}))
                with contextlib.suppress(OSError):  # who has died already is noticed in messages()
                    self._sockets[rank].sendall(head)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes' numbers."""
        return [process.pid for process in self._processes]

    def messages(self) -> Iterator[tuple[int, Message]]:
        """What ranks say, as it comes, until all have ended well.

        Raises
        ------
        RankFailed
            Where a process died, or fell silent.
        ExecutionError
            Where a rank's job failed: its error.
        """
        with selectors.DefaultSelector() as selector:
            heard = {}
            for rank, lines in enumerate(self._lines):
                selector.register(lines, selectors.EVENT_READ, rank)
                heard[rank] = time.monotonic() + _START_S - _SILENCE_S
            while heard:
                quiet = min(heard, key=lambda rank: heard[rank])
                ready = selector.select(max(0.0, heard[quiet] + _SILENCE_S - time.monotonic()))
                if not ready:
                    raise RankFailed(f"rank {quiet} has said nothing for {_SILENCE_S:g} s: is its process ({self.pids[quiet]}) stopped?")
                for key, _ in ready:
                    rank = key.data
                    message = self._hear(rank)
                    heard[rank] = time.monotonic()
                    if message is None or "error" in message:
                        raise self._cause(selector, rank, message)
                    if "address" in message:
                        self._pass_on(message)
                    elif "end" in message:
                        selector.unregister(key.fileobj)
                        del heard[rank]
                    elif "alive" not in message:
                        yield rank, message

    def close(self) -> None:
        """End all processes that still run."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
        for lines, mine in zip(self._lines, self._sockets, strict=False):
            lines.close()
            mine.close()

    def __enter__(self) -> RankProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, rank: int, environment: dict[str, str]) -> None:
        mine, theirs = socket.socketpair()
        mine.settimeout(_SILENCE_S)
        self._sockets.append(mine)
        # Unbuffered: what a buffer held already would not wake the selector. Lines are short, and each is sent at once.
        self._lines.append(mine.makefile("rb", buffering=0))
        with theirs:
            command = [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(rank), str(theirs.fileno())]
            # A session of its own: an interrupt at the terminal is for the parent, which ends the others.
            self._processes.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True))

    def _hear(self, rank: int) -> Message | None:
        """The next message; None where the process has gone."""
        try:
            line = self._lines[rank].readline()
        except OSError:
            line = b""
        return dict(json.loads(line)) if line.endswith(b"\n") else None

    def _pass_on(self, message: Message) -> None:
        for peer in self._sockets[1:]:
            with contextlib.suppress(OSError):  # who has died is noticed where it is listened to
                peer.sendall(json.dumps(message).encode() + b"\n")

    def _cause(self, selector: selectors.BaseSelector, rank: int, message: Message | None) -> BlinkcollError:
        """Of all that goes wrong within a moment: a death before an error, an error before one that follows from another's end."""
        failures: dict[int, Message | None] = {rank: message}
        selector.unregister(self._lines[rank])
        until = time.monotonic() + _AFTERMATH_S
        while selector.get_map() and (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                said = self._hear(key.data)
                if said is None or said.keys() & {"error", "end"}:
                    selector.unregister(key.fileobj)
                    if said is None or "error" in said:
                        failures[key.data] = said
        dead = [r for r, said in failures.items() if said is None]
        if dead:
            return RankFailed(f"rank {dead[0]} died: {self._ending(dead[0])}")
        told = sorted((said["kind"] in _CONSEQUENCES, r, str(said["error"])) for r, said in failures.items() if said is not None)
        _, first, text = told[0]
        return ExecutionError(text if text.startswith("rank ") else f"rank {first}: {text}")

    def _ending(self, rank: int) -> str:
        try:
            code = self._processes[rank].wait(_AFTERMATH_S)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"


# -- in a rank's process --------------------------------------------------------------------------------------------


class _ParentStore:
    """A store by which rank 0's address goes through the parent; one communicator can meet on it."""

    def __init__(self, say: Callable[[Message], None], lines: IO[bytes]) -> None:
        self._say, self._lines = say, lines
        self._known: bytes | None = None

    def set(self, _: str, value: str) -> None:
        """Rank 0: to all others."""
        self._say({"address": value})

    def get(self, _: str) -> bytes:
        """Another: what rank 0 has set, once it has."""
        if self._known is None:
            line = self._lines.readline()
            if not line:
                raise WaitTimeout("the process that started this rank is gone")
            self._known = str(json.loads(line)["address"]).encode()
        return self._known


def serve() -> None:
    """A rank's process: hear the job, do it, say how it ended."""
    rank, fd = int(sys.argv[1]), int(sys.argv[2])
    channel = socket.socket(fileno=fd)
    lines = channel.makefile("rb")
    head = json.loads(lines.readline())
    _die_with(head["parent"])
    lock, ended = threading.Lock(), threading.Event()

    def say(message: Message) -> None:
        with lock:
            channel.sendall(json.dumps(message).encode() + b"\n")

    def beat() -> None:
        while not ended.wait(_BEAT_S):
            say({"alive": True})

    threading.Thread(target=beat, daemon=True).start()
    module, function = head["body"].split(":")
    try:
        getattr(importlib.import_module(module), function)(rank, head["nranks"], _ParentStore(say, lines), head["job"], say)
    except Exception as error:
        text = str(error) if isinstance(error, BlinkcollError) else f"{type(error).__name__}: {error}"
        say({"error": text, "kind": type(error).__name__})
        sys.exit(1)
    ended.set()
    say({"end": True})


def _die_with(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died before
        sys.exit(1)
