"""Calls in the background: a thread that runs them in order, and what a caller holds of each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from .errors import WaitTimeout


class Work:
    """A call that goes on in the background. Calls of one communicator run one after the other, in order."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def is_completed(self) -> bool:
        """Whether it has ended, well or not."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> Any:
        """Wait for its end; its result.

        Raises
        ------
        WaitTimeout
            Where it has not ended within ``timeout_s``; the call itself goes on.
        BlinkcollError
            What the call raised.
        """
        if not self._ended.wait(timeout_s):
            raise WaitTimeout(f"the call has not ended within {timeout_s:g} s; it goes on")
        if self._error is not None:
            raise self._error
        return self._result

    result = wait

    def exception(self, timeout_s: float | None = None) -> BaseException | None:
        """What the call raised, or None."""
        if not self._ended.wait(timeout_s):
            raise WaitTimeout(f"the call has not ended within {timeout_s:g} s; it goes on")
        return self._error

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._result = call()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()


class Lane:
    """Calls that have to follow each other, on a thread of their own where they are to go on in the background."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._calls: queue.SimpleQueue[tuple[Work, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: Work | None = None
        self._watcher: Callable[[bool], object] | None = None
        self._lock = threading.Lock()

    def watch(self, watcher: Callable[[bool], object]) -> None:
        """Tell ``watcher`` whenever it becomes busy (False) or idle (True)."""
        self._watcher = watcher

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._last is None or self._last.is_completed()

    def _tell(self, work: Work) -> None:
        """The work that was asked for, or has ended: calls wait for the last one."""
        with self._lock:
            if self._watcher is not None and work is self._last:
                self._watcher(work.is_completed())

    def do(self, call: Callable[[], Any], async_op: bool) -> Any:
        """The call's result, or its Work."""
        if not async_op and self.idle:
            return call()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
            self._thread.start()
        work = Work()
        with self._lock:
            self._last = work
        self._tell(work)
        self._calls.put((work, call))
        return work if async_op else work.wait()

    def close(self, timeout_s: float | None = None) -> None:
        """Wait for all calls."""
        thread = self._thread
        self.dismiss()
        if thread is not None:
            thread.join(timeout_s)

    def dismiss(self) -> None:
        """There are no more calls."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread = None

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            work, call = item
            work._run(call)
            self._tell(work)
            del item, work, call  # while it waits for the next one, it keeps no communicator alive
