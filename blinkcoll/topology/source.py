"""What a parser reads: the text of a file with its lines, decoded and bounded, and errors that point into it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import TopologyError

#: The largest real dump known is under 1 MB (hwloc, thousands of cores); beyond this nothing is read.
MOST_BYTES = 16 << 20
#: Nor has any that many lines.
MOST_LINES = 200_000
#: Characters of an offending line that a message repeats.
MOST_QUOTED = 80

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")


@dataclass
class Source:
    """The text of one file. Parsers add to ``notes`` what they assume or throw away."""

    name: str
    text: str
    notes: list[str] = field(default_factory=list)

    @cached_property
    def lines(self) -> list[str]:
        """The lines, without terminal escapes."""
        return [_ESCAPES.sub("", line) for line in self.text.split("\n")]

    def place(self, line: int) -> str:
        """``FILE, line N`` for a line counted from 1."""
        return f"{self.name}, line {line}"

    def quote(self, line: int) -> str:
        """The text of a line, shortened, for a message."""
        text = self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""
        return repr(text if len(text) <= MOST_QUOTED else text[:MOST_QUOTED] + "...")

    def error(self, message: str, line: int | None = None) -> TopologyError:
        """An error about this file, or about one of its lines."""
        if line is None:
            return TopologyError(f"{self.name}: {message}")
        return TopologyError(f"{self.place(line)}: {message}; the line says {self.quote(line)}")

    def note(self, message: str, line: int | None = None) -> None:
        """Remember one sentence about this file, or about one of its lines; at most a hundred are kept."""
        if len(self.notes) < 100:
            where = self.name if line is None else f"{self.place(line)}, {self.quote(line)}"
            note = f"{where}: {message}"
            if note not in self.notes:
                self.notes.append(note)


def read_source(path: Path) -> Source:
    """The text of a file.

    Raises
    ------
    TopologyError
        Where it cannot be read, is larger than 16 MiB or is no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TopologyError(f"{path}: cannot be read: {error.strerror or error}") from None
    return decode_source(data, str(path))


def decode_source(data: bytes, name: str) -> Source:
    """The text in ``data``: UTF-8, or UTF-16 where it starts with its mark or every other byte is zero."""
    if len(data) > MOST_BYTES:
        raise TopologyError(f"{name}: larger than {MOST_BYTES >> 20} MiB; no topology dump is, so nothing of it was read")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif len(data) >= 4 and data[1:40:2].count(0) > len(data[1:40:2]) // 2:
        encoding = "utf-16-le"
    elif len(data) >= 4 and data[0:40:2].count(0) > len(data[0:40:2]) // 2:
        encoding = "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig" or b"\0" in data:
            raise TopologyError(f"{name}: not text: {error}") from None
        text = data.decode("latin-1")
    if "\0" in text:
        raise TopologyError(f"{name}: not text: it contains zero bytes")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\n") > MOST_LINES:
        raise TopologyError(f"{name}: has more than {MOST_LINES} lines; no topology dump has")
    return Source(name, text)
