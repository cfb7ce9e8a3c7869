"""One shared mapping that holds every rank's arena and data: what processes of one host meet in.

The tables inside hold offsets from the mapping's start; each process adds its own base to a private copy (`rebase`).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import ExecutionError
from .launch import Arena, HostArena, LaunchRecord

_ALIGNMENT = 4096
_ADDRESSES = ("program", "buffers", "connections", "cursors", "progress", "records", "abort", "doorbell")
#: 0 where a launch has none; no table lies at the segment's start.
_OPTIONAL_ADDRESSES = ("bounds", "places")


@dataclass(frozen=True)
class SegmentLayout:
    """Offsets of each rank's arena, input, output and scratch, and of the host arenas."""

    arenas: tuple[int, ...]
    buffers: tuple[tuple[int, int, int], ...]
    nbytes: int
    host: tuple[int, ...] = ()


def lay_out_segment(arenas: Sequence[Arena], buffer_bytes: Sequence[tuple[int, int, int]], host: Sequence[HostArena] = ()) -> SegmentLayout:
    """Arenas first, then each rank's three buffers of these sizes, each on pages of its own."""
    at = 0

    def take(nbytes: int) -> int:
        nonlocal at
        start = at
        at = -(-(at + max(nbytes, 1)) // _ALIGNMENT) * _ALIGNMENT
        return start

    places = tuple(take(arena.nbytes) for arena in arenas)
    buffers = tuple((take(i), take(o), take(s)) for i, o, s in buffer_bytes)
    shared = tuple(take(arena.nbytes) for arena in host)
    return SegmentLayout(places, buffers, at, shared)


class Segment:
    """A mapping of a memfd; zeros at first. ``fd`` is what other processes map.

    The mapping is made by libc: a ``mmap.mmap`` would keep a descriptor of its own.
    """

    def __init__(self, nbytes: int, fd: int | None = None) -> None:
        self.nbytes = nbytes
        self.fd = _memory_file(nbytes, reserve=True) if fd is None else fd
        try:
            self.base = _map(self.fd, nbytes)
        except OSError as error:
            os.close(self.fd)
            raise ExecutionError(f"a segment of {nbytes} bytes cannot be mapped: {error.strerror}") from None
        self._unmap = weakref.finalize(self, _libc().munmap, self.base, nbytes)
        self._unmap.atexit = False  # other threads may still look at it

    @classmethod
    def sparse(cls, nbytes: int, name: str = "blinkcoll") -> Segment:
        """A new segment whose pages nobody has reserved yet; :meth:`reserve` does. ``name``: what /proc shows."""
        return cls(nbytes, _memory_file(nbytes, reserve=False, name=name))

    def reserve(self, offset: int, nbytes: int) -> None:
        """Take pages for a part, here and now and from this thread's memory node.

        Raises
        ------
        ExecutionError
            Where there is no memory left.
        """
        if nbytes:
            _allocate(self.fd, offset, nbytes)

    def view(self, offset: int, nbytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Bytes of the segment; valid until it is closed."""
        held = (ctypes.c_uint8 * nbytes).from_address(self._at(offset, nbytes))
        held.segment = self  # type: ignore[attr-defined]  # which lives as long as the view
        return np.ctypeslib.as_array(held)

    def store(self, offset: int, data: bytes) -> None:
        """Write bytes."""
        ctypes.memmove(self._at(offset, len(data)), data, len(data))

    def load(self, offset: int, nbytes: int) -> bytes:
        """Read bytes."""
        return ctypes.string_at(self._at(offset, nbytes), nbytes)

    def _at(self, offset: int, nbytes: int) -> int:
        if not self._unmap.alive or offset < 0 or offset + nbytes > self.nbytes:
            raise IndexError(f"bytes {offset} to {offset + nbytes} of a segment of {self.nbytes}{'' if self._unmap.alive else ', which is closed'}")
        return self.base + offset

    def close_file(self) -> None:
        """Close the descriptor: everybody who is to map the segment has. The mapping stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Unmap; the memory goes when the last process has."""
        self._unmap()
        self.close_file()


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc


def _map(fd: int, nbytes: int) -> int:
    """The address at which a file of at least this size is mapped, shared. Raises OSError."""
    if os.fstat(fd).st_size < nbytes:  # touching what lies behind its end would be a signal
        raise OSError(errno.EINVAL, f"its file has {os.fstat(fd).st_size}")
    at = _libc().mmap(None, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if at == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(at)


def _memory_file(nbytes: int, reserve: bool, name: str = "blinkcoll") -> int:
    """A memfd. Its descriptor is none of the standard three, even where those are closed: a child's would replace it."""
    if not hasattr(os, "memfd_create"):
        raise ExecutionError("host processes need memfd_create, which only Linux has; use threads")
    low = os.memfd_create(name)
    try:
        fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(low)
    try:
        os.ftruncate(fd, nbytes)
        if reserve:
            _allocate(fd, 0, nbytes)
    except OSError as error:
        os.close(fd)
        raise _not_to_be_had(nbytes, error) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _allocate(fd: int, offset: int, nbytes: int) -> None:
    """Pages are reserved, so that a full machine is an error here and not a signal later."""
    try:
        os.posix_fallocate(fd, offset, nbytes)
    except OSError as error:
        raise _not_to_be_had(nbytes, error) from None


def _not_to_be_had(nbytes: int, error: OSError) -> ExecutionError:
    return ExecutionError(f"{nbytes} bytes of shared memory are not to be had: {error.strerror}")


def rebase(record: bytes, segment: Segment, nranks: int, nconnections: int) -> tuple[bytes, list[object]]:
    """A launch record of offsets as one of addresses in this process, with private tables of addresses.

    Returns the record and what must stay alive while it is used.
    """
    launch = LaunchRecord.from_buffer_copy(record)
    tables = []
    for name, words in (("buffers", 3 * nranks), ("connections", 3 * nconnections)):
        offsets = np.frombuffer(segment.load(getattr(launch, name), 8 * words), dtype=np.uint64)
        tables.append(offsets + np.uint64(segment.base))
    for name in _ADDRESSES:
        setattr(launch, name, getattr(launch, name) + segment.base)
    for name in _OPTIONAL_ADDRESSES:
        setattr(launch, name, getattr(launch, name) and getattr(launch, name) + segment.base)
    launch.buffers, launch.connections = (table.ctypes.data for table in tables)
    return bytes(launch), list(tables)
