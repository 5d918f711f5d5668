"""Reads the tables beside radiographs as spreadsheets and scripts save them, or says what is wrong.

UTF-8 with or without a byte order mark, and UTF-16 (Excel's "Unicode text"); cells parted by comma,
semicolon, tab or bar. Names of columns are read in lower case, and cells without blanks around
them.

Does not: know what a table says (``labelled`` and ``boxes`` do).
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from chestxray.dataset.encoding import encoding_of
from chestxray.errors import DatasetError

_DELIMITERS = ",;\t|"
_NOTHING = frozenset({"", "nan", "none", "null", "n/a", "na", "unknown", "?", "-"})
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?[;,\t]*\s*', re.IGNORECASE)
"""What Excel may have in the first line, to be told the delimiter by."""


class Row(NamedTuple):
    """A row of a table, and the line of the file that it ends on.

    ``cells`` has every column with a name, in the order of the table; a cell that says nothing
    (``nan``, ``unknown``, …) is empty.
    """

    line: int
    cells: dict[str, str]


def read_table(file: Path, required: Iterable[str]) -> list[Row]:
    """The rows of a table that has at least the ``required`` columns; empty rows are passed over.

    Raises:
        DatasetError: not in a known encoding, no such columns, cells that belong to no column, or
            no rows.
    """
    required = list(required)
    text = io.StringIO(_decoded(file), newline="")
    n_before, delimiter = _header(text, required)
    lines = csv.reader(text, delimiter=delimiter, strict=True)
    rows = []
    try:
        columns = [cell.strip().casefold() for cell in next(lines, [])]
        _check_columns(file, columns, required)
        for cells in lines:
            line = n_before + lines.line_num
            told = [_said(cell) for cell in cells]
            if any(told[len(columns) :]):
                raise DatasetError(f"{file}: line {line} has more cells than columns")
            if any(told):
                told += [""] * (len(columns) - len(told))
                named = {name: cell for name, cell in zip(columns, told, strict=False) if name}
                rows.append(Row(line, named))
    except csv.Error as exc:
        raise DatasetError(f"{file}: line {n_before + lines.line_num}: {exc}") from exc
    if not rows:
        raise DatasetError(f"{file} has no rows below its header")
    return rows


def _header(text: io.StringIO, required: Iterable[str]) -> tuple[int, str]:
    """How many lines stand before the header, which is read next, and what parts its cells."""
    for number, line in enumerate(iter(text.readline, "")):
        if number == 0 and (told := _SEPARATOR_LINE.fullmatch(line)):
            return 1, told[1]
        if line.strip(f"{_DELIMITERS} \r\n"):
            text.seek(text.tell() - len(line))
            return number, max(_DELIMITERS, key=lambda delimiter: _fits(line, delimiter, required))
    return 0, ","


def _fits(header: str, delimiter: str, required: Iterable[str]) -> tuple[int, int]:
    cells = {cell.strip(' "\r\n').casefold() for cell in header.split(delimiter)}
    return sum(name in cells for name in required), header.count(delimiter)


def _decoded(file: Path) -> str:
    raw = file.read_bytes()
    encoding = encoding_of(raw)
    name = encoding.removesuffix("-sig").upper()
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise DatasetError(
            f"{file}: byte {exc.start:,} in line {line:,} is not {name}: save the table as UTF-8"
        ) from exc
    if "\0" in text:
        at = raw.index(b"\0")
        raise DatasetError(
            f"{file} is no table of text (byte {at:,} is NUL): save it as CSV in UTF-8"
        )
    return text.lstrip("\ufeff")  # scripts that put a mark before a mark


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
