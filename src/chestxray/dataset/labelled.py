"""Lists the files of a folder that have a label: by the folders that they lie in, or by a table.

The columns of ``labels.csv`` are described in ``docs/data.md``.

Does not: pass over a table in silence. One that does not fit its folder is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from chestxray.dataset.file_names import FileNames
from chestxray.dataset.layout import LABELS_TABLE, Labels, files_below, find_table, label_folders
from chestxray.dataset.remarks import Remarks
from chestxray.dataset.table import read_table
from chestxray.errors import EmptyDatasetError

_PUBLISHED_NAMES = (
    re.compile(r"person(?P<number>\d+)_(?P<group>bacteria|virus)_"),
    re.compile(r"(?P<group>NORMAL2-IM)-(?P<number>\d+)-"),
    re.compile(r"(?P<group>IM)-(?P<number>\d+)-"),
)
_ROUNDED = re.compile(r"\d+([.,]\d+)?E\+?\d+", re.IGNORECASE)
"""What a spreadsheet makes of a long number, so that several patients become one."""

Cells = dict[str, str]


class Labelled(NamedTuple):
    """A file with a truth, and the cells of its row (none without ``labels.csv``)."""

    path: str
    truth: str
    cells: Cells


def list_labelled(folder: Path, labels: Labels, say: Callable[[str], None]) -> list[Labelled]:
    """The files of ``folder`` that have a label; ``say`` is told what was left out.

    Raises:
        EmptyDatasetError: there is no table, and no file in a label's folder.
        DatasetError: a ``labels.csv`` cannot be read or does not fit the folder.
    """
    table = find_table(folder, labels)
    left_out = Remarks(folder)
    if table is not None:
        found = _by_table(folder, labels, table, left_out, say)
    else:
        found = _by_folder(folder, labels, left_out)
        n_unknown = sum(published(path) is None for path, *_ in found)
        if n_unknown:
            say(
                f"{folder}: without a {LABELS_TABLE} each of {n_unknown:,} files "
                "is taken for a patient of its own"
            )
    left_out.tell(say)
    return found


def published(path: str) -> re.Match[str] | None:
    """The ``group`` and ``number`` in a file's name, if it is one of Kermany's."""
    name = path.rpartition("/")[2]
    return next((match for names in _PUBLISHED_NAMES if (match := names.match(name))), None)


def _by_folder(folder: Path, labels: Labels, left_out: Remarks) -> list[Labelled]:
    found = [
        Labelled(path, truth, {})
        for truth, top in label_folders(folder, labels)
        for path in files_below(folder, top, left_out)
    ]
    if not found:
        raise EmptyDatasetError(
            f"{folder} has no files in {labels.negative}/ or {labels.positive}/"
        )
    return found


def _by_table(
    folder: Path, labels: Labels, table: Path, left_out: Remarks, say: Callable[[str], None]
) -> list[Labelled]:
    paths = sorted(files_below(folder, folder, left_out))
    complaints = Remarks(table)
    rows, kinds = _rows_of(table, paths, folder.resolve().name, labels, complaints)
    table_labels = any("label" in cells for cells in rows.values())
    found, n_unlabelled = [], 0
    for path in paths:
        in_folder, cells = labels.of_folder(path), rows.get(path)
        if cells is not None:
            if truth := _truth(path, cells, labels, complaints):
                found.append(Labelled(path, truth, cells))
            else:
                n_unlabelled += 1
        elif in_folder and published(path):  # its subject is known
            found.append(Labelled(path, in_folder, {}))
        elif (in_folder or table_labels) and _kind(path) in kinds:
            complaints.add("files without a row", path)
        elif in_folder:
            left_out.add("files of a kind that no row names, left out", path)
    complaints.raise_any()
    if n_unlabelled:
        say(f"{folder}: rows of {LABELS_TABLE} without a label, left out: {n_unlabelled:,}")
    return found


def _truth(path: str, cells: Cells, labels: Labels, complaints: Remarks) -> str:
    """What a row says of a file, or its folder where there is no such column; '' for nothing."""
    in_folder, patient = labels.of_folder(path), cells["patient"]
    told = cells.get("label", in_folder)
    truth = labels.named(told)
    if told and not truth:
        complaints.add(f"labels that are neither {' nor '.join(labels)}", f"{told} of {path}")
    elif truth and in_folder not in {"", truth}:
        complaints.add("files labelled otherwise than their folder", f"{path}: {truth}")
    elif truth and not patient and not published(path):
        complaints.add("rows without a patient", path)
    elif truth and _ROUNDED.fullmatch(patient):
        complaints.add("patients that a spreadsheet has rounded", f"{patient} of {path}")
    return truth


def _rows_of(
    table: Path, paths: Sequence[str], folder: str, labels: Labels, complaints: Remarks
) -> tuple[dict[str, Cells], set[str]]:
    """The cells of each row by the path of its file, and how the files end that rows name."""
    names = FileNames(paths, folder)
    rows: dict[str, Cells] = {}
    kinds: set[str] = set()
    for line, cells in read_table(table, required=("file", "patient")):
        written = cells["file"] or f"line {line}"
        meant = names.find(cells["file"])
        if len(meant) > 1 and "label" in cells:  # a bare name: the label may say in which folder
            label = labels.named(cells["label"])
            meant = [path for path in meant if labels.of_folder(path) == label] or meant
        kinds.update(map(_kind, meant or [written]))
        if not meant:
            complaints.add("rows without a file", written)
        elif len(meant) > 1:
            complaints.add("rows that may mean several files", written)
        elif meant[0] in rows:
            complaints.add("rows for a file that has one already", written)
        else:
            rows[meant[0]] = cells
    return rows, kinds


def _kind(path: str) -> str:
    return PurePosixPath(path).suffix.casefold()
