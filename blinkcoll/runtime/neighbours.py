"""Ranks get to know each other: boards are handed out, and each process begins to watch the others'."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import ExecutionError
from .board import CLOSED, DIED, FILE_NAME, LEFT, Boards, own_identity
from .bootstrap import MOST_FDS, Address, Group
from .segment import Segment
from .watch import own_pidfd, process_name, unwatch, watch

if TYPE_CHECKING:
    from .hostgroup import HostGroup

_DOING = "getting to know the other ranks"


class Neighbours:
    """This rank's boards, and the watch over the other ranks.

    Parameters
    ----------
    host
        Whose sleeping calls are woken when something has happened.
    name
        The communicator's, for people.
    more_bytes
        Of memory behind the boards, for other uses: one file a communicator, of which only what is used takes memory.
    """

    def __init__(self, host: HostGroup, group: Group, name: str, more_bytes: int, timeout_s: float) -> None:
        self._host, self.rank = host, group.rank
        self.board_bytes = Boards.nbytes(group.world_size)
        nbytes = self.board_bytes + more_bytes
        if group.rank == 0:
            self.segment = Segment.sparse(nbytes, FILE_NAME)
            try:
                self.segment.reserve(0, self.board_bytes)  # of all ranks: nobody can fail to say why it fails
                group.tell_all({"boards": nbytes}, [self.segment.fd])
            except BaseException:
                self.segment.close()
                raise
        else:
            message, fds = group.hear(_DOING, timeout_s)
            if message.get("boards") != nbytes or len(fds) != 1:
                raise ExecutionError(f"rank {group.rank}: expected boards of {nbytes} bytes, got {message} with {len(fds)} descriptors")
            self.segment = Segment(nbytes, fds[0])
        self.boards = Boards(self.segment, group.rank, group.world_size)
        try:
            self.boards.introduce(own_identity(process_name(), Address.invent()), name)
            processes, pidfds = _exchange(group, timeout_s)
        except BaseException as error:
            self.boards.fail_to_set_up(error)
            self.boards.forget()
            self.segment.close()
            raise
        others = {rank: process for rank, process in processes.items() if process != process_name()}
        for rank in set(pidfds) - set(others):
            os.close(pidfds.pop(rank))
        watch(self, others, pidfds, group.peers)
        group.check = self.boards.check

    def ended(self, rank: int) -> None:
        """A rank's process has ended (called by the watching thread)."""
        self._tell(rank, DIED)

    def hung_up(self, rank: int) -> None:
        """A rank's process lives, without its end of the socket (called by the watching thread)."""
        self._tell(rank, LEFT)

    def close(self) -> None:
        """Give everything back."""
        self.part()
        self.boards.forget()
        self.segment.close()

    def part(self) -> None:
        """Tell the others that this rank closes the communicator, and watch them no longer."""
        unwatch(self)
        self.boards.core.mark(self.rank, CLOSED)

    def _tell(self, rank: int, fate: int) -> None:
        self.boards.core.mark(rank, fate)
        self._host.wake()


def _exchange(group: Group, timeout_s: float) -> tuple[dict[int, str], dict[int, int]]:
    """Every rank's process by its random name, and a descriptor of each, where there is one."""
    mine, own = process_name(), own_pidfd()
    own_fds = [own] if own >= 0 else []
    try:
        if group.world_size == 1:
            return {0: mine}, {}
        if group.rank == 0:
            return _collect(group, mine, own_fds, timeout_s)
        group.answer({"process": mine}, own_fds)
    finally:
        for fd in own_fds:
            os.close(fd)
    told, fds = group.hear(_DOING, timeout_s)
    having, expected = list(told["pidfds"]), int(told["attached"])
    try:
        while len(fds) == expected < len(having):
            more, attached = group.hear(_DOING, timeout_s)
            fds += attached
            expected += int(more["attached"])
        if len(fds) != expected:  # the kernel drops descriptors that a process has no room for
            raise ExecutionError(f"rank {group.rank}: no room for {len(having)} descriptors of the other ranks' processes: raise RLIMIT_NOFILE (ulimit -n)")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return dict(enumerate(told["processes"])), dict(zip(having, fds, strict=True))


def _collect(group: Group, mine: str, own: list[int], timeout_s: float) -> tuple[dict[int, str], dict[int, int]]:
    """Rank 0: hear what the others are, and tell all."""
    heard = group.answers_with_fds(_DOING, timeout_s)
    processes = {0: mine} | {rank: str(message["process"]) for rank, (message, _) in heard.items()}
    pidfds = {rank: fds[0] for rank, (_, fds) in sorted(heard.items()) if fds}
    listed = {0: own[0], **pidfds} if own else pidfds
    ranks, fds = list(listed), list(listed.values())
    try:
        told: dict[str, Any] = {"processes": [processes[r] for r in range(group.world_size)], "pidfds": ranks}
        for begin in range(0, max(len(fds), 1), MOST_FDS):
            part = fds[begin : begin + MOST_FDS]
            group.tell_all({**told, "attached": len(part)}, part)
            told = {}
    except BaseException:
        for fd in pidfds.values():
            os.close(fd)
        raise
    return processes, pidfds
