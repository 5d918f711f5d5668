"""Lists the samples of a data set: one or several folders, with or without ``labels.csv``.

The truth of a file is the folder of a label that it stands in, or the column ``label``. Its subject
is the column ``patient``, the same in all folders, or follows from its published name (Kermany
2018); without both a file is its own subject. The columns are described in ``docs/data.md``. Files
are identified by the SHA-256 of their bytes.

Does not: pass over a table in silence. One that does not fit its folder is an error.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from chestxray.dataset.file_names import FileNames
from chestxray.dataset.table import Complaints, read_table
from chestxray.errors import DatasetError, EmptyDatasetError

TABLE = "labels.csv"
AGE_BANDS_YEARS = (0, 6, 18, 40, 65)
"""Where the bands begin that ages are reported by."""

_PUBLISHED_NAMES = (
    re.compile(r"person(?P<number>\d+)_(?P<group>bacteria|virus)_"),
    re.compile(r"(?P<group>NORMAL2-IM)-(?P<number>\d+)-"),
    re.compile(r"(?P<group>IM)-(?P<number>\d+)-"),
)
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", TABLE})
_PARTS = frozenset({"train", "val", "test"})
_NOT_GROUPS = frozenset({"file", "patient", "label", "age", ""})
_MAX_VALUES = 20
_WHOLE = re.compile(r"(?<=\d)\.0$")
"""Behind a number that passed through a column with gaps, where pandas makes it a fraction."""
_AGE = re.compile(r"(\d{1,3}(?:[.,]\d+)?)Y?")
_OLDEST_YEARS = 120


class Labels(NamedTuple):
    """What radiographs without and with a finding are called: in folders and tables alike."""

    negative: str
    positive: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One file of a data set.

    ``path`` is relative to its folder, with ``/``; where several folders were read, the folder's
    name comes before it. ``file`` is where it lies. ``truth`` is its label, and ``positive`` says
    which of the two that is. ``subject`` names one patient, ``source`` the place that the file
    comes from. ``view`` is the projection (AP, PA, …) as the table names it.

    ``groups`` is all that a data set can be reported by: ``source``, and where they are known
    ``group`` (``bacteria``, ``virus``, ``IM``, ``NORMAL2-IM``: how published names are numbered),
    ``view``, ``sex``, ``age`` (a band of years) and every other column of few values.
    """

    path: str
    file: Path
    truth: str
    positive: bool
    subject: str
    sha256: str
    source: str
    view: str | None = None
    age_years: float | None = None
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def group(self) -> str | None:
        """How the file's published name is numbered, or the column ``group``."""
        return self.groups.get("group")


def read_dataset(
    folders: Path | Sequence[Path],
    labels: Labels,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> list[Sample]:
    """List the samples of all ``folders``, those of the negative truth first, ordered by path.

    Rows without a label are no samples; ``say`` is told how many there are.

    Raises:
        EmptyDatasetError: no file has a label, or a folder without a column ``label`` has no files
            of one of the two.
        DatasetError: a ``labels.csv`` cannot be read or does not fit its folder, a folder is given
            twice, or all files are of one subject.
    """
    folders = _several(folders)
    found: list[_Found] = []
    for folder, name in zip(folders, _told_apart(folders), strict=True):
        of_it, n_unlabelled = _find(folder, name, labels)
        if not of_it and not n_unlabelled:
            raise EmptyDatasetError(f"{folder} has no files in {labels[0]}/ or {labels[1]}/")
        if n_unlabelled:
            say(f"{folder}: rows of {TABLE} without a label, left out: {n_unlabelled:,}")
        found += of_it
    where = ", ".join(map(str, folders))
    if not found:
        raise EmptyDatasetError(f"{where}: no file is labelled {labels[0]} or {labels[1]}")
    for truth in labels:
        # A folder may be missing or misspelt; a table that labels each file means what it says.
        if not any(each.truth == truth or "label" in each.cells for each in found):
            raise EmptyDatasetError(f"{where} has no files in {truth}/")
    several = len(folders) > 1
    columns = _columns_of_few_values(found)
    samples = [_sample(each, labels, columns, several=several) for each in found]
    if len({sample.subject for sample in samples}) == 1:
        raise DatasetError(f"all {len(samples)} radiographs are of one {samples[0].subject}")
    samples.sort(key=lambda s: (s.positive, s.path.split("/")))
    return samples


def dataset_name(folders: Path | Sequence[Path]) -> str:
    """What a report calls the data set: the names of its folders."""
    return " + ".join(_told_apart(_several(folders)))


def _several(folders: Path | Sequence[Path]) -> Sequence[Path]:
    return [folders] if isinstance(folders, Path) else folders


class _Found(NamedTuple):
    """A file with a truth, and the cells of its row (none without ``labels.csv``)."""

    folder: Path
    name: str
    path: str
    truth: str
    cells: dict[str, str]


def _told_apart(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of the path before them as it takes to tell them apart."""
    whole = [folder.resolve().parts for folder in folders]
    if len(set(whole)) < len(whole):
        twice = next(f for f, parts in zip(folders, whole, strict=True) if whole.count(parts) > 1)
        raise DatasetError(f"{twice} is given twice")
    length = 1
    while len({parts[-length:] for parts in whole}) < len(whole):
        length += 1
    return ["/".join(parts[-length:]) for parts in whole]


def _find(folder: Path, name: str, labels: Labels) -> tuple[list[_Found], int]:
    """The files of a folder that have a truth, and how many rows have none."""
    table = _table_of(folder, labels)
    if table is not None:
        return _find_by_table(folder, name, labels, table)
    return [
        _Found(folder, name, path, truth, {})
        for truth in labels
        for path in _files_below(folder, folder / truth)
    ], 0


def _find_by_table(
    folder: Path, name: str, labels: Labels, table: Path
) -> tuple[list[_Found], int]:
    paths = sorted(_files_below(folder, folder))
    complaints = Complaints(table)
    rows = _rows_of(table, paths, folder.resolve().name, complaints)
    suffixes = {PurePosixPath(path).suffix for path in rows}
    labelled = any("label" in cells for cells in rows.values())
    found, n_unlabelled = [], 0
    for path in paths:
        first, _, below = path.partition("/")
        in_folder = first if below and first in labels else ""
        cells = rows.get(path)
        if cells is None:
            # Pictures of known subjects need no row; other files may be anything.
            if in_folder and _published(path):
                found.append(_Found(folder, name, path, in_folder, {}))
            elif in_folder or (labelled and PurePosixPath(path).suffix in suffixes):
                complaints.add("files without a row", path)
            continue
        told = cells.get("label", in_folder)
        truth = next((t for t in labels if t.casefold() == told.casefold()), told)
        if not truth:
            n_unlabelled += 1
        elif truth not in labels:
            complaints.add(f"labels that are neither {' nor '.join(labels)}", f"{told} of {path}")
        elif in_folder not in {"", truth}:
            complaints.add("files labelled otherwise than their folder", f"{path}: {truth}")
        elif not cells["patient"] and not _published(path):
            complaints.add("rows without a patient", path)
        else:
            found.append(_Found(folder, name, path, truth, cells))
    complaints.raise_any()
    return found, n_unlabelled


def _table_of(folder: Path, labels: Labels) -> Path | None:
    tables = [
        file
        for place in (folder, *(folder / truth for truth in labels))
        for file in (place.iterdir() if place.is_dir() else ())
        if file.name.casefold().startswith("labels.")
    ]
    right = [t for t in tables if t.parent == folder and t.name.casefold() == TABLE]
    if tables and len(right) != 1:  # in a label's folder, labels.xlsx, labels.csv.txt, …
        found = " and ".join(sorted(str(table.relative_to(folder)) for table in tables))
        raise DatasetError(f"{folder} wants one {TABLE}, directly in it; it has {found}")
    return right[0] if right else None


def _files_below(folder: Path, top: Path) -> Iterable[str]:
    """Paths relative to ``folder`` of all files below ``top`` but hidden ones and litter."""
    for parent, folders, names in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if _is_kept(name)]
        below = PurePosixPath(Path(parent).relative_to(folder).as_posix())
        for name in filter(_is_kept, names):
            if os.path.isfile(f"{parent}/{name}"):  # noqa: PTH113 - thousands of them, and fast
                yield str(below / name)


def _is_kept(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in _LITTER


def _rows_of(
    table: Path, paths: Sequence[str], folder: str, complaints: Complaints
) -> dict[str, dict[str, str]]:
    """The cells of each row by the path of its file."""
    names = FileNames(paths, folder)
    rows: dict[str, dict[str, str]] = {}
    for line, cells in read_table(table, required=("file", "patient")):
        written = cells["file"] or f"line {line}"
        meant = names.find(cells["file"])
        if len(meant) > 1:  # a bare name, and the label may say in which folder
            label = cells.get("label", "").casefold()
            meant = [p for p in meant if p.partition("/")[0].casefold() == label] or meant
        if not meant:
            complaints.add("rows without a file", written)
        elif len(meant) > 1:
            complaints.add("rows that may mean several files", written)
        elif meant[0] in rows:
            complaints.add("rows for a file that has one already", written)
        else:
            rows[meant[0]] = cells
    return rows


def _published(path: str) -> re.Match[str] | None:
    name = path.rpartition("/")[2]
    return next((match for names in _PUBLISHED_NAMES if (match := names.match(name))), None)


def _columns_of_few_values(found: Iterable[_Found]) -> list[str]:
    """The columns that radiographs can be grouped by: those of two radiographs a value or more."""
    values: dict[str, list[str]] = defaultdict(list)
    for each in found:
        for column, value in each.cells.items():
            if value and column not in _NOT_GROUPS:
                values[column].append(value)
    always = {"view", "sex", "source"}
    return [
        column
        for column, of_it in values.items()
        if column in always or 2 * len(set(of_it)) <= min(len(of_it), 2 * _MAX_VALUES)
    ]


def _sample(each: _Found, labels: Labels, columns: Sequence[str], *, several: bool) -> Sample:
    path = f"{each.name}/{each.path}" if several else each.path
    file = each.folder / each.path
    name, cells = _published(each.path), each.cells
    if patient := cells.get("patient"):
        subject = f"patient {_WHOLE.sub('', patient)}"
    else:
        subject = f"{name['group']} {int(name['number'])}" if name else path
    age_years = _years(cells.get("age", ""))
    groups = {"group": name["group"]} if name else {}
    groups |= {column: value for column in columns if (value := cells.get(column))}
    source = groups.setdefault("source", _source_of(each.folder, each.name))
    if age_years is not None:
        groups["age"] = _band(age_years)
    return Sample(
        path,
        file,
        each.truth,
        each.truth == labels.positive,
        subject,
        hashlib.sha256(file.read_bytes()).hexdigest(),
        source,
        cells.get("view") or None,
        age_years,
        groups,
    )


def _source_of(folder: Path, name: str) -> str:
    """The name of a data set that comes as several parts is that of the folder around them."""
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name in _PARTS else name


def _years(written: str) -> float | None:
    """An age such as ``55``, ``55.0`` or DICOM's ``055Y``; None for anything else."""
    match = _AGE.fullmatch(written)
    years = float(match[1].replace(",", ".")) if match else None
    return years if years is not None and years <= _OLDEST_YEARS else None


def _band(age_years: float) -> str:
    begin = max(years for years in AGE_BANDS_YEARS if years <= age_years)
    after = next((years for years in AGE_BANDS_YEARS if years > begin), None)
    return f"{begin}+" if after is None else f"{begin}-{after - 1}"
