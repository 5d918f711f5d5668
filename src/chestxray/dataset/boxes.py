"""Reads where findings are: a table of boxes, such as radiologists draw them.

The columns are ``file``, ``x``, ``y``, ``w``, ``h``, and where they are known ``finding`` and
``source``. A file may have several boxes; a row without numbers is a file without a box.

Does not: know how large a picture is, so a box may reach beyond it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from chestxray.dataset.file_names import FileNames
from chestxray.dataset.layout import BOXES_TABLE
from chestxray.dataset.remarks import Remarks
from chestxray.dataset.samples import Sample
from chestxray.dataset.table import read_table
from chestxray.errors import DatasetError

_SIDES = ("x", "y", "w", "h")


class Box(NamedTuple):
    """Left, top, width and height in pixels of the stored file, and what is in there."""

    x: float
    y: float
    w: float
    h: float
    finding: str


def read_boxes(file: Path, samples: Sequence[Sample]) -> dict[str, list[Box]]:
    """The boxes of those ``samples`` that have any, by ``Sample.path``.

    Rows of a source that no sample is of are passed over, and so are those of files that lie in the
    data set but are not among ``samples``.

    Raises:
        DatasetError: the table cannot be read, names files that are nowhere or boxes that are none,
            or has no box for any sample.
    """
    complaints = Remarks(file)
    places: dict[str, _Place] = {}
    boxes: dict[str, list[Box]] = defaultdict(list)
    for line, cells in read_table(file, required=("file", *_SIDES)):
        source = cells.get("source", "")
        if source not in places:
            places[source] = _Place([s for s in samples if source in {"", s.source}])
        written = cells["file"]
        meant = places[source].names.find(written)
        if len(meant) > 1:
            complaints.add("rows that may mean several files", written)
        elif not meant:
            if places[source].lacks(written):
                complaints.add("rows without a file", written or f"line {line}")
        elif any(cells[side] for side in _SIDES):
            box = _box(cells)
            if box is None:
                complaints.add("rows that are no box", f"line {line}, {written}")
            else:
                boxes[meant[0]].append(box)
    complaints.raise_any()
    if not boxes:
        raise DatasetError(f"{file} has no box for any radiograph of the data that is read")
    return dict(boxes)


def find_boxes(
    folders: Sequence[Path], samples: Sequence[Sample], file: Path | None = None
) -> dict[str, list[Box]] | None:
    """The boxes in ``file``, or in the ``boxes.csv`` in each of ``folders``; None where there is
    none.

    Raises:
        DatasetError: see ``read_boxes``; or a table of another kind would be passed over.
    """
    if file is not None:
        return read_boxes(file, samples)
    boxes: dict[str, list[Box]] = {}
    found = False
    for folder in folders:
        of_it = [sample for sample in samples if sample.file.is_relative_to(folder)]
        for table in _tables(folder, of_it):
            boxes |= read_boxes(table, of_it)
            found = True
    return boxes if found else None


def _tables(folder: Path, samples: Sequence[Sample]) -> list[Path]:
    """The tables of boxes in ``folder``, and on the way to its samples."""
    lie_in = {sample.file.parent for sample in samples}
    places = {place for each in lie_in for place in (each, *each.parents)} | {folder}
    tables = [
        file
        for place in sorted(place for place in places if place.is_relative_to(folder))
        for file in place.iterdir()
        if file.name.casefold().startswith("boxes.") and file.is_file()
    ]
    for table in tables:
        if table.name.casefold() != BOXES_TABLE:
            raise DatasetError(f"{table.parent} has {table.name}: boxes want a {BOXES_TABLE}")
    return tables


class _Place:
    """The samples of one source, and the folders that they lie in."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.names = FileNames(sample.path for sample in samples)
        self._folders = {
            folder for s in samples for folder in s.file.parents[: len(s.path.split("/"))]
        }

    def lacks(self, written: str) -> bool:
        """Whether the samples' folders, if there are any, hold no such file."""
        path = written.replace("\\", "/")
        there = bool(path) and any((folder / path).is_file() for folder in self._folders)
        return bool(self._folders) and not there


def _box(cells: dict[str, str]) -> Box | None:
    try:
        x, y, w, h = (float(cells[side].replace(",", ".")) for side in _SIDES)
    except ValueError:
        return None
    if not all(map(math.isfinite, (x, y, w, h))) or min(x, y) < 0 or min(w, h) <= 0:
        return None
    return Box(x, y, w, h, cells.get("finding", ""))
