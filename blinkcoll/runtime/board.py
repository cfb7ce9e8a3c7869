"""What every rank shows the others: its calls, what it waits for, why it failed. Read where something is wrong.

The structs mirror ``csrc/host/board.h`` byte for byte, which also says who writes what, and in which order.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from .. import _core
from ..errors import Aborted, BlinkcollError, CallMismatch, ExecutionError, RankFailed, WaitTimeout
from .callword import describe
from .segment import Segment

PAGE_BYTES, WORDS, VERSION = 4096, 64, 1
MAGIC = b"bc-board"
#: The name of the memory file, as /proc shows it: how ``blinkcoll status`` finds boards.
FILE_NAME = "blinkcoll-board"
HERE, DIED, LEFT, CLOSED = 0, 1, 2, 3
#: Kinds of failure.
MISMATCH, GONE, ABORTED, TIMED_OUT, OTHER = 1, 2, 3, 4, 5
_ENDS = {DIED: "died", LEFT: "left", CLOSED: "closed the communicator"}
_ERRORS: dict[int, type[ExecutionError]] = {MISMATCH: CallMismatch, GONE: RankFailed, ABORTED: Aborted, TIMED_OUT: WaitTimeout}
_FAILED, _RANK_GONE, _DIFFERS, _STOPPED = 1, 2, 3, 4  # enum Verdict


class WaitNote(ctypes.Structure):
    """``struct WaitNote``."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("version", "channel", "step", "peer")),
        *((name, ctypes.c_uint64) for name in ("call", "iteration", "target", "seen", "since_ns")),
        ("slot", ctypes.c_uint32), ("pad", ctypes.c_uint32),
    ]  # fmt: skip


class Board(ctypes.Structure):
    """``struct Board``."""

    _fields_ = [
        ("address", ctypes.c_char * 256), ("started", ctypes.c_uint64), ("pid", ctypes.c_uint32), ("stopped", ctypes.c_uint32),
        ("process", ctypes.c_char * 48), ("_0", ctypes.c_char * 64),
        ("begun", ctypes.c_uint64), ("ended", ctypes.c_uint64), ("_1", ctypes.c_char * 112),
        ("words", ctypes.c_uint64 * WORDS),
        ("waits", WaitNote), ("_2", ctypes.c_char * 64), ("pair_waits", WaitNote), ("_3", ctypes.c_char * 64),
        ("fate", ctypes.c_uint32), ("failed", ctypes.c_uint32), ("failed_call", ctypes.c_uint64), ("why", ctypes.c_char * 2040),
        ("_4", ctypes.c_char * 120),
    ]  # fmt: skip


class BoardHeader(ctypes.Structure):
    """``struct BoardHeader``."""

    _fields_ = [
        ("magic", ctypes.c_char * 8), ("version", ctypes.c_uint32), ("nranks", ctypes.c_uint32), ("name", ctypes.c_char * 240),
        ("alarm", ctypes.c_uint32), ("first", ctypes.c_uint32), ("_0", ctypes.c_char * 120),
    ]  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """What a rank says of itself when it joins."""

    pid: int
    started: int
    process: str
    address: str


class Boards:
    """All ranks' boards, as this rank uses them."""

    def __init__(self, segment: Segment, rank: int, world_size: int) -> None:
        self.segment, self.rank, self.world_size = segment, rank, world_size
        self.core = _core.Boards(segment.base, rank, world_size)
        self._boards = [Board.from_address(segment.base + (r + 1) * PAGE_BYTES) for r in range(world_size)]
        self._header = BoardHeader.from_address(segment.base)
        #: While the communicator is set up, nobody may be missing.
        self.joining = True

    @staticmethod
    def nbytes(world_size: int) -> int:
        """Of all boards."""
        return (world_size + 1) * PAGE_BYTES

    def introduce(self, identity: Identity, name: str) -> None:
        """Fill in this rank's board (rank 0: and the group's page), before anybody looks."""
        if self.rank == 0:
            self._header.version, self._header.nranks, self._header.name = VERSION, self.world_size, name.encode()[:239]
            self._header.magic = MAGIC
        mine = self._boards[self.rank]
        mine.pid, mine.started, mine.process, mine.address = identity.pid, identity.started, identity.process.encode(), identity.address.encode()

    def forget(self) -> None:
        """The memory is about to go: touch it no more."""
        self._boards.clear()

    def address(self, rank: int) -> str:
        """Where that rank can be met."""
        return str(self._boards[rank].address.decode())

    def gone(self) -> set[int]:
        """Ranks that have died, left or closed the communicator."""
        return {rank for rank, board in enumerate(self._boards) if board.fate != HERE}

    def fate(self, rank: int) -> int:
        """HERE, DIED, LEFT or CLOSED."""
        return int(self._boards[rank].fate)

    def ended(self) -> int:
        """How many calls this rank has ended."""
        return int(self._boards[self.rank].ended)

    # -- failing ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise where the call under way, or about to be set up, cannot succeed."""
        failure = self.failure()
        if failure is None and self.joining and self.gone():
            rank = min(self.gone())
            failure = self.fail(GONE, 0, f"{self.named(rank)} {_ENDS[self.fate(rank)]} while it was set up")
        if failure is not None:
            raise failure

    def wait_for_failure(self, timeout_s: float) -> None:
        """Until there is one, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and not (self.core.must_leave() or self.core.anyone_differs()):
            time.sleep(0.005)

    def failure(self) -> BlinkcollError | None:
        """Why the call under way cannot succeed, told to all; None where no rank's board says so."""
        if not (self.core.must_leave() or self.core.anyone_differs()):
            return None
        verdict, culprit, number = self.core.verdict, self.core.culprit, self.core.number
        if verdict == _STOPPED:
            return ExecutionError(f"this communicator was closed during call {number}: {self._called(self.rank, number)}")
        if verdict == _RANK_GONE:
            closed = self.fate(culprit) == CLOSED
            return self.fail(MISMATCH if closed else GONE, number, self._gone(culprit, number))
        if verdict == _DIFFERS:
            return self.fail(MISMATCH, self.core.where, self._difference(self.core.where))
        return self._error_of(culprit)

    def pair_failure(self, peer: int, message: str) -> BlinkcollError | None:
        """Why a send or receive cannot succeed; None where no board says so."""
        if not self.core.alarmed:
            return None
        if self._boards[self.rank].stopped:
            return ExecutionError(f"this communicator was closed: {message}")
        first = self._header.first - 1
        if first >= 0:
            return self._error_of(first)
        if self.fate(peer) == HERE:
            return None
        return self.fail(GONE, self.ended() + 1, f"{message}: {self.named(peer)} {_ENDS[self.fate(peer)]} {self.whereabouts(peer)}")

    def fail(self, kind: int, number: int, text: str) -> ExecutionError:
        """This rank's failure from call ``number`` on, told to all; as an error with the reason of whoever failed first."""
        encoded = text.encode()[:2000]
        self.core.fail(kind, number, encoded)
        first = self._header.first - 1
        if first == self.rank and self._boards[first].why == encoded:
            return _ERRORS.get(kind, ExecutionError)(text)  # all of it, here
        return self._error_of(first if self._boards[first].failed_call <= number else self.rank)

    def fail_to_set_up(self, error: BaseException) -> None:
        """Tell all why there will be no communicator."""
        self.fail(ABORTED, 0, f"rank {self.rank} could not set the communicator up: {type(error).__name__}: {error}")

    def _error_of(self, rank: int) -> ExecutionError:
        board = self._boards[rank]
        return _ERRORS.get(board.failed, ExecutionError)(board.why.decode(errors="replace"))

    # -- in words ---------------------------------------------------------------------------------------------------

    def named(self, rank: int) -> str:
        """``rank 2 (pid 123)``."""
        return f"rank {rank} (pid {self._boards[rank].pid})"

    def whereabouts(self, rank: int) -> str:
        """``during call 17: barrier()``, ``after call 16: barrier()``, ``before its first call``."""
        board = self._boards[rank]
        begun, ended = board.begun, board.ended
        if begun == 0:
            return "before its first call"
        return f"{'during' if ended < begun else 'after'} call {begun}: {self._called(rank, begun)}"

    def missing(self) -> list[str]:
        """Who has not come to the call under way, and what has become of them."""
        number, told = self.core.number, []
        for rank, board in enumerate(self._boards):
            if rank != self.rank and board.begun < number:
                state = process_state(board.pid, board.started)
                told.append(f"{self.named(rank)}{f', {state},' if state else ''} never came; it was last seen {self.whereabouts(rank)}")
        return told

    def _called(self, rank: int, number: int) -> str:
        return describe(self.core.word(rank, number))

    def _gone(self, rank: int, number: int) -> str:
        fate, where = self.fate(rank), self.whereabouts(rank)
        if fate == CLOSED:
            return f"{self.named(rank)} closed the communicator {where}; rank {self.rank} waits for it in call {number}: {self._called(self.rank, number)}"
        if fate == LEFT:
            return f"{self.named(rank)} left {where}: its process lives, but has begun another program or closed its descriptors"
        return f"{self.named(rank)} died {where}"

    def _difference(self, number: int) -> str:
        calls: dict[str, list[int]] = {}
        for rank in range(self.world_size):
            word = self.core.word(rank, number)
            if word:
                calls.setdefault(describe(word), []).append(rank)
        return f"call {number} is not the same on all ranks: " + ", ".join(f"{names(ranks)} {call}" for call, ranks in calls.items())


def names(ranks: Iterable[int]) -> str:
    """``rank 1``, ``ranks 1, 2``."""
    listed = list(ranks)
    return ("rank " if len(listed) == 1 else "ranks ") + ", ".join(map(str, listed))


def process_state(pid: int, started: int) -> str:
    """What the system says of a process: running, sleeping, stopped ...; empty where it cannot be seen from here, or is another one."""
    try:
        fields = _stat(pid)
    except OSError:
        return ""
    if int(fields[19]) != started:
        return ""
    return {"R": "running", "S": "sleeping", "D": "in a system call", "T": "stopped", "t": "stopped by a debugger", "Z": "ended"}.get(fields[0], fields[0])


def process_start(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 where /proc does not say."""
    try:
        return int(_stat(pid)[19])
    except OSError:
        return 0


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (the state) on: proc(5). A program's name may hold blanks and brackets."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def own_identity(process: str, address: str) -> Identity:
    """This process's."""
    return Identity(os.getpid(), process_start(os.getpid()), process, address)


def wait_note(board: Board, kind: str) -> WaitNote | None:
    """What a rank waits for; None where it does not, or it changes too fast to be read."""
    for _ in range(20):
        note = WaitNote.from_buffer_copy(getattr(board, kind))
        if note.version % 2 == 0 and getattr(board, kind).version == note.version:
            return note if note.since_ns else None
        time.sleep(0.001)
    return None
