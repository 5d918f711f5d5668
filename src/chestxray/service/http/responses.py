"""Models and errors as HTTP responses: the last step of every answer.

The handlers count what they answer in the application's ``state.metrics``.

Does not: decide which status an error has (``problems`` does).
"""

from __future__ import annotations

import logging

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from chestxray.errors import (
    ChestXrayError,
    InvalidQueryError,
    OverloadedError,
    UnauthorizedError,
)
from chestxray.service.http.problems import (
    MEDIA_TYPE,
    InputCheckProblem,
    Problem,
    make_problem,
    problem_of,
)
from chestxray.service.metrics import Metrics

logger = logging.getLogger(__name__)


def json_response(
    model: BaseModel,
    status: int = 200,
    media_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Response:
    """``model`` as JSON. Not by FastAPI, which would check again what is ours and valid."""
    return Response(model.model_dump_json(), status, headers, media_type)


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """``problem`` as problem details (RFC 9457)."""
    return json_response(problem, problem.status, MEDIA_TYPE, headers)


def report_problem(metrics: Metrics, problem: Problem) -> None:
    """Count a problem that was given, by itself or in a batch."""
    score = problem.input_check.score if isinstance(problem, InputCheckProblem) else None
    metrics.refused(problem.code, score)


async def on_error(request: Request, exc: Exception) -> Response:
    """What the package raises on purpose."""
    assert isinstance(exc, ChestXrayError)  # noqa: S101 - registered for nothing else
    problem = problem_of(exc)
    if problem.status == 500:
        logger.error("unexpected %s", type(exc).__name__)
    headers = {}
    if isinstance(exc, OverloadedError):
        headers["Retry-After"] = str(exc.retry_after_s)
        request.state.retry_after_s = exc.retry_after_s  # for the connection
    if isinstance(exc, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    return _counted(request, problem, headers)


async def on_invalid_query(request: Request, exc: Exception) -> Response:
    """FastAPI's own validation: the query is the only thing that it validates here."""
    assert isinstance(exc, RequestValidationError)  # noqa: S101 - registered for nothing else
    first = exc.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _counted(request, problem_of(InvalidQueryError(f"{where}: {first['msg']}")))


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for nothing else
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "http_error")
    title = code.replace("_", " ").capitalize()
    problem = make_problem(exc.status_code, title, exc.detail, code)
    return _counted(request, problem, dict(exc.headers or {}))


def _counted(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    report_problem(request.app.state.metrics, problem)
    return problem_response(problem, headers)
