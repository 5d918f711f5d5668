"""A row of the result: what one bundle says of one file, and how it stands in CSV and in Parquet.

Does not: make rows (``scoring`` does), or import pyarrow before Parquet is asked for.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

CSV_ENCODING = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
"""A name that is no UTF-8 keeps its bytes as ``\\udc80`` …"""

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""What a spreadsheet would take for a formula, and what already looks as it does when it is kept
from that by a quotation mark: so the mark can be taken off again."""

_FLOATS, _TRUTH_VALUES = ("probability", "input_check_score"), ("uncertain",)


class Row(NamedTuple):
    """One file and one bundle. What is not known is None: empty in CSV, null in Parquet.

    ``label`` and ``probability`` are of who was judged; ``input_check`` is ``accepted`` or
    ``refused`` for what could be read, ``input_check_score`` in [0, 1] how like a chest radiograph
    it is. ``error_code`` says why there is no label (``errors``). ``warnings`` are separated by
    ``; ``. ``sha256`` is of the file's bytes, unless it is too large to be read. ``model`` is the
    bundle's name, ``bundle_sha256`` its identity.
    """

    path: str
    sha256: str | None
    label: str | None
    probability: float | None
    operating_point: str
    uncertain: bool | None
    input_check: str | None
    input_check_score: float | None
    error_code: str | None
    warnings: str | None
    model: str
    bundle_sha256: str


def outcome(rows: Iterable[Row]) -> str:
    """How a file ended, by its rows: '' if any bundle answered it, else the first error code."""
    codes = [row.error_code or "" for row in rows]
    return "" if "" in codes else codes[0]


def write_csv(rows: Iterable[Row], file: IO[str]) -> None:
    """Rows as CSV, without the header; truth values as ``true`` and ``false``.

    A text that a spreadsheet would compute has a ``'`` before it, which ``read_csv`` takes off.
    Lines end in CR LF, as RFC 4180 has it; only then does ``csv`` quote both of them in a name.
    """
    csv.writer(file).writerows([_csv_cell(value) for value in row] for row in rows)


def read_csv(file: Path) -> Iterator[Row]:
    """The rows of a part in CSV."""
    with file.open(**CSV_ENCODING) as lines:  # type: ignore[call-overload] # the stub wants literals
        for cells in csv.reader(lines):
            yield Row(*map(_value, Row._fields, cells))


def header() -> str:
    return ",".join(Row._fields) + "\r\n"


def csv_to_parquet(parts: Iterable[Path], out: Path) -> None:
    """Parts in CSV → one Parquet file with a row group for each."""
    import pyarrow as pa  # noqa: PLC0415 - comes with an extra
    from pyarrow import parquet  # noqa: PLC0415

    types: dict[str, Any] = dict.fromkeys(Row._fields, pa.string())
    types |= dict.fromkeys(_FLOATS, pa.float64()) | dict.fromkeys(_TRUTH_VALUES, pa.bool_())
    schema = pa.schema(types)
    with parquet.ParquetWriter(out, schema) as writer:
        for part in parts:
            rows = [row._asdict() for row in read_csv(part)]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _csv_cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"  # or a spreadsheet would compute what a file's name says
    return value


def _value(field: str, cell: str) -> Any:
    if not cell:
        return None
    if field in _FLOATS:
        return float(cell)
    if field in _TRUTH_VALUES:
        return cell == "true"
    return cell[1:] if cell[0] == "'" and _FORMULA.match(cell) else cell
