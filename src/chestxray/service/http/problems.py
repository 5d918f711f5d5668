"""From an error to its HTTP status and its problem details (RFC 9457): the one table.

Does not: catch or count anything (``responses`` and ``boundary`` do), or import FastAPI; a batch on
the command line reports its failed files in the same words.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from chestxray import errors
from chestxray.errors import ChestXrayError, NotAChestRadiographError
from chestxray.service.http.request_id import request_id

Score = Annotated[float, Field(ge=0, le=1)]

MEDIA_TYPE = "application/problem+json"

PROBLEMS: dict[type[ChestXrayError], tuple[int, str]] = {
    errors.ChestXrayError: (500, "Internal error"),
    # 400 and 415: the bytes are no image that is read here.
    errors.UnreadableError: (400, "Unreadable file"),
    errors.EmptyFileError: (400, "Empty file"),
    errors.TruncatedFileError: (400, "Truncated file"),
    errors.DamagedFileError: (400, "Damaged file"),
    errors.UnsupportedFormatError: (415, "Unsupported format"),
    errors.UnsupportedTransferSyntaxError: (415, "Unsupported transfer syntax"),
    errors.AnimatedFileError: (415, "Animated or multi-page file"),
    # 413: more than is accepted.
    errors.LimitError: (413, "Too much"),
    errors.TooManyBytesError: (413, "Too many bytes"),
    errors.TooManyPixelsError: (413, "Too many pixels"),
    errors.TooManyFilesError: (413, "Too many files"),
    errors.TooCostlyError: (413, "Too costly"),
    # 422: readable, but not what the model may judge.
    errors.RefusedError: (422, "Refused"),
    errors.TooSmallError: (422, "Too small"),
    errors.WrongModalityError: (422, "Wrong modality"),
    errors.WrongBodyPartError: (422, "Wrong body part"),
    errors.WrongViewError: (422, "Wrong view"),
    errors.MultiFrameError: (422, "More than one frame"),
    errors.ColourError: (422, "Colour"),
    errors.NoPixelDataError: (422, "No pixel data"),
    errors.OutsidePopulationError: (422, "Outside the population"),
    errors.NotAChestRadiographError: (422, "Not a chest radiograph"),
    # 400: the question is malformed.
    errors.RequestError: (400, "Malformed request"),
    errors.MissingFieldError: (400, "Missing field"),
    errors.MalformedBodyError: (400, "Malformed body"),
    errors.InvalidQueryError: (400, "Invalid query"),
    errors.UnknownOperatingPointError: (400, "Unknown operating point"),
    errors.UnknownModelError: (400, "Unknown model"),
    errors.SlowBodyError: (408, "Body too slow"),
    errors.UnauthorizedError: (401, "Unauthorized"),
    # 429 and 503: not now.
    errors.UnavailableError: (503, "Unavailable"),
    errors.OverloadedError: (429, "Overloaded"),
    errors.NotReadyError: (503, "Not ready"),
    # 500: what no request can cause.
    errors.BundleError: (500, "Unusable bundle"),
    errors.BundleMissingError: (500, "Missing bundle"),
    errors.BundleDamagedError: (500, "Damaged bundle"),
    errors.BundleVersionError: (500, "Bundle of another version"),
    errors.DatasetError: (500, "Unusable data set"),
    errors.EmptyDatasetError: (500, "Empty data set"),
    errors.LeakError: (500, "Leak between splits"),
    errors.ConfigError: (500, "Wrong configuration"),
    errors.NodeError: (500, "DICOM node cannot work"),
    errors.CannotOpenError: (500, "File cannot be opened"),
    errors.ClusterError: (500, "Cluster cannot work"),
    errors.LearningError: (500, "Learning failed"),
    errors.WeightsError: (500, "Unusable weights"),
    errors.RunMismatchError: (500, "Run of another configuration"),
    errors.ParityError: (500, "Export differs from the trained network"),
}


class Problem(BaseModel):
    """Problem details (RFC 9457). ``code`` is stable; ``detail`` is for people and may change.

    ``request_id`` finds the request in the log; it is ``null`` on the command line.
    """

    model_config = ConfigDict(frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None


class InputCheckAnswer(BaseModel):
    """``score`` is higher for pictures more like a chest radiograph."""

    model_config = ConfigDict(frozen=True)

    accepted: bool
    score: Score


class InputCheckProblem(Problem):
    """The picture is readable but not like a chest radiograph."""

    input_check: InputCheckAnswer


def problem_of(error: ChestXrayError) -> Problem:
    """The problem details of ``error``; a refusal by the input check carries its score.

    A class that is not in the table has the status and title of its nearest base that is.
    """
    status, title = next(PROBLEMS[base] for base in type(error).__mro__ if base in PROBLEMS)
    # What no request can cause speaks of this machine's files: for the log, not for the client.
    detail = str(error) if status < 500 or status == 503 else "The server failed; this is logged."
    problem = make_problem(status, title, detail, error.code)
    if isinstance(error, NotAChestRadiographError):
        check = InputCheckAnswer(accepted=False, score=error.score)
        return InputCheckProblem(**problem.model_dump(), input_check=check)
    return problem


def make_problem(status: int, title: str, detail: str, code: str) -> Problem:
    """Problem details of the request at hand; ``type`` is a stable name made from ``code``."""
    return Problem(
        type=f"urn:chestxray:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        code=code,
        request_id=request_id.get(),
    )
