"""Send and receive between two ranks of a group: a connection for each ordered pair, beside the collectives' slots.

All pairs have the same program, so where a pair's part of the memory lies is a formula, and two ranks can begin without
asking anybody. A pair's pages are reserved when one of the two first uses it.
"""

from __future__ import annotations

from typing import Any

from .. import _core
from ..schedules import encode, lower_sendrecv, verify
from ..topology import host_topology
from .board import Boards
from .callword import call_base
from .hostprograms import BY_SIZE, LARGEST
from .launch import Arena, LaunchRecord, connection_table, counter_lines, lay_out
from .segment import Segment
from .waiting import Waiting

_CHUNK_BYTES, _SLOTS = 64 << 10, 4
_PAGE = 4096
_SENDER, _RECEIVER = 0, 1
_NONE, _WHOLE = 0, 2  # of contract.VIEWS


class Pairs:
    """The memory of all ordered pairs of a group, and this rank's ends of them."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.program = lower_sendrecv(host_topology(2), _SENDER, slots=_SLOTS)
        verify(self.program, repeated=True)
        self._code = encode(self.program)
        self._arenas: list[Arena] = [lay_out(self.program, self._code, role, _CHUNK_BYTES, headed=True) for role in (_SENDER, _RECEIVER)]
        self._role_at = [0, _up(self._arenas[_SENDER].nbytes)]
        self._pair_bytes = self._role_at[1] + _up(self._arenas[_RECEIVER].nbytes)
        self.nbytes = world_size * (world_size - 1) * self._pair_bytes
        self._segment: Segment | None = None
        self._at = 0
        self._boards: Boards | None = None
        self._waiting = Waiting(fenced=False, crowded=False)
        self._ends: dict[tuple[int, int], tuple[Any, int]] = {}

    def map(self, segment: Segment, at: int, boards: Boards, waiting: Waiting) -> None:
        """The memory that all ranks have mapped, from ``at`` on; where calls are shown, and how ranks wait."""
        self._segment, self._at, self._boards, self._waiting = segment, at, boards, waiting

    def calls(self) -> list[Any]:
        """The objects that run calls of the pairs that this rank has used."""
        return [calls for calls, _ in self._ends.values()]

    def end(self, src: int, dst: int) -> tuple[Any, int]:
        """This rank's end of the connection from ``src`` to ``dst``: the object to call, and its table.

        Raises
        ------
        ExecutionError
            Where there is no memory left for it.
        """
        if (src, dst) not in self._ends:
            self._ends[src, dst] = self._set_up(src, dst, _SENDER if self.rank == src else _RECEIVER)
        return self._ends[src, dst]

    def records(self, src: int, dst: int) -> list[bytes]:
        """The channel records of both ends."""
        assert self._segment is not None
        begin = self._begin(src, dst)
        return [self._segment.load(begin + at + a.records, a.progress - a.records) for at, a in zip(self._role_at, self._arenas, strict=True)]

    def _begin(self, src: int, dst: int) -> int:
        return self._at + (src * (self.world_size - 1) + dst - (dst > src)) * self._pair_bytes

    def _set_up(self, src: int, dst: int, role: int) -> tuple[Any, int]:
        assert self._segment is not None
        begin = self._begin(src, dst)
        self._segment.reserve(begin, self._pair_bytes)
        arena, at = self._arenas[role], begin + self._role_at[role]
        for offset, line in counter_lines(arena):
            # The counter itself may have been raised already: only what stands behind it is written.
            self._segment.store(at + offset + 8, line[8:])
        bases = [self._segment.base + begin + other for other in self._role_at]
        record = LaunchRecord(
            progress=bases[role] + arena.progress, records=bases[role] + arena.records, abort=bases[role] + arena.abort,
            doorbell=bases[role] + arena.doorbell, chunk_bytes=_CHUNK_BYTES, slot_bytes=_CHUNK_BYTES,
        )  # fmt: skip
        calls = _core.HostCalls(role, 2)
        assert self._boards is not None
        calls.set_boards(self._boards.core, dst if role == _SENDER else src, False)
        calls.set_waiting(self._waiting.fenced, self._waiting.crowded)
        number = calls.add_program(bytes(record), self._code, connection_table(self.program, self._arenas, bases), False)
        views = (_WHOLE, _NONE) if role == _SENDER else (_NONE, _WHOLE)
        return calls, calls.add_table(*views, [(LARGEST, number, False, BY_SIZE, False)], call_base("sendrecv", None))


def _up(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE
