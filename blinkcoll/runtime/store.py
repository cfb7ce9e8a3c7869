"""A key-value store in a folder: where the ranks of one host find each other without torch."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from ..errors import ExecutionError, WaitTimeout

_POLL_S = 0.002


class Store(Protocol):
    """What bootstrap needs of a store: torch's stores have it."""

    def set(self, key: str, value: str) -> None:
        """Put a value; an earlier one goes."""

    def get(self, key: str) -> bytes:
        """The value, once somebody has set it."""


class FileStore:
    """A store whose keys are files of a folder that all ranks see; made where it does not exist.

    Parameters
    ----------
    path
        The folder. Values of earlier jobs that used it are overwritten; see ``docs/host.md`` for what that means.
    timeout_s
        How long :meth:`get` waits.
    """

    def __init__(self, path: str | os.PathLike[str], timeout_s: float = 300.0) -> None:
        self.path = Path(path)
        self.timeout_s = timeout_s
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ExecutionError(f"store {self.path}: a file is there, expected a folder or nothing (torch's FileStore takes a file, this one a folder)") from None
        except OSError as error:
            raise ExecutionError(f"store {self.path}: the folder cannot be made: {error.strerror}") from None

    def set(self, key: str, value: str | bytes) -> None:
        """Put a value; readers see the old one or the new one, whole.

        Raises
        ------
        ExecutionError
            Where it cannot be written (a full disk, no permission).
        """
        data = value.encode() if isinstance(value, str) else bytes(value)
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.path, prefix=".", delete=False) as file:
                temporary = file.name
                file.write(data)
            os.replace(temporary, self._file(key))
        except OSError as error:
            if temporary is not None and os.path.exists(temporary):
                os.unlink(temporary)
            raise ExecutionError(f"store {self.path}: {key!r} cannot be written: {error.strerror}") from None

    def get(self, key: str) -> bytes:
        """The value, once somebody has set it.

        Raises
        ------
        WaitTimeout
            Where nobody has within ``timeout_s``.
        """
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                return self._file(key).read_bytes()
            except FileNotFoundError:
                if time.monotonic() > deadline:
                    raise WaitTimeout(f"store {self.path}: nobody set {key!r} within {self.timeout_s:g} s") from None
                time.sleep(_POLL_S)
            except OSError as error:
                raise ExecutionError(f"store {self.path}: {key!r} cannot be read: {error.strerror}") from None

    def _file(self, key: str) -> Path:
        return self.path / quote(key, safe="")
