"""How the ranks of one host meet: a socket of rank 0's, found through a store, over which it hands out memory and programs.

Rank 0 listens on an abstract Unix socket (it goes when its process does) and publishes its name and a secret. The others
connect and say who they are. Only processes of the same user that know the secret and belong to a world of the same size
get in, each rank once; anybody else is told why, and logged. A name that a killed job left in the store leads nowhere:
the connection is refused, and the name is read again until the time is over. The sockets stay open: rank 0 sends
programs and descriptors over them, and a socket that closes tells of a death.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import secrets
import select
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import errors
from ..errors import Aborted, ExecutionError, RankFailed, WaitTimeout
from .store import Store

_LOG = logging.getLogger("blinkcoll")
#: Of what is said over the sockets.
VERSION = 1
_MAGIC = "blinkcoll"
_LENGTH = struct.Struct("<I")
_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group
#: The most bytes of a first message, and how long it may take: strangers get neither memory nor time.
_MOST_HELLO, _HELLO_S = 4096, 5.0
_MOST_MESSAGE = 1 << 30
_RETRY_S = 0.01
#: How long a message may wait for its reader to make room, where nothing else is said; and the last one.
_SEND_S, _LAST_WORD_S = 60.0, 0.2
#: Of one message: what Linux carries (SCM_MAX_FD of include/net/scm.h).
MOST_FDS = 253
_CHECK_S, _GRACE_S = 0.1, 0.5
#: How long the watching thread may take to see why a socket has closed.
_MOMENT_S, _MOMENTS = 0.01, 40


@dataclass
class Group:
    """The ranks that have met: rank 0 with a socket to each other rank, each other rank with one to rank 0."""

    rank: int
    world_size: int
    peers: dict[int, socket.socket] = field(default_factory=dict)
    #: Asked ten times a second while a message is waited for; raises where there is no point in it.
    check: Callable[[], None] | None = None
    #: How long a message may wait for its reader to make room.
    patience_s: float = _SEND_S

    def close(self) -> None:
        """Close the sockets; the others see that this rank has gone."""
        for peer in self.peers.values():
            peer.close()
        self.peers.clear()

    def give_up(self, error: BaseException) -> None:
        """Tell those at the other ends why nothing will come of it, and close."""
        reason = json.dumps({"gave_up": [type(error).__name__, str(error)]}).encode()
        for peer in self.peers.values():
            with contextlib.suppress(OSError):
                _send(peer, reason, (), _LAST_WORD_S)
        self.close()

    def tell_all(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Rank 0: the same message, and descriptors, to every other rank."""
        data = json.dumps(message).encode()
        for rank, peer in self.peers.items():
            try:
                _send(peer, data, fds, self.patience_s)
            except TimeoutError:
                raise WaitTimeout(f"rank 0: rank {rank} took no message for {self.patience_s:g} s") from None
            except OSError as error:
                self._look_closer()
                raise RankFailed(f"rank {rank} is gone: {error.strerror}") from None

    def hear(self, doing: str, timeout_s: float) -> tuple[dict[str, Any], list[int]]:
        """A rank other than 0: the next message of rank 0, and the descriptors that came with it."""
        try:
            # A little longer than rank 0, which knows better who is late, and says so.
            message, fds = _receive(self.peers[0], time.monotonic() + timeout_s + _GRACE_S, check=self.check)
        except TimeoutError:
            raise WaitTimeout(f"rank {self.rank}: {doing}: rank 0 said nothing for {timeout_s:g} s") from None
        except OSError:
            self._look_closer()
            raise RankFailed(f"rank {self.rank}: {doing}: rank 0 is gone") from None
        _raise_if_given_up(0, message)
        return message, fds

    def answer(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """A rank other than 0: to rank 0."""
        try:
            _send(self.peers[0], json.dumps(message).encode(), fds, self.patience_s)
        except TimeoutError:
            raise WaitTimeout(f"rank {self.rank}: rank 0 took no message for {self.patience_s:g} s") from None
        except OSError:
            self._look_closer()
            raise RankFailed(f"rank {self.rank}: rank 0 is gone") from None

    def answers(self, doing: str, timeout_s: float) -> dict[int, dict[str, Any]]:
        """Rank 0: one message of every other rank; names who said nothing."""
        return {rank: message for rank, (message, _) in self.answers_with_fds(doing, timeout_s).items()}

    def answers_with_fds(self, doing: str, timeout_s: float) -> dict[int, tuple[dict[str, Any], list[int]]]:
        """The same with the descriptors that came along."""
        deadline, heard = time.monotonic() + timeout_s, {}
        for rank, peer in self.peers.items():
            try:
                heard[rank] = _receive(peer, deadline, check=self.check)
            except TimeoutError:
                silent = [other for other, waiting in sorted(self.peers.items()) if other not in heard and not _has_something(waiting)]
                raise WaitTimeout(f"rank 0: {doing}: no answer for {timeout_s:g} s from {_names(silent or [rank])}") from None
            except OSError:
                self._look_closer()
                raise RankFailed(f"rank 0: {doing}: rank {rank} is gone") from None
            _raise_if_given_up(rank, heard[rank][0])
        return heard

    def _look_closer(self) -> None:
        """A socket has closed: give whoever watches the other process a moment to find out why, and raise that."""
        for _ in range(_MOMENTS if self.check is not None else 0):
            assert self.check is not None
            self.check()
            time.sleep(_MOMENT_S)


class Address:
    """A listening socket that nobody else knows yet. Its ``text`` tells others how to reach it, and the job's secret.

    With a ``text`` that :meth:`invent` made: there.
    """

    def __init__(self, text: str | None = None) -> None:
        self.text = self.invent() if text is None else text
        said = json.loads(self.text)
        name, self.token = said["name"], said["token"]
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind("\0" + name)
        self.listener.listen(128)
        self.listener.setblocking(False)

    @staticmethod
    def invent() -> str:
        """How to reach a place where nobody listens yet, and that nobody can guess."""
        return json.dumps({"name": f"blinkcoll-{secrets.token_hex(16)}", "token": secrets.token_hex(16)})

    def close(self) -> None:
        """Nobody can reach it any more."""
        self.listener.close()


def meet(rank: int, world_size: int, store: Store | None, key: str, timeout_s: float) -> Group:
    """Wait until all ranks are here; rank 0's address is ``key`` of the store.

    Raises
    ------
    WaitTimeout
        Where not all came within ``timeout_s``; rank 0 names who did not.
    ExecutionError
        Where rank 0 refused this rank: another world size or version, or the rank is taken.
    """
    if store is None or world_size == 1:
        return Group(rank, world_size)
    if rank != 0:
        return join(rank, world_size, lambda left_s: _within(left_s, lambda: store.get(key), f"no answer from the store about {key!r}"), timeout_s)
    address = Address()
    try:
        _within(timeout_s, lambda: store.set(key, address.text), f"the store did not take {key!r}")
        return gather(address, Group(0, world_size), timeout_s)
    finally:
        address.close()


def meet_at(own: Address, leader: str, rank: int, world_size: int, timeout_s: float) -> Group:
    """The same where every rank knows rank 0's address already; ``own`` is this rank's."""
    if world_size == 1:
        return Group(rank, world_size)
    return gather(own, Group(0, world_size), timeout_s) if rank == 0 else join(rank, world_size, lambda _: leader.encode(), timeout_s)


# -- rank 0 ---------------------------------------------------------------------------------------------------------


def gather(address: Address, group: Group, timeout_s: float, gone: Callable[[], set[int]] = set) -> Group:
    """Wait at ``address`` until all ranks of the group but its own, and those that are ``gone``, are here."""
    deadline = time.monotonic() + timeout_s
    waiting: dict[socket.socket, float] = {}  # strangers so far, and when they have to have said who they are
    with selectors.DefaultSelector() as selector:
        selector.register(address.listener, selectors.EVENT_READ)
        try:
            while missing := [rank for rank in range(group.world_size) if rank != group.rank and rank not in group.peers and rank not in gone()]:
                now = time.monotonic()
                if now > deadline:
                    raise WaitTimeout(f"rank {group.rank}: after {timeout_s:.3g} s {_names(missing)} of {group.world_size} had not come")
                _turn_away_the_silent(waiting, selector, now)
                for key, _ in selector.select(min([deadline, *waiting.values(), *([now + _CHECK_S] if gone is not set else [])]) - now):
                    caller = key.fileobj
                    assert isinstance(caller, socket.socket)
                    if caller is address.listener:
                        _accept(address.listener, selector, waiting)
                    else:
                        selector.unregister(caller)
                        waiting.pop(caller)
                        _admit(caller, group, address.token)
        except BaseException as error:
            group.give_up(error)
            raise
        finally:
            for caller in waiting:
                caller.close()
    return group


def _accept(listener: socket.socket, selector: selectors.BaseSelector, waiting: dict[socket.socket, float]) -> None:
    caller, _ = listener.accept()
    if _user(caller) != os.geteuid():  # before it may say, or not say, anything
        return _refuse(caller, f"it belongs to user {_user(caller)}, this job to user {os.geteuid()}")
    selector.register(caller, selectors.EVENT_READ)
    waiting[caller] = time.monotonic() + _HELLO_S
    return None


def _user(caller: socket.socket) -> int:
    return int(_CREDENTIALS.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])


def _turn_away_the_silent(waiting: dict[socket.socket, float], selector: selectors.BaseSelector, now: float) -> None:
    for caller in [c for c, until in waiting.items() if until < now]:
        selector.unregister(caller)
        del waiting[caller]
        _refuse(caller, f"said nothing for {_HELLO_S:g} s")


def _admit(caller: socket.socket, group: Group, token: str) -> None:
    """Let a caller in that says who it is, or turn it away."""
    try:
        hello, fds = _receive(caller, time.monotonic() + _HELLO_S, _MOST_HELLO)
    except (OSError, ValueError) as error:
        return _refuse(caller, f"no intelligible greeting: {error}")
    for fd in fds:  # nobody sends any with a greeting
        os.close(fd)
    reason = _objection(hello, group, token)
    if reason is not None:
        return _refuse(caller, reason)
    _send(caller, json.dumps({"ok": True}).encode(), ())
    group.peers[hello["rank"]] = caller
    return None


def _objection(hello: Any, group: Group, token: str) -> str | None:
    if not isinstance(hello, dict) or hello.get("magic") != _MAGIC:
        return "it is no rank of a blinkcoll job"
    if hello.get("version") != VERSION:
        return f"it speaks version {hello.get('version')!r}, this job version {VERSION}: all ranks need the same blinkcoll"
    if not secrets.compare_digest(str(hello.get("token")), token):
        return "it does not know this job's secret"
    if hello.get("world_size") != group.world_size:
        return f"its world has {hello.get('world_size')!r} ranks, this one {group.world_size}"
    rank = hello.get("rank")
    if type(rank) is not int or not 0 <= rank < group.world_size:
        return f"there is no rank {rank!r} among {group.world_size}"
    if rank in group.peers or rank == group.rank:
        return f"rank {rank} is here already: two jobs on one store, or two processes of one rank"
    return None


def _refuse(caller: socket.socket, reason: str) -> None:
    pid, uid, _ = _CREDENTIALS.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    _LOG.warning("blinkcoll: a process (%d, user %d) was turned away: %s", pid, uid, reason)
    with contextlib.suppress(OSError), caller:
        _send(caller, json.dumps({"refused": reason}).encode(), ())
        caller.setblocking(False)
        caller.recv(_MOST_HELLO)  # closing over unread data would take the answer back (ECONNRESET)


# -- the others -----------------------------------------------------------------------------------------------------


def join(rank: int, world_size: int, look_up: Callable[[float], bytes], timeout_s: float) -> Group:
    """Find who gathers the ranks, at the address that ``look_up`` says, which is given the seconds that are left."""
    deadline = time.monotonic() + timeout_s
    last = ""
    for _ in _tries(deadline):
        try:
            address = json.loads(look_up(max(deadline - time.monotonic(), _RETRY_S)))
            name, token = str(address["name"]), str(address["token"])
        except TimeoutError as error:
            last = last or str(error)
            continue
        except (ValueError, KeyError, TypeError):
            last = "what is published as rank 0's address is none"
            continue
        caller, left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), deadline - time.monotonic()
        try:
            caller.settimeout(max(left, _RETRY_S))
            caller.connect("\0" + name)
            hello = {"magic": _MAGIC, "version": VERSION, "token": token, "rank": rank, "world_size": world_size}
            _send(caller, json.dumps(hello).encode(), ())
            said, _ = _receive(caller, deadline)
        except TimeoutError:
            last = "rank 0 did not answer" if left > _CHECK_S else last  # the last try has no time for an answer
        except OSError as error:
            last = f"nobody is at the published address ({error.strerror or error}): a job that has ended left it, or rank 0 has died"
        except ValueError as error:
            last = f"what is at the published address is no rank 0: {error}"
        else:
            if isinstance(said, dict) and "refused" in said:
                caller.close()
                raise ExecutionError(f"rank {rank}: rank 0 refused it: {said['refused']}")
            if said == {"ok": True}:
                return Group(rank, world_size, {0: caller})
            last = "what is at the published address is no rank 0"
        caller.close()
    raise WaitTimeout(f"rank {rank}: did not find rank 0 within {timeout_s:g} s: {last}")


def _within(timeout_s: float, ask: Callable[[], Any], otherwise: str) -> Any:
    """What a store answers, if it does so in time: its own time-outs may be longer, or it may never answer."""
    answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((True, ask()))
        except Exception as error:
            answers.put((False, error))

    threading.Thread(target=run, name="blinkcoll-store", daemon=True).start()  # it ends when the store answers, if ever
    try:
        good, answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise WaitTimeout(f"{otherwise} for {timeout_s:.1f} s") from None
    if not good:
        raise answer
    return answer


def _tries(deadline: float) -> Iterator[None]:
    while True:
        yield
        if time.monotonic() > deadline:
            return
        time.sleep(_RETRY_S)


# -- messages -------------------------------------------------------------------------------------------------------


def _send(peer: socket.socket, data: bytes, fds: Sequence[int], timeout_s: float = _SEND_S) -> None:
    """A message: its length, then its bytes; descriptors travel with the length. OSError where the peer does not take it."""
    peer.settimeout(timeout_s)
    head = _LENGTH.pack(len(data))
    if fds:
        sent = socket.send_fds(peer, [head], list(fds))
        assert sent == len(head), "a stream socket took a part of four bytes"
        head = b""
    peer.sendall(head + data)


def _receive(peer: socket.socket, deadline: float, most: int = _MOST_MESSAGE, check: Callable[[], None] | None = None) -> tuple[Any, list[int]]:
    """The next message and its descriptors; ``check`` may raise while it does not come.

    Raises
    ------
    OSError
        Where the peer is gone; TimeoutError (one of them) where the deadline is over.
    ValueError
        Where the message is too long or no JSON.
    """
    fds: list[int] = []

    def read(count: int, first: bool = False) -> bytes:
        data = b""
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            peer.settimeout(min(left, _CHECK_S) if check else left)
            try:
                if first:
                    part, got, _, _ = socket.recv_fds(peer, count - len(data), MOST_FDS)
                    fds.extend(got)
                else:
                    part = peer.recv(min(count - len(data), 1 << 20))
            except TimeoutError:
                if check:
                    check()
                continue
            if not part:
                raise ConnectionResetError("the other end closed")
            data += part
        return data

    try:
        (length,) = _LENGTH.unpack(read(_LENGTH.size, first=True))
        if length > most:
            raise ValueError(f"a message of {length} bytes, at most {most} are taken")
        return json.loads(read(length)), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _has_something(peer: socket.socket) -> bool:
    return bool(select.select([peer], [], [], 0)[0])


def _raise_if_given_up(rank: int, message: Any) -> None:
    if isinstance(message, dict) and "gave_up" in message:
        kind, text = message["gave_up"]
        known = getattr(errors, str(kind), None)
        made = known if isinstance(known, type) and issubclass(known, ExecutionError) else Aborted
        raise made(f"rank {rank} gave up: {text if made is known else f'{kind}: {text}'}")


def _names(ranks: Sequence[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))
