"""From a part of an archive to its rows: each file assessed by each bundle.

One file is one pass on one core, as in the service, so that a row depends on nothing but its file
and the job: not on its neighbours, the number of threads, or where it was made.

Does not: find files (``files``), decide anything of them (``assessment``), write rows (``work``) or
know of clusters (``cluster``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from chestxray.archive.files import Item, Reader
from chestxray.archive.rows import Row
from chestxray.assessment import Assessment, Choices, Registry, assess_all
from chestxray.imaging import Limits
from chestxray.inference import Bundle


@dataclass(frozen=True, slots=True)
class Job:
    """What decides a row, apart from the file: the bundles by name, and what is asked of them."""

    bundles: Mapping[str, Bundle]
    choices: Choices


@dataclass(frozen=True, slots=True)
class Part:
    """Some files of an archive, in their order; ``number`` counts the parts from 0."""

    number: int
    items: tuple[Item, ...]


class Scorer:
    """The bundles at work, and the archive that is read: one for a process.

    Raises:
        BundleError: a bundle of the job does not run here.
        UnknownOperatingPointError: a bundle lacks the operating point.
    """

    def __init__(self, job: Job, *, threads: int) -> None:
        self._threads = threads
        self._limits = Limits()
        self._assessors = Registry.of(job.bundles).assessors(choices=job.choices)
        self._reader = Reader(self._limits.max_bytes)

    def rows(self, part: Part) -> Iterator[list[Row]]:
        """For each item a row by each bundle, in their order, as they get done."""
        files = map(self._file, part.items)
        return assess_all(files, self._assessors, _rows, limits=self._limits, threads=self._threads)

    def close(self) -> None:
        self._reader.close()

    def _file(self, item: Item) -> _File:
        return _File(item.path, self._reader.loader(item), self._limits.max_bytes)


@dataclass(slots=True, eq=False)
class _File:
    """Loads a file when it is called, and then knows its SHA-256, unless it is too large."""

    path: str
    load: Callable[[], bytes]
    max_bytes: int
    sha256: str | None = None

    def __call__(self) -> bytes:
        data = self.load()
        if len(data) <= self.max_bytes:
            self.sha256 = hashlib.sha256(data).hexdigest()
        return data


def _rows(file: _File, assessments: list[Assessment]) -> list[Row]:
    return [_row(file, assessment) for assessment in assessments]


def _row(file: _File, assessment: Assessment) -> Row:
    assessor, prediction = assessment.assessor, assessment.prediction
    row = Row(
        path=file.path,
        sha256=file.sha256,
        label=None,
        probability=None,
        operating_point=assessor.policy.operating_point,
        uncertain=None,
        input_check=None,
        input_check_score=None,
        error_code=None,
        warnings="; ".join(assessment.warnings) or None,
        model=assessor.name,
        bundle_sha256=assessor.predictor.bundle_sha256,
    )
    if prediction is not None:
        row = row._replace(
            input_check="accepted" if prediction.input_check.accepted else "refused",
            input_check_score=prediction.input_check.score,
        )
    if assessment.error is not None:
        return row._replace(error_code=assessment.error.code)
    _, answer = assessment.answer
    return row._replace(
        label=answer.label, probability=answer.probability, uncertain=answer.uncertain
    )
