"""Reads the tables beside radiographs as spreadsheets and scripts save them, or says what is wrong.

UTF-8 with or without a byte order mark, and UTF-16 (Excel's "Unicode text"); cells parted by comma,
semicolon or tab. Names of columns are read in lower case, and cells without blanks around them.

Does not: guess a national code page, in which any bytes at all have a meaning.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from chestxray.errors import DatasetError

_DELIMITERS = ",;\t"
_NOTHING = frozenset({"", "nan", "none", "null", "n/a", "na", "unknown", "?", "-"})
_N_NAMED = 3


class Row(NamedTuple):
    """A row of a table, and the line of the file that it ends on.

    ``cells`` has every column, in the order of the table; a cell that says nothing (``nan``,
    ``unknown``, …) is empty.
    """

    line: int
    cells: dict[str, str]


def read_table(file: Path, required: Iterable[str]) -> list[Row]:
    """The rows of a table that has at least the ``required`` columns; empty rows are passed over.

    Raises:
        DatasetError: not in a known encoding, no such columns, or cells that belong to no column.
    """
    text = _decoded(file)
    delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        columns = [cell.strip().casefold() for cell in next(lines, [])]
        _check_columns(file, columns, required)
        for cells in lines:
            told = [_said(cell) for cell in cells]
            if any(told[len(columns) :]):
                raise DatasetError(f"{file}: line {lines.line_num} has more cells than columns")
            if any(told):
                told += [""] * (len(columns) - len(told))
                rows.append(Row(lines.line_num, dict(zip(columns, told, strict=False))))
    except csv.Error as exc:
        raise DatasetError(f"{file}: line {lines.line_num}: {exc}") from exc
    return rows


def _decoded(file: Path) -> str:
    raw = file.read_bytes()
    encoding, name = "utf-8-sig", "UTF-8"
    if raw[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        encoding = name = "UTF-16"
    elif b"\0" in raw[:2]:  # an ASCII letter in two bytes, and no byte order mark
        encoding = name = "UTF-16-BE" if raw[0] == 0 else "UTF-16-LE"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise DatasetError(f"{file}: line {line} is not {name}: save the table as UTF-8") from exc
    if "\0" in text:
        raise DatasetError(f"{file} is no table of text: save it as CSV in UTF-8")
    return text


def _check_columns(file: Path, columns: list[str], required: Iterable[str]) -> None:
    if missing := [name for name in required if name not in columns]:
        there = ", ".join(columns) or "none"
        raise DatasetError(f"{file} lacks the columns {' and '.join(missing)}; it has {there}")
    twice = [name for name, n in Counter(columns).items() if name and n > 1]
    if twice:
        raise DatasetError(f"{file} has several columns {', '.join(twice)}")


def _said(cell: str) -> str:
    cell = cell.strip()
    return "" if cell.casefold() in _NOTHING else cell


class Complaints:
    """What is wrong with a table: counted, and the first few named, in one error."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._named: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, name: str) -> None:
        """``what`` in the plural, of which ``name`` is one."""
        self._named[what].append(name)

    def raise_any(self) -> None:
        """Raises DatasetError if there was a complaint."""
        if self._named:
            told = "; ".join(f"{what}: {_counted(names)}" for what, names in self._named.items())
            raise DatasetError(f"{self._file}: {told}")


def _counted(names: list[str]) -> str:
    more = ", …" if len(names) > _N_NAMED else ""
    return f"{len(names)} ({', '.join(names[:_N_NAMED])}{more})"
