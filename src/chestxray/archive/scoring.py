"""From a part of an archive to its rows: read, predict, one row a file.

One file is one pass on one core, as in the service, so that a row depends on nothing but its file
and the job: not on its neighbours, the number of threads, or where it was made.

Does not: find files (``files``), write rows (``work``) or know of clusters (``cluster``).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from chestxray.archive.files import Item, Reader
from chestxray.archive.rows import Row
from chestxray.errors import (
    CannotOpenError,
    LimitError,
    NotAChestRadiographError,
    RefusedError,
    UnreadableError,
)
from chestxray.imaging import Limits, read
from chestxray.inference import Predictor
from chestxray.inference.bundle import Bundle

AHEAD = 4
"""Files that wait for each thread: enough that none is idle while a large one is at work."""


@dataclass(frozen=True, slots=True)
class Job:
    """What decides a row, apart from the file.

    ``input_check`` says what becomes of a picture that is no chest radiograph: ``refuse`` gives it
    no label, ``warn`` gives it both.
    """

    bundle: Bundle
    operating_point: str
    input_check: Literal["refuse", "warn"]


@dataclass(frozen=True, slots=True)
class Part:
    """Some files of an archive, in their order; ``number`` counts the parts from 0."""

    number: int
    items: tuple[Item, ...]


class Scorer:
    """A predictor, its threads and the archive it is reading: one for a process.

    Raises:
        BundleError: the job's bundle does not run here.
    """

    def __init__(self, job: Job, *, threads: int) -> None:
        self._job, self._threads = job, threads
        self._limits = Limits()
        self._predictor = Predictor.of(job.bundle)
        self._reader = Reader(self._limits.max_bytes)
        self._pool = ThreadPoolExecutor(threads)

    def rows(self, part: Part) -> Iterator[Row]:
        """A row for each item, in their order, as they get done."""
        pending: deque[Future[Row]] = deque()
        for item in part.items:
            pending.append(self._pool.submit(self._row, item, self._reader.loader(item)))
            if len(pending) > AHEAD * self._threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._reader.close()

    def _row(self, item: Item, load: Callable[[], bytes]) -> Row:
        sha256 = None
        try:
            data = load()
            if len(data) <= self._limits.max_bytes:
                sha256 = hashlib.sha256(data).hexdigest()
            radiograph = read(data, self._limits)
        except (CannotOpenError, UnreadableError, LimitError, RefusedError) as exc:
            return self._unjudged(item, sha256)._replace(error_code=exc.code)
        (prediction,) = self._predictor.predict([radiograph], self._job.operating_point)
        checked = self._unjudged(item, sha256)._replace(
            input_check="accepted" if prediction.input_check.accepted else "refused",
            input_check_score=prediction.input_check.score,
            warnings="; ".join(prediction.warnings) or None,
        )
        if not prediction.input_check.accepted and self._job.input_check == "refuse":
            return checked._replace(error_code=NotAChestRadiographError.code)
        return checked._replace(
            label=prediction.label,
            probability=prediction.probability,
            uncertain=prediction.uncertain,
        )

    def _unjudged(self, item: Item, sha256: str | None) -> Row:
        return Row(
            path=item.path,
            sha256=sha256,
            label=None,
            probability=None,
            operating_point=self._job.operating_point,
            uncertain=None,
            input_check=None,
            input_check_score=None,
            error_code=None,
            warnings=None,
            bundle_sha256=self._predictor.bundle_sha256,
        )
