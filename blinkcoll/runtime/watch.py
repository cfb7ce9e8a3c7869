"""A process watches the others: one thread that sleeps until one of them ends.

What tells of a death:

- a *pidfd* of each rank's process, which the rank opens on itself and hands out over the bootstrap sockets. A descriptor is
  the process: numbers that are used again, and namespaces of process numbers, do not matter. It becomes readable when
  the process has ended, whatever ended it; copies of the process made by fork do not keep it alive.
- the *sockets* between rank 0 and the others, which close when a process ends, runs another program (exec), or closes its
  communicator (its board says so before). They are all there is where pidfds are refused (Linux before 5.3, a seccomp
  filter); then rank 0 tells the others, by way of the boards.

A heartbeat would need a thread that wakes up, and would take a stopped process for a dead one; a robust futex would need a
waiter for each owner. This thread is never woken as long as all are well, whatever the number of communicators.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import threading
from dataclasses import dataclass, field
from typing import Protocol

#: How long a process that has closed a socket may take to end: it does the one a moment before the other.
_ENDING_MS = 200


class Listener(Protocol):
    """Who wants to know; called on the watching thread, one at a time."""

    def ended(self, rank: int) -> None:
        """The process of that rank has ended."""

    def hung_up(self, rank: int) -> None:
        """That rank's process lives, but its end of the socket is closed."""


@dataclass
class _Process:
    pidfd: int
    listeners: list[tuple[Listener, int]] = field(default_factory=list)


class Watcher:
    """The thread, and what it looks at."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._processes: dict[str, _Process] = {}  # by their random names
        self._sockets: dict[int, tuple[Listener, int, str]] = {}  # by descriptor: who asks, whose other end it is, its process
        self._running = True
        threading.Thread(target=self._serve, name="blinkcoll-watch", daemon=True).start()

    def add(self, listener: Listener, processes: dict[int, str], pidfds: dict[int, int], sockets: dict[int, socket.socket]) -> bool:
        """Watch these ranks for a listener; the pidfds are the watcher's from now on. False where it has just ended."""
        with _lock:
            if not self._running:
                return False
            for rank, name in processes.items():
                pidfd, entry, new = pidfds.get(rank, -1), (listener, rank), _Process(pidfds.get(rank, -1))
                process = self._processes.setdefault(name, new)
                process.listeners.append(entry)
                if pidfd >= 0 and process is new:
                    self._epoll.register(pidfd, select.EPOLLIN)
                elif pidfd >= 0:
                    os.close(pidfd)
            for rank, peer in sockets.items():
                self._sockets[peer.fileno()] = (listener, rank, processes.get(rank, ""))
                self._epoll.register(peer.fileno(), select.EPOLLRDHUP)
            return True

    def remove(self, listener: Listener) -> None:
        """Forget a listener; it is called no more when this has returned. The last one ends the thread."""
        with _lock:
            for fd in [fd for fd, (other, *_) in self._sockets.items() if other is listener]:
                self._forget(fd)
                del self._sockets[fd]
            for name, process in list(self._processes.items()):
                process.listeners = [(other, rank) for other, rank in process.listeners if other is not listener]
                if not process.listeners:
                    del self._processes[name]
                    if process.pidfd >= 0:
                        self._forget(process.pidfd)
                        os.close(process.pidfd)
            if not self._processes and not self._sockets and self._running:
                os.eventfd_write(self._bell, 1)

    def abandon(self) -> None:
        """In a forked child: close the copies of everything; the thread is the parent's."""
        if not self._running:  # everything is closed, and the numbers may be others' by now
            return
        self._epoll.close()
        for fd in (self._bell, *(p.pidfd for p in self._processes.values() if p.pidfd >= 0)):
            with contextlib.suppress(OSError):
                os.close(fd)

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for who can handle them
        while True:
            events = self._epoll.poll()
            with _lock:
                for fd, _ in events:
                    self._happened(fd)
                if not self._processes and not self._sockets:
                    self._running = False
                    self._epoll.close()
                    os.close(self._bell)
                    return

    def _happened(self, fd: int) -> None:
        if fd == self._bell:
            os.eventfd_read(fd)
        elif fd in self._sockets:
            listener, rank, name = self._sockets.pop(fd)
            self._forget(fd)
            process = self._processes.get(name)
            lives = name == _name or (process is not None and process.pidfd >= 0 and not _has_ended(process.pidfd))
            (listener.hung_up if lives else listener.ended)(rank)
        else:
            self._process_ended(fd)

    def _process_ended(self, fd: int) -> None:
        for process in [process for process in self._processes.values() if process.pidfd == fd]:
            self._forget(fd)
            for listener, rank in list(process.listeners):
                listener.ended(rank)

    def _forget(self, fd: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # it was forgotten when it happened
            self._epoll.unregister(fd)


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(_ENDING_MS))


_watcher: Watcher | None = None
_name: str | None = None
#: Of everything here. The garbage collector may drop a communicator, and so call unwatch(), wherever it likes: reentrant.
_lock = threading.RLock()


def process_name() -> str:
    """A random name of this process, the same for all its communicators."""
    global _name
    with _lock:
        _name = _name or secrets.token_hex(16)
        return _name


def own_pidfd() -> int:
    """A descriptor of this process, or -1 where there are none to be had."""
    try:
        return os.pidfd_open(os.getpid())
    except (OSError, AttributeError):
        return -1


def watch(listener: Listener, processes: dict[int, str], pidfds: dict[int, int], sockets: dict[int, socket.socket]) -> None:
    """Tell ``listener`` when one of these ranks' processes ends, or its socket closes; until :func:`unwatch`."""
    global _watcher
    with _lock:
        if _watcher is None or not _watcher.add(listener, processes, pidfds, sockets):
            _watcher = Watcher()
            _watcher.add(listener, processes, pidfds, sockets)


def unwatch(listener: Listener) -> None:
    """No more; also where it never began."""
    with _lock:
        if _watcher is not None:
            _watcher.remove(listener)


def _forked() -> None:
    """The child has no watching thread, and is another process."""
    global _watcher, _name, _lock
    _lock = threading.RLock()  # somebody may have held it
    if _watcher is not None:
        _watcher.abandon()
    _watcher, _name = None, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
