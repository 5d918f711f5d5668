"""Lists the samples of a data set: one or several folders, with or without ``labels.csv``.

The truth of a file is the folder of a label that it stands in, or the column ``label``. Its subject
is the column ``patient``, the same in all folders, or follows from its published name (Kermany
2018); without both a file is its own subject. The columns are described in ``docs/data.md``. Files
are identified by the SHA-256 of their bytes.

Does not: decode a file, or know whether it is a radiograph.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from chestxray.dataset.labelled import Cells, list_labelled, published
from chestxray.dataset.layout import PARTS, Labels, locate
from chestxray.dataset.remarks import Remarks, counted
from chestxray.errors import DatasetError, EmptyDatasetError

AGE_BANDS_YEARS = (0, 6, 18, 40, 65)
"""Where the bands begin that ages are reported by."""

_NOT_GROUPS = frozenset({"file", "patient", "label", "age"})
_MAX_VALUES = 20
_WHOLE = re.compile(r"(\d+)[.,]0+")
"""A number that passed through a column with gaps, where pandas makes it a fraction."""
_AGE = re.compile(r"(\d{1,3}(?:[.,]\d+)?)Y?")
_OLDEST_YEARS = 120


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

    ``say`` is told what is no sample: rows without a label, what systems leave behind, files that
    cannot be opened; and where the data set lies, if that is below a folder.

    Raises:
        EmptyDatasetError: no file has a label, or a folder without a column ``label`` has no files
            of one of the two.
        DatasetError: a folder holds several data sets, a ``labels.csv`` cannot be read or does not
            fit its folder, a folder is given twice, or all files are of one subject.
    """
    places = [locate(folder, labels, say) for folder in _several(folders)]
    found = [
        _Found(folder, name, *each)
        for folder, name in zip(places, _told_apart(places), strict=True)
        for each in list_labelled(folder, labels, say)
    ]
    samples = _samples(found, labels, say, several=len(places) > 1)
    where = ", ".join(map(str, places))
    if not samples:
        raise EmptyDatasetError(f"{where}: no file is labelled {labels[0]} or {labels[1]}")
    for truth in labels:
        # A folder may be missing or misspelt; a table that labels each file means what it says.
        if not any(s.truth == truth for s in samples) and not any(
            "label" in f.cells for f in found
        ):
            raise EmptyDatasetError(f"{where} has no files in {truth}/")
    if len({sample.subject for sample in samples}) == 1:
        raise DatasetError(f"all {len(samples)} radiographs are of one {samples[0].subject}")
    if contradictions := _contradictions(samples):
        say(f"{where}: files equal to the byte under both labels: {counted(contradictions)}")
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
    cells: Cells


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


def _samples(
    found: Sequence[_Found], labels: Labels, say: Callable[[str], None], *, several: bool
) -> list[Sample]:
    """The files as samples, less those that cannot be opened."""
    columns = _columns_of_few_values(found)
    samples, spellings = [], dict[str, str]()
    unopened: dict[Path, Remarks] = {each.folder: Remarks(each.folder) for each in found}
    for each in found:
        try:
            samples.append(_sample(each, labels, columns, spellings, several=several))
        except OSError as exc:
            unopened[each.folder].add(
                "files that cannot be opened, left out", f"{each.path}: {exc.strerror}"
            )
    for remarks in unopened.values():
        remarks.tell(say)
    return samples


def _sample(
    each: _Found,
    labels: Labels,
    columns: Sequence[str],
    spellings: dict[str, str],
    *,
    several: bool,
) -> Sample:
    path = f"{each.name}/{each.path}" if several else each.path
    file = each.folder / each.path
    name, cells = published(each.path), each.cells
    if patient := cells.get("patient"):
        subject = f"patient {_patient(patient, spellings)}"
    else:
        subject = f"{name['group']} {int(name['number'])}" if name else path
    age_years = _years(cells.get("age", ""))
    groups = {"group": name["group"]} if name else {}
    groups |= {column: value for column in columns if (value := cells.get(column))}
    source = groups.setdefault("source", _source_of(each.folder, each.name))
    if age_years is not None:
        groups["age"] = _band(age_years)
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return Sample(
        path,
        file,
        each.truth,
        each.truth == labels.positive,
        subject,
        sha256,
        source,
        cells.get("view") or None,
        age_years,
        groups,
    )


def _patient(written: str, spellings: dict[str, str]) -> str:
    """One spelling for all that mean the same patient, the first that was met: ``17``, ``017`` and
    ``17.0``; ``p 17`` and ``P  17``. Whoever is kept together in error leaks nothing."""
    spelt = " ".join(unicodedata.normalize("NFKC", written).split())
    if whole := _WHOLE.fullmatch(spelt):
        spelt = whole[1]
    key = spelt.casefold()
    return spellings.setdefault((key.lstrip("0") or "0") if key.isdecimal() else key, spelt)


def _contradictions(samples: Iterable[Sample]) -> list[str]:
    truths: dict[str, set[bool]] = defaultdict(set)
    for sample in samples:
        truths[sample.sha256].add(sample.positive)
    return [sample.path for sample in samples if len(truths[sample.sha256]) > 1]


def _source_of(folder: Path, name: str) -> str:
    """The name of a data set that comes as several parts is that of the folder around them."""
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name.casefold() in PARTS else name


def _years(written: str) -> float | None:
    """An age such as ``55``, ``55.0`` or DICOM's ``055Y``; None for anything else."""
    match = _AGE.fullmatch(written)
    years = float(match[1].replace(",", ".")) if match else None
    return years if years is not None and years <= _OLDEST_YEARS else None


def _band(age_years: float) -> str:
    begin = max(years for years in AGE_BANDS_YEARS if years <= age_years)
    after = next((years for years in AGE_BANDS_YEARS if years > begin), None)
    return f"{begin}+" if after is None else f"{begin}-{after - 1}"
