"""From a file to what is decided of it: bytes → radiograph → prediction → policy → assessment.

The one way for the service, the command line, the node, archives and evaluation. A file is decoded
once for all bundles that are asked (once for each size that they want), and each of them assesses
it alone, so that no answer depends on other bundles or other files.

Does not: read files from disk, or make an answer of an assessment (its callers do).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from chestxray.assessment.decoding import (
    DEFAULT_LIMITS,
    THREADS_MEMORY_BYTES,
    Decoded,
    MemoryBudget,
    opened,
)
from chestxray.assessment.policy import Policy
from chestxray.errors import (
    CannotOpenError,
    ChestXrayError,
    LimitError,
    RefusedError,
    UnreadableError,
)
from chestxray.imaging import Limits, Opened, Radiograph
from chestxray.inference import Prediction, Predictor

AHEAD = 4
"""Files that wait for each thread, or for the one before them: enough that no thread is idle while
a large file is at work."""

OF_THE_FILE = (UnreadableError, LimitError, RefusedError, CannotOpenError)
"""Errors that are a file's own: they become its assessment."""

File = bytes | Opened | Callable[[], bytes]
"""A file's bytes, the file already opened, or what loads it."""

F = TypeVar("F", bound=File)
R = TypeVar("R")

Stage = Literal["open", "decode", "infer"]
Stopwatch = Callable[[Stage], AbstractContextManager[object]]
"""Times a stage of an assessment: ``with stopwatch("decode"): ...``."""


def untimed(_: Stage) -> AbstractContextManager[None]:
    """The stopwatch of who does not want to know."""
    return nullcontext()


@dataclass(frozen=True, slots=True, eq=False)
class Assessor:
    """A bundle that assesses, the name by which it is asked, and its policy."""

    name: str
    predictor: Predictor
    policy: Policy


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """What one assessor decided of one file.

    Without an ``error`` it is answered, and ``radiograph`` and ``prediction`` are there. A refusal
    has them as far as it came: the input check refuses what was predicted. ``warnings`` are all
    that a reader should know, of the file, of the patient and of the answer. ``source`` is the file
    for who wants to have it assessed again; None where it could not even be recognised.

    A radiograph may have 160 MB, and an assessment is kept no longer than that is needed;
    :meth:`without_pixels` may be.
    """

    assessor: Assessor
    source: Opened | None = None
    radiograph: Radiograph | None = None
    prediction: Prediction | None = None
    warnings: tuple[str, ...] = ()
    error: ChestXrayError | None = None

    @property
    def outcome(self) -> Literal["answered", "refused", "unreadable"]:
        if self.error is None:
            return "answered"
        return "refused" if isinstance(self.error, RefusedError) else "unreadable"

    def without_pixels(self) -> Assessment:
        """The same without the radiograph."""
        return replace(self, radiograph=None)

    @property
    def answer(self) -> tuple[Radiograph, Prediction]:
        """The radiograph and what is predicted of it.

        Raises:
            ChestXrayError: ``error``, if it was not answered.
        """
        if self.error is not None:
            raise self.error
        assert self.radiograph is not None  # noqa: S101 - it was answered
        assert self.prediction is not None  # noqa: S101
        return self.radiograph, self.prediction


def assess(
    file: File,
    assessors: Sequence[Assessor],
    *,
    limits: Limits = DEFAULT_LIMITS,
    stopwatch: Stopwatch = untimed,
    budget: MemoryBudget | None = None,
) -> list[Assessment]:
    """What each of ``assessors`` decides of a file.

    Whoever assesses several at the same time gives them a ``budget``.

    Raises:
        OSError: from what loads the file; what is wrong with the file itself is an assessment.
    """
    try:
        with stopwatch("open"):
            source = opened(file() if callable(file) else file, limits)
    except OF_THE_FILE as exc:
        return [Assessment(assessor, error=_alone(exc)) for assessor in assessors]
    decoded = Decoded(source)
    with nullcontext() if budget is None else budget.share(source.memory_bytes):
        return [_assessed(source, decoded, assessor, stopwatch) for assessor in assessors]


def assess_all(
    files: Iterable[F],
    assessors: Sequence[Assessor],
    then: Callable[[F, list[Assessment]], R],
    *,
    limits: Limits = DEFAULT_LIMITS,
    threads: int = 1,
) -> Iterator[R]:
    """:func:`assess` each file, ``threads`` at a time: in their order, as they get done.

    What ``then`` makes of a file and its assessments is yielded. It is called in the file's thread,
    so that pictures do not wait for the files before them.

    Raises:
        OSError: see :func:`assess`.
    """

    budget = MemoryBudget(threads * THREADS_MEMORY_BYTES)

    def work(file: F) -> R:
        return then(file, assess(file, assessors, limits=limits, budget=budget))

    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for file in files:
                pending.append(pool.submit(work, file))
                if len(pending) > AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _alone(error: ChestXrayError) -> ChestXrayError:
    """The error without the frames that it came through: they hold the file and its pixels."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _assessed(
    source: Opened, decoded: Decoded, assessor: Assessor, stopwatch: Stopwatch
) -> Assessment:
    predictor, policy = assessor.predictor, assessor.policy
    radiograph = prediction = None
    warnings: tuple[str, ...] = ()
    try:
        of_acquisition = policy.admit(source.acquisition)
        with stopwatch("decode"):
            radiograph = decoded.at(predictor.manifest.preprocessing.shrink_to_px)
        with stopwatch("infer"):
            (prediction,) = predictor.predict([radiograph], policy.operating_point)
        warnings = (*prediction.warnings, *of_acquisition)
        warnings += policy.accept(prediction)
    except OF_THE_FILE as exc:
        return Assessment(assessor, source, radiograph, prediction, warnings, _alone(exc))
    return Assessment(assessor, source, radiograph, prediction, warnings)
