"""The routes: each takes its place, reads its body, has the work done, and answers.

``open_router`` answers anyone; what ``protected_router`` holds wants a key where keys are demanded.

Does not: compute an answer (``answers``), or count or queue requests or turn errors into responses
(``http`` does).
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from chestxray import __version__
from chestxray.assessment import Assessment, Assessor, assess
from chestxray.errors import NotReadyError, UnauthorizedError
from chestxray.service.api import openapi
from chestxray.service.api.answers import batch_element
from chestxray.service.api.schemas import (
    AnsweredFile,
    BatchAnswer,
    BatchElement,
    FailedFile,
    Health,
    Metadata,
    MetadataOptions,
    ModelFacts,
    PredictionAnswer,
    PredictOptions,
)
from chestxray.service.api.state import Service
from chestxray.service.http.admission import Place, unless_gone
from chestxray.service.http.keys import name_of
from chestxray.service.http.multipart import BodyLimits, Upload, declared_bytes, read_uploads
from chestxray.service.http.responses import json_response, report_problem

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
    """Assess one radiograph."""
    service = _service(request)
    served = service.ready()
    assessor = served.registry.assessor(options.model, options.choices)
    limits = service.body_limits(max_files=1)
    with service.place(declared_bytes(request.headers, limits)) as place:
        (upload,) = await _uploads(request, service, place, name="file", limits=limits)
        if upload.error is not None:
            raise upload.error
        job = partial(_assessed, upload, assessor, options, service)
        ((assessment, element),) = await unless_gone(request.receive, place.run([job]))
    service.shadows.follow([assessment], served.shadowing(assessor), len(upload.data))
    if assessment.error is not None:
        raise assessment.error
    assert isinstance(element, AnsweredFile)  # noqa: S101 - there is no error
    service.report_prediction(element.prediction)
    return json_response(element.prediction)


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
    """Assess many radiographs; a bad file costs only itself."""
    service = _service(request)
    served = service.ready()
    assessor = served.registry.assessor(options.model, options.choices)
    limits = service.body_limits(service.settings.max_files)
    with service.place(declared_bytes(request.headers, limits)) as place:
        uploads = await _uploads(request, service, place, name="files", limits=limits)
        jobs = [partial(_assessed, upload, assessor, options, service) for upload in uploads]
        assessed = await unless_gone(request.receive, place.run(jobs))
    assessments, results = zip(*assessed, strict=True)
    n_bytes = sum(len(upload.data) for upload in uploads)
    service.shadows.follow(assessments, served.shadowing(assessor), n_bytes)
    for element in results:
        if isinstance(element, FailedFile):
            report_problem(service.metrics, element.error)
        else:
            service.report_prediction(element.prediction)
    succeeded = sum(isinstance(element, AnsweredFile) for element in results)
    return json_response(
        BatchAnswer(results=list(results), succeeded=succeeded, failed=len(results) - succeeded)
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


def _assessed(
    upload: Upload, assessor: Assessor, options: PredictOptions, service: Service
) -> tuple[Assessment, BatchElement]:
    """One file assessed and answered: a request's work in a thread."""
    (assessment,) = assess(
        upload.load,
        [assessor],
        limits=service.image_limits,
        stopwatch=service.metrics.stage,
        budget=service.budget,
    )
    with service.metrics.stage("render") if assessment.error is None else nullcontext():
        element = batch_element(upload.filename, assessment, options)
    return assessment.without_pixels(), element


@protected_router.get("/metadata", responses=openapi.problems(400, 503) | openapi.other_problems())
async def metadata(
    request: Request,
    options: Annotated[MetadataOptions, Query()],
) -> Metadata:
    """Which models there are, and of one its data, calibration, operating points and figures."""
    registry = _service(request).ready().registry
    assessor = registry.assessor(options.model)
    predictor = assessor.predictor
    statistics = {"mean", "std", "components", "variances", "residual_variance"}
    hidden = statistics | {"distance_at_threshold", "layout"}
    facts = predictor.manifest.model_dump(exclude={"input_check": hidden, "polarity": True})
    models = [
        ModelFacts(
            name=name,
            bundle_sha256=of.bundle_sha256,
            finding=of.manifest.finding,
            operating_points=list(of.manifest.operating_points),
        )
        for name, of in registry.predictors.items()
    ]
    return Metadata(
        version=__version__,
        models=models,
        model=assessor.name,
        bundle_sha256=predictor.bundle_sha256,
        **facts,
    )


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
    """Radiographs are accepted: the bundles are loaded, the service is not shutting down, and its
    threads get done with what they do."""
    service = _service(request)
    service.ready()
    if service.admission.stuck:
        raise NotReadyError("no thread has got done with anything for long")
    return Health(status="ready")
