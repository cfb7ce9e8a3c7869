"""A rank's place in a group of one host: memory that all ranks map, and the programs set up in it.

Rank 0 plans a collective when it is first called and sends the programs to the others with a memory file to map; they
verify the programs, compare hashes, and each reserves its own part of the memory, so that its pages are its own node's and
a host without memory left is an error, not a signal. What a set of programs needs:

- a *segment* of its own: each rank's counters, progress words, records, and the slots of programs for small calls;
- slots of programs for large calls lie in the group's *pool*, which all such programs use in turn.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from .. import _core
from ..errors import BlinkcollError, ExecutionError, RankFailed
from ..schedules import Program, encode, verify
from ..schedules.contract import VIEWS, view
from ..schedules.unequal import Counts
from ..topology import Topology
from .board import ABORTED, MISMATCH, TIMED_OUT
from .bootstrap import Group
from .callword import call_base
from .hostprograms import HostProgram, agreement_program, memories_of, programs_for
from .launch import (
    LINE_BYTES,
    OTHER_CALL,
    UNREACHABLE,
    Arena,
    HostArena,
    LaunchRecord,
    channel_records,
    connection_table,
    counter_lines,
    explain_records,
    lay_out,
    lay_out_host,
)
from .neighbours import Neighbours
from .pairs import Pairs
from .reach import processes_within_reach
from .segment import Segment
from .shards import Shards, shards_of
from .waiting import agree_on_waiting

_PAGE = 4096
#: Pools of up to this size are mapped whole when they are first used; in larger ones, those of some 24 ranks and more, a rank uses a small part.
_MOST_POPULATED = 128 << 20
#: How long the watching thread may take to see that a process has ended whose memory is gone.
_MOMENT_S = 1.0
#: What is said of a program beside itself.
_USE = tuple(field.name for field in fields(HostProgram) if field.name != "program")
Call = tuple[str, int | None]
#: No collective: what ranks tell each other which of a call's programs to run by.
_AGREEMENT: Call = ("agreement", None)


@dataclass(frozen=True)
class _Placed:
    """A program with where each rank's part of it lies, as offsets into the segment and (where pooled) the pool."""

    part: HostProgram
    code: bytes
    arenas: list[Arena]
    at: list[int]
    slots_at: list[int] | None
    host: list[HostArena]
    host_at: list[int]


class HostGroup:
    """This rank's mappings and set-up programs.

    Parameters
    ----------
    group
        The ranks that have met.
    topology
        Rank i is its device i; the same on all ranks.
    timeout_s
        How long to wait for the others while a collective is set up.
    name
        The communicator's, for people.
    """

    def __init__(self, group: Group, topology: Topology, timeout_s: float, name: str) -> None:
        self.group, self.topology, self.timeout_s = group, topology, timeout_s
        self.rank, self.world_size = group.rank, group.world_size
        self.calls = _core.HostCalls(self.rank, self.world_size)
        self._tables: dict[Call, int] = {}
        self._kinds: dict[Call, Program] = {}  # one of each collective's programs
        self.apart: set[int] = set()  # tables whose programs need input and output apart
        self._programs: list[_Placed] = []  # by the number that calls give them
        self._segments: list[Segment] = []
        self._homes: list[Segment] = []  # of each program: the segment its records lie in
        self._pool: Segment | None = None
        self._pool_share = 0
        self.pairs = Pairs(self.rank, self.world_size)
        self.neighbours = Neighbours(self, group, name, self.pairs.nbytes, timeout_s)
        self.boards = self.neighbours.boards
        self.direct = False
        try:
            self.waiting = agree_on_waiting(group, timeout_s)
            self.calls.set_waiting(self.waiting.fenced, self.waiting.crowded)
            if self.world_size > 1:
                self.pairs.map(self.neighbours.segment, self.neighbours.board_bytes, self.boards, self.waiting)
                processes = processes_within_reach(group, timeout_s)
                if processes is not None:
                    self.direct = True
                    self.calls.set_processes(processes)
            self.prepare(("barrier", None))
        except BaseException as error:
            self.boards.fail_to_set_up(error)
            self.close()
            raise
        self.calls.set_barrier(0)
        compared = os.environ.get("BLINKCOLL_DEBUG", "") == "DETAIL"
        self.calls.set_boards(self.boards.core, -1, compared)
        self.boards.joining = False

    def table(self, call: Call) -> int:
        """The table of a collective; set up when it is first asked for, on all ranks together."""
        found = self._tables.get(call)
        if found is not None:
            return found
        self.calls.announce(_core.announced_word(call_base(*call)))
        self.boards.check()
        return self.prepare(call)

    def wake(self) -> None:
        """Wake this rank's sleeping calls: there is something to be looked at on the boards."""
        for calls in self._all_calls():
            calls.wake()

    # -- failing ----------------------------------------------------------------------------------------------------

    def fail(self, text: str) -> None:
        """End the calls under way on all ranks; ``text`` says who did it, and why. Where something failed before, that counts."""
        self.boards.fail(ABORTED, self.boards.ended() + 1, f"{text} ({self.boards.whereabouts(self.rank)})")
        self.wake()

    def failure(self, name: str, timeout_s: float) -> BlinkcollError:
        """Why the last call did not succeed, told to all."""
        number = self.calls.last
        program, records = self.program(number), self.records(number)
        own = channel_records(program, self.rank, records)
        if any(note.code in (UNREACHABLE, OTHER_CALL) for note in own):  # the boards will know more in a moment
            self.boards.wait_for_failure(_MOMENT_S)
        failure = self.boards.failure()
        if failure is None:
            kind = MISMATCH if any(note.code == OTHER_CALL for note in own) else TIMED_OUT
            told = "\n  ".join([*self.boards.missing(), explain_records(program, records, timeout_s)])
            what = f"rank {self.rank}: {name} (program {program.hash}, call {self.boards.core.number}) did not finish:\n  {told}"
            failure = self.boards.fail(kind, self.boards.core.number, what)
        self.wake()
        return failure

    def pair_failure(self, src: int, dst: int, timeout_s: float) -> BlinkcollError:
        """Why a message did not get through, told to all."""
        peer = dst if src == self.rank else src
        failure = self.boards.pair_failure(peer, f"a message from rank {src} to rank {dst}")
        if failure is None:
            program, records = self.pairs.program, self.pairs.records(src, dst)
            other = any(note.code == OTHER_CALL for role in range(2) for note in channel_records(program, role, records))
            told = explain_records(program, records, timeout_s)
            what = f"rank {self.rank}: a message from rank {src} to rank {dst} (here ranks 0 and 1) did not get through:\n  {told}"
            failure = self.boards.fail(MISMATCH if other else TIMED_OUT, self.boards.ended() + 1, what)
        self.wake()
        return failure

    def stop(self) -> None:
        """End this rank's calls that are under way, wait for that, and refuse all others."""
        self.boards.core.stop()
        for calls in self._all_calls():
            calls.wake()
            calls.close()

    def settle(self) -> None:
        """Wait for the calls under way, which have been told to end."""
        for calls in self._all_calls():
            calls.settle()

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return any(calls.busy for calls in self._all_calls())

    def shards(self, call: Call, counts: Counts) -> Shards:
        """Shards of these counts; the collective has been set up. All programs of one with shards of its callers' take the same."""
        return shards_of(self._kinds[call], counts)

    def close(self) -> None:
        """Tell the others, and unmap everything; no call is under way."""
        self.neighbours.close()
        self.calls = None
        self._tables.clear()
        for segment in (*self._segments, *([self._pool] if self._pool else [])):
            segment.close()
        self._segments.clear()
        self._pool = None

    def program(self, number: int) -> Program:
        """The program of that number."""
        return self._programs[number].part.program

    def records(self, number: int) -> list[bytes]:
        """Every rank's channel records of that program."""
        placed, home = self._programs[number], self._homes[number]
        sizes = [arena.progress - arena.records for arena in placed.arenas]
        return [home.load(at + arena.records, size) for at, arena, size in zip(placed.at, placed.arenas, sizes, strict=True)]

    def _all_calls(self) -> list[Any]:
        return [calls for calls in (self.calls, *self.pairs.calls()) if calls is not None]

    # -- setting up -------------------------------------------------------------------------------------------------

    def prepare(self, call: Call) -> int:
        """Plan (rank 0), agree, map and set up the programs of a collective; its table."""
        doing = f"setting up {call[0]}" + ("" if call[1] is None else f" with root {call[1]}")
        parts, segment, pool = self._propose(call) if self.rank == 0 else self._agree(call, doing)
        placed, nbytes, pool_share = self._lay_out(_placed_apart(parts))
        error = None
        try:
            try:
                self._reserve(segment, placed, nbytes, pool, pool_share)
            except ExecutionError as failed:
                error = str(failed)
            self._conclude(error, doing)
        except BaseException:
            for made in (segment, pool):
                if made is not None:
                    made.close()
            raise
        for mapped in (segment, pool):
            if mapped is not None:
                mapped.close_file()
        self._segments.append(segment)
        if pool is not None:
            self._replace_pool(pool, pool_share)
        numbers = {one.part.placed_as: self._set_up(one, segment) for one in placed}
        if call == _AGREEMENT:
            self.calls.set_agreement(numbers[parts[0].placed_as])
            self._tables[call] = -1
            return -1
        if _AGREEMENT not in self._tables and len({part.most_bytes for part in parts}) < len(parts):
            self.prepare(_AGREEMENT)
        entries = [(part.most_bytes, numbers[part.placed_as], part.program.premultiplies, part.stores, part.spread) for part in parts]
        name, root = call
        views = [VIEWS.index(view(name, buffer, self.rank, root)) for buffer in ("input", "output")]
        apart = not all(one.part.program.in_place for one in placed)
        table: int = self.calls.add_table(*views, entries, call_base(name, root), apart)
        self._tables[call] = table
        self._kinds[call] = placed[0].part.program
        if apart:
            self.apart.add(table)
        return table

    def _propose(self, call: Call) -> tuple[list[HostProgram], Segment, Segment | None]:
        if call == _AGREEMENT:
            parts = [agreement_program(self.topology)]
        else:
            parts = programs_for(self.topology, *call, direct=self.direct, crowded=self.waiting.crowded)
        _, nbytes, pool_share = self._lay_out(_placed_apart(parts))
        segment = Segment.sparse(nbytes)
        pool = Segment.sparse(pool_share * self.world_size) if pool_share > self._pool_share else None
        programs = list({p.program.hash: p.program for p in parts}.values())  # each once: one may serve several sizes
        uses = [
            {"program": [q.hash for q in programs].index(p.program.hash), **{name: getattr(p, name) for name in _USE}} for p in parts
        ]
        message = {"call": list(call), "programs": [p.to_json() for p in programs], "uses": uses}
        made = [s for s in (segment, pool) if s is not None]
        try:
            self.group.tell_all(message, [s.fd for s in made])
        except BaseException:
            for one in made:
                one.close()
            raise
        return parts, segment, pool

    def _agree(self, call: Call, doing: str) -> tuple[list[HostProgram], Segment, Segment | None]:
        message, fds = self.group.hear(doing, self.timeout_s)
        theirs = message.get("call")
        if theirs != list(call):
            for fd in fds:
                os.close(fd)
            self.boards.check()
            self.group.answer({"error": f"rank {self.rank} calls {_named(call)}, rank 0 {_named(tuple(theirs or ('?', None)))}"})
            raise ExecutionError(f"rank {self.rank} calls {_named(call)}, rank 0 calls {_named(tuple(theirs or ('?', None)))}")
        programs = [_verified(text) for text in message["programs"]]
        parts = [HostProgram(programs[u["program"]], **{name: u[name] for name in _USE}) for u in message["uses"]]
        _, nbytes, pool_share = self._lay_out(_placed_apart(parts))
        segment = Segment(nbytes, fds[0])
        pool = Segment(pool_share * self.world_size, fds[1]) if len(fds) > 1 else None
        return parts, segment, pool

    def _lay_out(self, parts: Sequence[HostProgram]) -> tuple[list[_Placed], int, int]:
        """Where everything goes: the same on all ranks, as it follows from the programs. Also sizes: of the segment, and of a rank's share of the pool."""
        n, placed, pool_share = self.world_size, [], 0
        sizes = [0] * n
        for part in parts:
            code, arenas = _laid_out(_ByHash(part.program), _slot_bytes(part), not part.pooled)
            at = list(sizes)
            for rank, arena in enumerate(arenas):
                sizes[rank] += _up(arena.slots_begin if part.pooled else arena.nbytes, LINE_BYTES)
                if part.pooled:
                    pool_share = max(pool_share, _up(arena.nbytes - arena.slots_begin, _PAGE))
            placed.append((part, code, arenas, at))
        begins, total = [], 0
        for size in sizes:
            begins.append(total)
            total += _up(max(size, 1), _PAGE)
        pool_share = max(pool_share, self._pool_share)
        made = []
        for part, code, arenas, at in placed:
            host, host_at = lay_out_host(part.program, _slot_bytes(part)), []
            for of_cpu in host:
                host_at.append(total)
                total += _up(of_cpu.nbytes, _PAGE)
            slots_at = [rank * pool_share for rank in range(n)] if part.pooled and pool_share else None
            made.append(_Placed(part, code, arenas, [b + a for b, a in zip(begins, at, strict=True)], slots_at, host, host_at))
        return made, total, pool_share

    def _reserve(self, segment: Segment, placed: Sequence[_Placed], nbytes: int, pool: Segment | None, pool_share: int) -> None:
        """Pages for this rank's own parts, and its counters' lines."""
        begin, others = placed[0].at[self.rank], [at for one in placed for at in (*placed[0].at, *one.host_at)]
        segment.reserve(begin, min((p for p in (*others, nbytes) if p > begin), default=nbytes) - begin)
        if self.rank == 0:
            for one in placed:
                for at, of_cpu in zip(one.host_at, one.host, strict=True):
                    segment.reserve(at, of_cpu.nbytes)
        if pool is not None:
            pool.reserve(self.rank * pool_share, pool_share)
        for one in placed:
            for at, line in counter_lines(one.arenas[self.rank]):
                segment.store(one.at[self.rank] + at, line)

    def _conclude(self, error: str | None, doing: str) -> None:
        """All ranks are ready, or all fail with the first error."""
        if self.rank == 0:
            errors = [error] if error else []
            errors += [str(a["error"]) for a in self.group.answers(doing, self.timeout_s).values() if a.get("error")]
            error = errors[0] if errors else None
            with contextlib.suppress(*([RankFailed] if error else [])):  # who objected may have left already
                self.group.tell_all({"error": error})
        else:
            self.group.answer({"error": error})
            error = self.group.hear(doing, self.timeout_s)[0].get("error")
        if error:
            self.boards.check()  # it may know better
            raise ExecutionError(f"{doing}: {error}")

    def _replace_pool(self, pool: Segment, share: int) -> None:
        """Large programs are set up in the new, larger pool from now on; those set up before keep the old one."""
        if self._pool is not None:
            self._segments.append(self._pool)
        self._pool, self._pool_share = pool, share
        if pool.nbytes <= _MOST_POPULATED:
            self.calls.set_pool(pool.base, pool.nbytes)

    def _set_up(self, one: _Placed, segment: Segment) -> int:
        slot_bases = None
        if one.slots_at is not None:
            assert self._pool is not None
            slot_bases = [self._pool.base + at for at in one.slots_at]
        bases = [segment.base + at for at in one.at]
        arena, base = one.arenas[self.rank], bases[self.rank]
        record = LaunchRecord(
            progress=base + arena.progress, records=base + arena.records, abort=base + arena.abort, doorbell=base + arena.doorbell,
            chunk_bytes=one.part.chunk_bytes, slot_bytes=_slot_bytes(one.part), skewed=one.part.pooled,
            buffers=bases[0] + one.arenas[0].buffers if one.part.program.reaches_buffers else 0,
        )  # fmt: skip
        connections = connection_table(one.part.program, one.arenas, bases, one.host, [segment.base + at for at in one.host_at], slot_bases)
        number: int = self.calls.add_program(bytes(record), one.code, connections, one.part.pooled)
        assert number == len(self._programs)
        self._programs.append(one)
        self._homes.append(segment)
        return number


def _placed_apart(parts: Sequence[HostProgram]) -> list[HostProgram]:
    """One of each that lie in the same memory."""
    return list({part.placed_as: part for part in parts}.values())


def _slot_bytes(part: HostProgram) -> int:
    """With a line for each of the smallest chunks that may lie in it, since data may begin later (``Launch.skewed``)."""
    return part.slot_bytes + (LINE_BYTES * max(1, part.slot_bytes // _core.LEAST_SPREAD) if part.pooled else 0)


@lru_cache(maxsize=64)
def _verified(text: str) -> Program:
    """A program that rank 0 sent, proven; remembered, since communicators of equal groups (and ranks that are threads) get the same."""
    program = Program.from_json(text)
    verify(program, repeated=True)
    return program


class _ByHash:
    """A program as a key: equal where the hashes are."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __hash__(self) -> int:
        return hash(self.program.hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByHash) and other.program.hash == self.program.hash


@lru_cache(maxsize=64)
def _laid_out(held: _ByHash, slot_bytes: int, headed: bool) -> tuple[bytes, list[Arena]]:
    """The bytes of a program, and every rank's arena; remembered like :func:`_verified`."""
    code = encode(held.program)
    shared = not headed and len(memories_of(held.program.topology)) == 1
    return code, [lay_out(held.program, code, rank, slot_bytes, headed=headed, shared=shared) for rank in range(held.program.nranks)]


def _named(call: Sequence[Any]) -> str:
    return str(call[0]) if call[1] is None else f"{call[0]} with root {call[1]}"


def _up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
