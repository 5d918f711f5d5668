"""The routes: each takes its place, reads its body, has the work done, and answers.

``open_router`` answers anyone; what ``protected_router`` holds wants a key where keys are demanded.

Does not: compute an answer (``answers``), count or queue requests (``admission``), or turn errors
into responses (``responses``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from chestxray import __version__
from chestxray.errors import UnauthorizedError
from chestxray.inference import Predictor
from chestxray.service import openapi
from chestxray.service.admission import Place, unless_gone
from chestxray.service.answers import answer, batch_element, failed_element
from chestxray.service.keys import name_of
from chestxray.service.multipart import BodyLimits, Upload, declared_bytes, read_uploads
from chestxray.service.responses import json_response
from chestxray.service.schemas import (
    AnsweredFile,
    BatchAnswer,
    BatchElement,
    FailedFile,
    Health,
    Metadata,
    PredictionAnswer,
    PredictOptions,
)
from chestxray.service.state import Service

open_router = APIRouter(tags=["health"])
protected_router = APIRouter(tags=["radiographs"])


def _service(request: Request) -> Service:
    # Called, not depended on: FastAPI's dependencies cost 0.1 ms each.
    service: Service = request.app.state.service
    return service


_bearer = HTTPBearer(auto_error=False, description="an API key")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="an API key")


async def require_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> None:
    """Raises UnauthorizedError unless the request has one of the settings' keys."""
    offered = bearer.credentials if bearer is not None else header
    name = None if offered is None else name_of(offered, _service(request).settings.api_keys)
    if name is None:
        raise UnauthorizedError("send an API key as `Authorization: Bearer …` or `X-API-Key: …`")
    request.state.key = name


@protected_router.post(
    "/predict",
    response_model=PredictionAnswer,
    responses=openapi.answered() | openapi.problems(400, 408, 413, 415, 422, 429, 503),
    openapi_extra=openapi.multipart_body("file", many=False),
)
async def predict(
    request: Request,
    options: Annotated[PredictOptions, Query()],
) -> Response:
    """Judge one radiograph."""
    service = _service(request)
    predictor = service.ready_predictor()
    predictor.operating_point(options.operating_point)
    limits = service.body_limits(max_files=1)
    with service.place(declared_bytes(request.headers, limits)) as place:
        (upload,) = await _uploads(request, service, place, name="file", limits=limits)
        if upload.error is not None:
            raise upload.error
        job = partial(
            answer, predictor, upload.data, options, service.image_limits, service.metrics.stage
        )
        (prediction,) = await unless_gone(request.receive, place.run([job]))
    service.report_prediction(prediction)
    return json_response(prediction)


@protected_router.post(
    "/predict_batch",
    response_model=BatchAnswer,
    responses=openapi.answered()
    | openapi.problems(400, 408, 413, 429, 503)
    | openapi.other_problems(),
    openapi_extra=openapi.multipart_body("files", many=True),
)
async def predict_batch(
    request: Request,
    options: Annotated[PredictOptions, Query()],
) -> Response:
    """Judge many radiographs; a bad file costs only itself."""
    service = _service(request)
    predictor = service.ready_predictor()
    predictor.operating_point(options.operating_point)
    limits = service.body_limits(service.settings.max_files)
    with service.place(declared_bytes(request.headers, limits)) as place:
        uploads = await _uploads(request, service, place, name="files", limits=limits)
        jobs = [_batch_job(upload, predictor, options, service) for upload in uploads]
        results = await unless_gone(request.receive, place.run(jobs))
    for element in results:
        if isinstance(element, FailedFile):
            service.report_problem(element.error)
        else:
            service.report_prediction(element.prediction)
    succeeded = sum(isinstance(element, AnsweredFile) for element in results)
    return json_response(
        BatchAnswer(results=results, succeeded=succeeded, failed=len(results) - succeeded)
    )


async def _uploads(
    request: Request, service: Service, place: Place, *, name: str, limits: BodyLimits
) -> list[Upload]:
    with service.metrics.stage("receive"):
        return await read_uploads(
            request.headers,
            request.stream(),
            name=name,
            limits=limits,
            buffer=place.buffer,
        )


def _batch_job(
    upload: Upload, predictor: Predictor, options: PredictOptions, service: Service
) -> Callable[[], BatchElement]:
    if upload.error is not None:
        return partial(failed_element, upload.filename, upload.error)
    return partial(
        batch_element,
        upload.filename,
        predictor,
        upload.data,
        options,
        service.image_limits,
        service.metrics.stage,
    )


@protected_router.get("/metadata", responses=openapi.problems(503))
async def metadata(request: Request) -> Metadata:
    """What the served bundle is: its data, calibration, operating points and figures."""
    predictor = _service(request).ready_predictor()
    statistics = {"mean", "std", "components", "variances", "residual_variance"}
    hidden = statistics | {"distance_at_threshold"}
    facts = predictor.manifest.model_dump(exclude={"input_check": hidden, "polarity": True})
    return Metadata(version=__version__, bundle_sha256=predictor.bundle_sha256, **facts)


@protected_router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    service = _service(request)
    service.report_load()
    body, media_type = await run_in_threadpool(service.metrics.exposition)
    return Response(body, media_type=media_type)


@open_router.head("/livez", include_in_schema=False)
@open_router.get("/livez")
async def livez() -> Health:
    """The process answers."""
    return Health(status="alive")


@open_router.head("/readyz", include_in_schema=False)
@open_router.get("/readyz", responses=openapi.problems(503))
async def readyz(request: Request) -> Health:
    """Radiographs are accepted: the bundle is loaded, and the service is not shutting down."""
    _service(request).ready_predictor()
    return Health(status="ready")
