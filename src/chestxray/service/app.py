"""The application: routes, and what becomes of every error.

Does not: compute an answer (``answers``), count or queue requests (``admission``), or open a port
(``server``).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chestxray import __version__
from chestxray.errors import (
    ChestXrayError,
    InvalidQueryError,
    NotReadyError,
    OverloadedError,
)
from chestxray.imaging import Limits
from chestxray.inference import BUNDLED, Predictor
from chestxray.service.admission import Admission, unless_gone
from chestxray.service.answers import answer, batch_element, failed_element
from chestxray.service.multipart import BodyLimits, Upload, read_uploads
from chestxray.service.problems import MEDIA_TYPE, make_problem, problem_of
from chestxray.service.schemas import (
    AnsweredFile,
    BatchAnswer,
    BatchElement,
    Health,
    Metadata,
    PredictionAnswer,
    PredictOptions,
    Problem,
)
from chestxray.service.settings import Settings

logger = logging.getLogger(__name__)

DESCRIPTION = (
    "Classifies frontal chest radiographs as NORMAL or PNEUMONIA, with a calibrated probability "
    "and the evidence for it. **Not a medical device**: no answer replaces a radiologist's."
)


@dataclass
class Service:
    """What the routes share. ``predictor`` is ``None`` until the bundle has been loaded."""

    settings: Settings
    admission: Admission
    predictor: Predictor | None = None
    draining: bool = False

    @property
    def idle(self) -> bool:
        return self.admission.in_flight == 0

    @property
    def image_limits(self) -> Limits:
        return Limits(max_bytes=self.settings.max_file_bytes, max_pixels=self.settings.max_pixels)

    def body_limits(self, max_files: int) -> BodyLimits:
        return BodyLimits(self.settings.max_body_bytes, self.settings.max_file_bytes, max_files)

    def ready_predictor(self) -> Predictor:
        """Raises NotReadyError while starting or draining."""
        if self.draining:
            raise NotReadyError("the service is shutting down")
        if self.predictor is None:
            raise NotReadyError("the service is starting")
        return self.predictor


def create_app(settings: Settings, predictor: Predictor | None = None) -> FastAPI:
    """The application; without a ``predictor`` it loads the settings' bundle when it starts.

    Raises (when it starts):
        BundleError: the bundle cannot be used.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service: Service = app.state.service
        if service.predictor is None:
            service.predictor = await run_in_threadpool(Predictor.load, settings.bundle or BUNDLED)
        try:
            yield
        finally:
            await run_in_threadpool(service.admission.close)

    app = FastAPI(
        title="Chest X-ray pneumonia classifier",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # nobody wants an upload sent twice
    )
    admission = Admission(
        threads=settings.threads,
        queue_size=settings.queue_size,
        queue_timeout_s=settings.queue_timeout_s,
    )
    app.state.service = Service(settings, admission, predictor)
    app.include_router(router)
    app.add_exception_handler(ChestXrayError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_query)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_middleware(LastResort)
    return app


# --- routes ---------------------------------------------------------------------------------------


# Coroutines, because FastAPI calls plain functions in a thread.


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _predictor(service: Annotated[Service, Depends(_service)]) -> Predictor:
    return service.ready_predictor()


def _multipart_body(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI for a body that the route reads by itself."""
    form = {"type": "object", "required": [name], "properties": {name: schema}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _problems(descriptions: dict[int | str, str]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for problem details, from a description for each status."""
    # Both models are part of BatchAnswer, so OpenAPI has their schemas.
    plain = {"$ref": "#/components/schemas/Problem"}
    refused = {"anyOf": [plain, {"$ref": "#/components/schemas/InputCheckProblem"}]}
    return {
        status: {
            "description": description,
            "content": {MEDIA_TYPE: {"schema": refused if status == 422 else plain}},
        }
        for status, description in descriptions.items()
    }


FILE_SCHEMA = {"type": "string", "format": "binary", "description": "a JPEG or PNG radiograph"}
NOT_READY = _problems({503: "Starting or shutting down."})
REQUEST_PROBLEMS = NOT_READY | _problems(
    {
        400: "The file is empty, truncated or damaged, or the body or the query is malformed.",
        413: "Too many bytes, pixels or files.",
        429: "The queue is full or the wait in it too long; `Retry-After` says when to come back.",
    }
)
FILE_PROBLEMS = _problems(
    {
        415: "Not an image that is read here.",
        422: "Readable but refused: too small, or not a chest radiograph (then with its score).",
    }
)

router = APIRouter()


@router.post(
    "/predict",
    response_model=PredictionAnswer,
    responses=REQUEST_PROBLEMS | FILE_PROBLEMS,
    openapi_extra=_multipart_body("file", FILE_SCHEMA),
)
async def predict(
    request: Request,
    options: Annotated[PredictOptions, Query()],
    service: Annotated[Service, Depends(_service)],
    predictor: Annotated[Predictor, Depends(_predictor)],
) -> Response:
    """Judge one radiograph."""
    predictor.operating_point(options.operating_point)
    with service.admission.place() as place:
        (upload,) = await read_uploads(
            request.headers, request.stream(), name="file", limits=service.body_limits(1)
        )
        if upload.error is not None:
            raise upload.error
        job = partial(answer, predictor, upload.data, options, service.image_limits)
        (prediction,) = await unless_gone(request.receive, place.run([job]))
    return _json(prediction)


@router.post(
    "/predict_batch",
    response_model=BatchAnswer,
    responses=REQUEST_PROBLEMS | _problems({"4XX": "Any other problem."}),
    openapi_extra=_multipart_body("files", {"type": "array", "items": FILE_SCHEMA}),
)
async def predict_batch(
    request: Request,
    options: Annotated[PredictOptions, Query()],
    service: Annotated[Service, Depends(_service)],
    predictor: Annotated[Predictor, Depends(_predictor)],
) -> Response:
    """Judge many radiographs; a bad file costs only itself."""
    predictor.operating_point(options.operating_point)
    with service.admission.place() as place:
        uploads = await read_uploads(
            request.headers,
            request.stream(),
            name="files",
            limits=service.body_limits(service.settings.max_files),
        )
        jobs = [_batch_job(upload, predictor, options, service.image_limits) for upload in uploads]
        results = await unless_gone(request.receive, place.run(jobs))
    succeeded = sum(isinstance(element, AnsweredFile) for element in results)
    return _json(BatchAnswer(results=results, succeeded=succeeded, failed=len(results) - succeeded))


def _batch_job(
    upload: Upload, predictor: Predictor, options: PredictOptions, limits: Limits
) -> Callable[[], BatchElement]:
    if upload.error is not None:
        return partial(failed_element, upload.filename, upload.error)
    return partial(batch_element, upload.filename, predictor, upload.data, options, limits)


@router.get("/metadata", responses=NOT_READY)
async def metadata(predictor: Annotated[Predictor, Depends(_predictor)]) -> Metadata:
    """What the served bundle is: its data, calibration, operating points and figures."""
    statistics = {"mean", "std", "components", "variances", "residual_variance"}
    hidden = statistics | {"distance_at_threshold"}
    facts = predictor.manifest.model_dump(exclude={"input_check": hidden, "polarity": True})
    return Metadata(version=__version__, bundle_sha256=predictor.bundle_sha256, **facts)


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> Health:
    """The process answers."""
    return Health(status="alive")


@router.head("/readyz", dependencies=[Depends(_predictor)], include_in_schema=False)
@router.get(
    "/readyz",
    dependencies=[Depends(_predictor)],
    responses=NOT_READY,
)
async def readyz() -> Health:
    """Radiographs are accepted: the bundle is loaded, and the service is not shutting down."""
    return Health(status="ready")


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    return RedirectResponse("/docs")


# --- errors ---------------------------------------------------------------------------------------


def _json(
    model: BaseModel,
    status: int = 200,
    media_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Response:
    # Not FastAPI's response_model: the models are ours and valid, no need to check them again.
    return Response(model.model_dump_json(), status, headers, media_type)


def _problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    return _json(problem, problem.status, MEDIA_TYPE, headers)


async def _on_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, ChestXrayError)  # noqa: S101 - registered for nothing else
    problem = problem_of(exc)
    if problem.status == 500:
        logger.error("unexpected %s", type(exc).__name__)
    headers = {}
    if isinstance(exc, OverloadedError):
        headers["Retry-After"] = f"{max(1, round(exc.retry_after_s))}"
    return _problem_response(problem, headers)


async def _on_invalid_query(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101 - registered for nothing else
    first = exc.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _problem_response(problem_of(InvalidQueryError(f"{where}: {first['msg']}")))


async def _on_http_exception(_: Request, exc: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    assert isinstance(exc, HTTPException)  # noqa: S101 - registered for nothing else
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "http_error")
    title = code.replace("_", " ").capitalize()
    problem = make_problem(exc.status_code, title, exc.detail, code)
    return _problem_response(problem, dict(exc.headers or {}))


async def _on_disconnect(_: Request, __: Exception) -> Response:
    """Nobody reads this; the status is nginx's for a client that went away, seen in logs only."""
    return Response(status_code=499)


class LastResort:
    """Around all routes: an unexpected error becomes a problem, and headers that are always right.

    The log gets the error's type and the lines of code it passed, but not its message, which may
    quote what was sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_hardened(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, send_hardened)
        except Exception as exc:
            where = "".join(traceback.format_tb(exc.__traceback__))
            logger.error("unexpected %s\n%s", type(exc).__name__, where)  # noqa: TRY400
            if started:
                raise
            detail = "The server failed; this is logged."
            problem = make_problem(500, "Internal error", detail, "internal_error")
            await _problem_response(problem)(scope, receive, send_hardened)
