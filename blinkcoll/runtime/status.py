"""What the ranks of running jobs do, read from their boards by somebody else.

Every process of a communicator keeps the descriptor of its boards open. A memory file has a name that /proc shows
(``/memfd:blinkcoll-board``), and a process of the same user may open it by way of ``/proc/PID/fd``. Nothing is asked of
the ranks: they may hang, or be stopped.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ExecutionError
from .board import (
    CLOSED,
    DIED,
    FILE_NAME,
    HERE,
    LEFT,
    MAGIC,
    PAGE_BYTES,
    VERSION,
    WORDS,
    Board,
    BoardHeader,
    WaitNote,
    process_state,
    wait_note,
)
from .callword import describe

_TARGET = f"/memfd:{FILE_NAME}"
_FATES = {HERE: "", DIED: "died", LEFT: "left", CLOSED: "closed"}


@dataclass(frozen=True)
class Wait:
    """What a rank waits for, and since when (seconds that have passed)."""

    peer: int
    what: str
    channel: int
    step: int
    iteration: int
    target: int
    seen: int
    since_s: float


@dataclass(frozen=True)
class RankStatus:
    """One rank of a communicator. ``process``: what the system says of it; empty where it is not to be seen from here."""

    rank: int
    pid: int
    process: str
    fate: str
    calls_begun: int
    calls_ended: int
    call: str
    wait: Wait | None
    message_wait: Wait | None
    failure: str


@dataclass(frozen=True)
class CommunicatorStatus:
    """A communicator, as its boards show it."""

    name: str
    world_size: int
    failure: str
    ranks: list[RankStatus] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def status_of(pids: list[int] | None) -> list[CommunicatorStatus]:
    """The communicators of these processes; of all that this user may look into where None.

    Raises
    ------
    ExecutionError
        Where one of ``pids`` is no process, or may not be looked into.
    """
    found: dict[tuple[int, int], str] = {}
    for pid in _all_pids() if pids is None else pids:
        try:
            for path in _boards_of(pid):
                about = os.stat(path)
                found.setdefault((about.st_dev, about.st_ino), path)
        except OSError as error:
            if pids is not None:
                raise ExecutionError(f"process {pid}: {error.strerror}; a process of the same user is needed, and its number in this namespace") from None
    told = [status for path in found.values() if (status := _read(path)) is not None]
    return sorted(told, key=lambda status: (status.name, [rank.pid for rank in status.ranks]))


def _all_pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _boards_of(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        try:
            if os.readlink(path).startswith(_TARGET):
                yield path
        except FileNotFoundError:  # closed meanwhile
            continue


def _read(path: str) -> CommunicatorStatus | None:
    """None where it is gone, or not (yet) filled in."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        page = os.pread(fd, PAGE_BYTES, 0)
        header = BoardHeader.from_buffer_copy(page) if len(page) == PAGE_BYTES else BoardHeader()
        if header.magic != MAGIC:
            return None
        if header.version != VERSION:
            raise ExecutionError(f"{path}: boards of version {header.version}, this blinkcoll reads version {VERSION}")
        nbytes = (header.nranks + 1) * PAGE_BYTES  # more may lie behind the boards
        if nbytes > os.fstat(fd).st_size:
            return None
        data = os.pread(fd, nbytes, 0)
    except OSError:
        return None
    finally:
        os.close(fd)
    boards = [Board.from_buffer_copy(data, (rank + 1) * PAGE_BYTES) for rank in range(header.nranks)]
    first = boards[header.first - 1].why.decode(errors="replace") if header.first else ""
    return CommunicatorStatus(header.name.decode(errors="replace"), header.nranks, first, [_rank(rank, board) for rank, board in enumerate(boards)])


def _rank(rank: int, board: Board) -> RankStatus:
    process = process_state(board.pid, board.started) if board.pid else "has not come"
    call = describe(board.words[board.begun % WORDS]) if board.begun else ""
    why = board.why.decode(errors="replace") if board.failed else ""
    waits, messages = (_wait(wait_note(board, kind)) for kind in ("waits", "pair_waits"))
    in_call = board.begun > board.ended
    return RankStatus(rank, board.pid, process, _FATES.get(board.fate, "?"), board.begun, board.ended, call, waits if in_call else None, messages, why)


def _wait(note: WaitNote | None) -> Wait | None:
    if note is None:
        return None
    what = "a free slot" if note.slot else "a chunk"
    since_s = max(0.0, time.clock_gettime(time.CLOCK_MONOTONIC) - note.since_ns / 1e9)
    return Wait(note.peer, what, note.channel, note.step, note.iteration, note.target, note.seen, round(since_s, 3))


assert ctypes.sizeof(Board) <= PAGE_BYTES and ctypes.sizeof(BoardHeader) <= PAGE_BYTES
