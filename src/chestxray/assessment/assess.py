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
from dataclasses import dataclass
from typing import Literal

from chestxray.assessment.decoding import DEFAULT_LIMITS, opened
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
"""Files that wait for each thread: enough that none is idle while a large one is at work."""

OF_THE_FILE = (UnreadableError, LimitError, RefusedError, CannotOpenError)
"""Errors that are a file's own: they become its assessment."""

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
    file: bytes | Opened | Callable[[], bytes],
    assessors: Sequence[Assessor],
    *,
    limits: Limits = DEFAULT_LIMITS,
    stopwatch: Stopwatch = untimed,
) -> list[Assessment]:
    """What each of ``assessors`` decides of a file.

    ``file`` is its bytes, what loads them, or the file already opened.
    """
    try:
        with stopwatch("open"):
            source = opened(file() if callable(file) else file, limits)
    except OF_THE_FILE as exc:
        return [Assessment(assessor, error=_alone(exc)) for assessor in assessors]
    return [_assessed(source, assessor, stopwatch) for assessor in assessors]


def assess_all(
    files: Iterable[bytes | Opened | Callable[[], bytes]],
    assessors: Sequence[Assessor],
    *,
    limits: Limits = DEFAULT_LIMITS,
    threads: int = 1,
) -> Iterator[list[Assessment]]:
    """:func:`assess` each file, ``threads`` at a time: in their order, as they get done."""
    pending: deque[Future[list[Assessment]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for file in files:
                pending.append(pool.submit(assess, file, assessors, limits=limits))
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


def _assessed(source: Opened, assessor: Assessor, stopwatch: Stopwatch) -> Assessment:
    predictor, policy = assessor.predictor, assessor.policy
    radiograph = prediction = None
    warnings: tuple[str, ...] = ()
    try:
        of_acquisition = policy.admit(source.acquisition)
        with stopwatch("decode"):
            radiograph = source.decode(predictor.manifest.preprocessing.shrink_to_px)
        with stopwatch("infer"):
            (prediction,) = predictor.predict([radiograph], policy.operating_point)
        warnings = (*prediction.warnings, *of_acquisition)
        warnings += policy.accept(prediction)
    except OF_THE_FILE as exc:
        return Assessment(assessor, source, radiograph, prediction, warnings, _alone(exc))
    return Assessment(assessor, source, radiograph, prediction, warnings)
