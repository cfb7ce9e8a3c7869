"""Survivors of a group meet anew: at the address that the lowest of them has shown on its board since the beginning.

Who has gone is known and not guessed (watch.py), and is never taken back, so two ranks that lead at once cannot both find
ranks to lead: one of them knows less, and learns that the other's place is free.
"""

from __future__ import annotations

import time

from ..errors import WaitTimeout
from .board import Boards
from .bootstrap import Address, Group, gather, join

_DOING = "meeting the other survivors"


def regroup(boards: Boards, timeout_s: float) -> tuple[Group, list[int]]:
    """The survivors as a new group, in the order of ranks, and their ranks in the old one.

    Raises
    ------
    WaitTimeout
        Where not all ranks that live came; names them.
    RankFailed
        Where one ended meanwhile; :func:`regroup` may be called again.
    """
    deadline = time.monotonic() + timeout_s
    address = Address(boards.address(boards.rank))
    try:
        while True:
            leader = min(set(range(boards.world_size)) - boards.gone())
            left = deadline - time.monotonic()
            if left < 0:
                raise WaitTimeout(f"rank {boards.rank}: {_DOING}: not all came within {timeout_s:g} s")
            met = _lead(boards, address, left) if leader == boards.rank else _follow(boards, leader, deadline)
            if met is not None:
                return met
    finally:
        address.close()


def _lead(boards: Boards, address: Address, timeout_s: float) -> tuple[Group, list[int]]:
    old = gather(address, Group(boards.rank, boards.world_size), timeout_s, boards.gone)
    for rank in boards.gone() & set(old.peers):  # it came, and died
        old.peers.pop(rank).close()
    members = sorted([boards.rank, *old.peers])
    group = Group(0, len(members), {new: old.peers[rank] for new, rank in enumerate(members) if new})
    try:
        group.tell_all({"members": members})
    except BaseException as error:
        group.give_up(error)
        raise
    return group, members


def _follow(boards: Boards, leader: int, deadline: float) -> tuple[Group, list[int]] | None:
    """None where the leader ended; the next one leads."""

    def look_up(_: float) -> bytes:
        if leader in boards.gone():
            raise _LeaderGone
        return boards.address(leader).encode()

    old = None
    try:
        old = join(boards.rank, boards.world_size, look_up, deadline - time.monotonic())
        old.check = lambda: _ask(leader in boards.gone())
        members: list[int] = old.hear(_DOING, deadline - time.monotonic())[0]["members"]
    except _LeaderGone:
        if old is not None:
            old.close()
        return None
    except BaseException:
        if old is not None:
            old.close()
        raise
    return Group(members.index(boards.rank), len(members), {0: old.peers[0]}), members


def _ask(gone: bool) -> None:
    if gone:
        raise _LeaderGone


class _LeaderGone(Exception):
    pass
