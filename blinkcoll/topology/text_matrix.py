"""Square tables of GPUs as management tools print them: a line of labels, then a row of cells a label.

Cells are told apart by white space, whatever mix of tabs and blanks, so columns may be shifted, and a row may end early
or in rubbish: what could be read is kept with the line it came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .source import Source

#: A machine has at most so many GPUs and NICs in one table.
MOST_COLUMNS = 192

#: A report repeats a table a few times.
MOST_TABLES = 256

_GPU = re.compile(r"GPU\[?([0-9]{1,4})\]?:?|([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]):?", re.IGNORECASE)
_NIC = re.compile(r"[A-Za-z][\w.:/+-]*[0-9][\w.:/+-]*|[A-Z]{2,12}")


@dataclass
class Matrix:
    """One table. ``cells[a, b]`` is what row a says of column b; ``rest[a]`` is what follows the cells: the fields
    between tabs, empty ones too, or the words where there are no tabs.
    """

    columns: list[str]
    line: int
    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)  # label -> line
    rest: dict[str, list[str]] = field(default_factory=dict)
    rubbish: list[tuple[str, str, int]] = field(default_factory=list)  # row, word, line

    @property
    def gpus(self) -> list[str]:
        """The labels that are GPUs."""
        return [label for label in self.columns if _GPU.fullmatch(label)]


def read_matrices(source: Source, cell: re.Pattern[str], first: int = 0, last: int | None = None) -> list[Matrix]:
    """The tables between two lines whose cells match ``cell``."""
    found: list[Matrix] = []
    open_table: Matrix | None = None
    for number, line in enumerate(source.lines[first:last], first + 1):
        words = _words(line)
        if not words:
            continue
        columns = _header(words, cell)
        if columns:
            open_table = Matrix(columns, number)
        elif open_table is not None and words[0].rstrip(":") in open_table.columns and len(words) > 1:
            if not open_table.rows:
                found.append(open_table)
            _row(open_table, line, words, number, cell)
        if len(found) > MOST_TABLES:
            raise source.error(f"has more than {MOST_TABLES} tables", number)
    return found


def _words(line: str) -> list[str]:
    """The words of a line, without the marks that quoting in a thread puts before them."""
    return re.sub(r"^[\s>|]+", "", line).replace("|", " ").split() if len(line) < 65536 else []


def _header(words: list[str], cell: re.Pattern[str]) -> list[str]:
    """The labels of a header line, or none where the line is something else."""
    if words[0].upper() in ("GPU", "BDF") and len(words) > 1 and _GPU.fullmatch(words[1]):
        words = words[1:]
    if not _GPU.fullmatch(words[0]) or (len(words) > 1 and cell.fullmatch(words[1])):
        return []
    columns: list[str] = []
    for word in words[:MOST_COLUMNS]:
        if word.upper().startswith(("CPU", "NUMA")) or word == "GPU" or not (_GPU.fullmatch(word) or _NIC.fullmatch(word)):
            break
        columns.append(word.rstrip(":"))
    others = [w for w in words[len(columns) :] if not w.upper().startswith(("CPU", "NUMA")) and w.upper() not in ("GPU", "AFFINITY", "ID")]
    gpus = sum(bool(_GPU.fullmatch(column)) for column in columns)
    if others or len(set(columns)) < len(columns) or not all(_GPU.fullmatch(column) for column in columns[:gpus]):
        return []
    return columns


def _row(table: Matrix, line: str, words: list[str], number: int, cell: re.Pattern[str]) -> None:
    label = words[0].rstrip(":")
    if label in table.rows:  # the table again, further down: the first one counts
        return
    table.rows[label] = number
    columns = iter(table.columns)
    read = 0
    for word in words[1:]:
        parts = [word] if cell.fullmatch(word) else _glued(word, cell)
        left = [column for part, column in zip(parts, columns, strict=False)]
        if not left:
            if read < len(table.columns) and not re.fullmatch(r"[0-9,/NA-]+", word):
                table.rubbish.append((label, word, number))
            break
        table.cells.update({(label, column): part for column, part in zip(left, parts, strict=False)})
        read += 1
    fields = line.split("\t")
    table.rest[label] = [f.strip() for f in fields[1 + read :]] if len(fields) > 1 + read else words[1 + read :]


def _glued(word: str, cell: re.Pattern[str]) -> list[str]:
    """The cells of a word in which columns ran together (``NODEPIX``), none where it is something else."""
    if len(word) > 64 or not word[0].isalpha() or not re.fullmatch(f"(?:{cell.pattern}){{2,}}", word, cell.flags):
        return []
    return re.findall(cell.pattern, word, cell.flags)
