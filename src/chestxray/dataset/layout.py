"""Finds the folder that a data set lies in, its tables and its files.

A data set is often unpacked one folder too deep, in parts (``train``, ``test``), or by a Mac. What
is meant is taken where there is no doubt, and said; otherwise the error says what was found.

Does not: choose among several data sets, or read a file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from chestxray.dataset.litter import is_litter
from chestxray.dataset.remarks import Remarks, counted
from chestxray.errors import DatasetError, EmptyDatasetError

LABELS_TABLE, BOXES_TABLE = "labels.csv", "boxes.csv"
PARTS = frozenset({"train", "val", "test"})
_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".xlsx", ".xls", ".ods"})
_MAX_DEPTH = 4

PASSED_OVER = "hidden files and those of operating systems, passed over"


class Labels(NamedTuple):
    """What radiographs without and with a finding are called: in folders and tables alike."""

    negative: str
    positive: str

    def named(self, written: str) -> str:
        """The label that is written so, in capitals or not; '' for none."""
        return next((label for label in self if label.casefold() == written.casefold()), "")

    def of_folder(self, path: str) -> str:
        """The label whose folder a file lies in, at whatever depth; '' for none."""
        folders = path.split("/")[:-1]
        return next((label for folder in folders if (label := self.named(folder))), "")


def locate(folder: Path, labels: Labels, say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder, in or below ``folder``, that holds the labels' folders or a ``labels.csv``.

    Raises:
        EmptyDatasetError: there is none.
        DatasetError: there are several beside one another.
    """
    level = [folder]
    for _ in range(_MAX_DEPTH):
        found = [place for place in level if _holds_data(place, labels)]
        if len(found) > 1:
            raise DatasetError(_which(folder, found, labels))
        if found:
            if found[0] != folder:
                say(f"{folder} is taken to mean {found[0]}, the one data set below it")
            return found[0]
        level = [below for place in level for below in _folders(place)]
    there = [entry.name for entry in _entries(folder)]
    raise EmptyDatasetError(
        f"{folder} has no files in {labels.negative}/ or {labels.positive}/"
        + (f"; it has: {counted(there)}" if there else "")
    )


def _holds_data(folder: Path, labels: Labels) -> bool:
    return any(
        labels.named(entry.name) if entry.is_dir() else entry.name.casefold() == LABELS_TABLE
        for entry in _entries(folder)
    )


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if _is_kept(entry.name))


def _folders(folder: Path) -> list[Path]:
    may = os.R_OK | os.X_OK
    return [entry for entry in _entries(folder) if entry.is_dir() and os.access(entry, may)]


def _which(folder: Path, found: list[Path], labels: Labels) -> str:
    told = [f"{place.relative_to(folder)}: {_contents(place, labels)}" for place in found]
    example = next((place for place in found if place.name.casefold() == "train"), found[0])
    return (
        f"{folder} holds several data sets: {counted(told)}; "
        f"say which are meant, as in --data {example}"
    )


def _contents(folder: Path, labels: Labels) -> str:
    n = Counter(labels.of_folder(path) for path in files_below(folder, folder, Remarks(folder)))
    return " + ".join(f"{n[label]:,} {label}" for label in labels if n[label]) or LABELS_TABLE


def label_folders(folder: Path, labels: Labels) -> list[tuple[str, Path]]:
    """The labels with their folders directly in ``folder``, in capitals or not."""
    entries = [entry for entry in _entries(folder) if entry.is_dir()]
    return [
        (label, entry) for label in labels for entry in entries if labels.named(entry.name) == label
    ]


def find_table(folder: Path, labels: Labels) -> Path | None:
    """The ``labels.csv`` of a folder, if it has one.

    Raises:
        DatasetError: there is a table that would be passed over: of another kind or name, in a
            label's folder, or beside ``folder``.
    """
    places = (folder, *(place for _, place in label_folders(folder, labels)))
    tables = [
        file
        for place in places
        for file in _entries(place)
        if file.name.casefold().startswith("labels.") and not file.is_dir()
    ]
    right = [t for t in tables if t.parent == folder and t.name.casefold() == LABELS_TABLE]
    if tables and len(right) != 1:  # in a label's folder, labels.xlsx, labels.csv.txt, …
        found = " and ".join(sorted(str(table.relative_to(folder)) for table in tables))
        raise DatasetError(f"{folder} wants one {LABELS_TABLE}, directly in it; it has {found}")
    if right:
        return right[0]
    around = folder.resolve().parent
    beside = _entries(around) if os.access(around, os.R_OK | os.X_OK) else []
    for file in beside:
        if file.stem.casefold() == "labels" and file.suffix.casefold() in _TABLE_SUFFIXES:
            raise DatasetError(
                f"{folder} has no {LABELS_TABLE}, but {around} has {file.name}: "
                f"give that folder, or put the table into {folder.name} as {LABELS_TABLE}"
            )
    return None


def files_below(folder: Path, top: Path, remarks: Remarks) -> Iterator[str]:
    """Paths relative to ``folder`` of the files below ``top``, less what is hidden or was left by a
    system, on which there are ``remarks``."""
    for parent, folders, names in os.walk(top, followlinks=True):
        below = PurePosixPath(Path(parent).relative_to(folder).as_posix())
        for name in sorted(name for name in (*folders, *names) if not _is_kept(name)):
            remarks.add(PASSED_OVER, str(below / name))
        folders[:] = [name for name in folders if _is_kept(name)]
        for name in filter(_is_kept, names):
            if name.casefold() in {LABELS_TABLE, BOXES_TABLE}:
                continue
            if os.path.isfile(f"{parent}/{name}"):  # noqa: PTH113 - thousands of them, and fast
                yield str(below / name)
            else:
                remarks.add("links that lead nowhere, and what else is no file", str(below / name))


def _is_kept(name: str) -> bool:
    return not name.startswith(".") and not is_litter(name)
