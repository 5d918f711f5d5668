"""Lists the samples of a folder: truth, subject, group, duplicates, and subject-disjoint splits.

A data set is a folder with a folder for each of two labels: radiographs without and with a finding.
The subject of a file follows from its published name (Kermany 2018) or from a ``labels.csv`` beside
the two with the columns ``file`` and ``patient``; a file of any other name is its own subject. An
optional column ``view`` (AP, PA, …) goes with the sample. Files are identified by the SHA-256 of
their bytes; exact duplicates tie their subjects together, so no split can part them.

Does not: decode an image, or judge whether a file is one (``imaging`` does).
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from chestxray.errors import DatasetError, EmptyDatasetError, LeakError

_PUBLISHED_NAMES = (
    re.compile(r"person(?P<number>\d+)_(?P<group>bacteria|virus)_"),
    re.compile(r"(?P<group>NORMAL2-IM)-(?P<number>\d+)-"),
    re.compile(r"(?P<group>IM)-(?P<number>\d+)-"),
)


class Labels(NamedTuple):
    """What radiographs without and with a finding are called: the folders of a data set."""

    negative: str
    positive: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One file of a data set.

    ``path`` is relative to the data set's folder, with ``/``; ``file`` is where it lies. ``truth``
    is the label of its folder, and ``positive`` says which of the two that is. ``subject`` names
    one patient; ``group`` is ``bacteria``, ``virus``, ``IM``, ``NORMAL2-IM`` or None; ``view`` is
    the projection (AP, PA, …) where ``labels.csv`` names it.
    """

    path: str
    file: Path
    truth: str
    positive: bool
    subject: str
    group: str | None
    sha256: str
    view: str | None = None


def read_dataset(folder: Path, truths: Labels) -> list[Sample]:
    """List the samples below ``folder``, those of the negative truth first, ordered by path.

    Raises:
        EmptyDatasetError: a truth has no file, or there is no such folder.
        DatasetError: ``labels.csv`` lacks the columns ``file`` and ``patient``.
    """
    labels = _read_labels(folder)
    samples = []
    for truth in truths:
        files = [f for f in sorted((folder / truth).rglob("*")) if _is_sample(f, folder)]
        if not files:
            raise EmptyDatasetError(f"{folder} has no files in {truth}/")
        for file in files:
            path = file.relative_to(folder).as_posix()
            subject, group = _subject_of(path, labels)
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            view = labels.get(path, {}).get("view") or None
            positive = truth == truths.positive
            samples.append(Sample(path, file, truth, positive, subject, group, sha256, view))
    return samples


def _is_sample(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden and file.name != "labels.csv"


def _read_labels(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of ``labels.csv`` by path; none where there is no such file."""
    table = folder / "labels.csv"
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        if not {"file", "patient"} <= set(rows.fieldnames or ()):
            raise DatasetError(f"{table} lacks the columns file and patient")
        return {row["file"]: row for row in rows}


def _subject_of(path: str, labels: dict[str, dict[str, str]]) -> tuple[str, str | None]:
    if path in labels:
        return f"patient {labels[path]['patient']}", None
    name = path.rsplit("/", 1)[-1]
    for pattern in _PUBLISHED_NAMES:
        if match := pattern.match(name):
            return f"{match['group']} {int(match['number'])}", match["group"]
    return path, None


def duplicates(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Sets of two or more samples whose files are equal to the byte."""
    same: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        same[sample.sha256].append(sample)
    return [copies for copies in same.values() if len(copies) > 1]


def inseparable(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples that must stay together: of one subject, or of subjects that share a duplicate."""
    parent = {sample.subject: sample.subject for sample in samples}

    def root(subject: str) -> str:
        while parent[subject] != subject:
            subject = parent[subject] = parent[parent[subject]]
        return subject

    for copies in duplicates(samples):
        for copy in copies[1:]:
            parent[root(copy.subject)] = root(copies[0].subject)
    clusters: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        clusters[root(sample.subject)].append(sample)
    return list(clusters.values())


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides of a subject-disjoint split."""

    train: list[Sample]
    heldout: list[Sample]

    def __post_init__(self) -> None:
        check_disjoint(self.train, self.heldout)


def check_disjoint(train: Iterable[Sample], heldout: Iterable[Sample]) -> None:
    """Raises LeakError if a subject or an exact duplicate stands on both sides."""
    train, heldout = list(train), list(heldout)
    for what in ("subject", "sha256"):
        shared = {getattr(s, what) for s in train} & {getattr(s, what) for s in heldout}
        if shared:
            raise LeakError(f"{len(shared)} {what}(s) on both sides of the split: {min(shared)}, …")


def split_folds(samples: Sequence[Sample], n_folds: int, seed: int) -> list[Split]:
    """``n_folds`` subject-disjoint splits in which every sample is held out once.

    Clusters are dealt out in random order, the biggest first, within each (truth, group), each to
    the fold that has the fewest samples of that kind, so that folds are alike in size and mix.
    """
    dealt = _deal(samples, [1.0 / n_folds] * n_folds, seed)
    return [
        Split([s for other in dealt if other is not fold for s in other], fold) for fold in dealt
    ]


def split_heldout(samples: Sequence[Sample], heldout: float, seed: int) -> Split:
    """One subject-disjoint split with about a share ``heldout`` of each (truth, group) held out."""
    train, held = _deal(samples, [1.0 - heldout, heldout], seed)
    return Split(train, held)


def _deal(samples: Sequence[Sample], shares: list[float], seed: int) -> list[list[Sample]]:
    strata: dict[tuple[str, str], list[list[Sample]]] = defaultdict(list)
    for cluster in inseparable(sorted(samples, key=lambda s: s.path)):
        strata[cluster[0].truth, cluster[0].group or ""].append(cluster)
    hands: list[list[Sample]] = [[] for _ in shares]
    generator = random.Random(seed)  # noqa: S311 - reproducible, not secret
    for _, clusters in sorted(strata.items()):
        generator.shuffle(clusters)
        clusters.sort(key=len, reverse=True)
        filled = [0] * len(shares)
        for cluster in clusters:
            emptiest = min(range(len(shares)), key=lambda i: filled[i] / shares[i])
            filled[emptiest] += len(cluster)
            hands[emptiest].extend(cluster)
    for hand in hands:
        if {s.positive for s in hand} != {False, True}:
            raise DatasetError("too few subjects: one side of the split would lack a truth")
        hand.sort(key=lambda s: s.path)
    return hands


def write_split(split: Split, file: Path) -> None:
    """Write a split as JSON: the paths of both sides with the SHA-256 of each file."""
    sides = {"train": split.train, "heldout": split.heldout}
    listed = {side: {s.path: s.sha256 for s in group} for side, group in sides.items()}
    file.write_text(json.dumps(listed, indent=0) + "\n", encoding="utf-8")


def read_split(file: Path, samples: Sequence[Sample]) -> Split:
    """Read a split back and find its samples.

    Raises:
        DatasetError: ``samples`` are not the ones that were split, or the file is no split.
        LeakError: somebody changed the file so that its sides share a subject.
    """
    known = {sample.path: sample for sample in samples}
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        sides = {side: [known[path] for path in listed[side]] for side in ("train", "heldout")}
    except (OSError, ValueError, TypeError) as exc:
        raise DatasetError(f"{file} is no split that can be read") from exc
    except KeyError as exc:
        raise DatasetError(f"{file} names {exc}, which the data set does not have") from exc
    for side, group in sides.items():
        changed = [sample.path for sample in group if listed[side][sample.path] != sample.sha256]
        if changed:
            raise DatasetError(f"{changed[0]} is not the file that was split")
    return Split(sides["train"], sides["heldout"])
