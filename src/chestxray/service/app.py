"""The application: the rooms' parts put together.

Does not: define routes (``routes``), or open a port (``server``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from chestxray import __version__
from chestxray.errors import ChestXrayError
from chestxray.inference import BUNDLED, Predictor
from chestxray.service import documentation, openapi, reading_page
from chestxray.service.admission import Admission
from chestxray.service.boundary import Boundary
from chestxray.service.metrics import Metrics
from chestxray.service.request_id import HEADER
from chestxray.service.responses import on_error, on_http_exception, on_invalid_query
from chestxray.service.routes import open_router, protected_router, require_key
from chestxray.service.settings import Settings
from chestxray.service.state import Service

DESCRIPTION = (
    "Classifies frontal chest radiographs as NORMAL or PNEUMONIA, with a calibrated probability "
    "and the evidence for it. **Not a medical device**: no answer replaces a radiologist's."
)


def create_app(settings: Settings, predictor: Predictor | None = None) -> FastAPI:
    """The application; without a ``predictor`` it loads the settings' bundle when it starts.

    Raises (when it starts):
        BundleError: the bundle cannot be used.
    """
    metrics = Metrics()
    admission = Admission(
        threads=settings.threads_per_worker,
        queue_size=settings.queue_size,
        queue_timeout_s=settings.queue_timeout_s,
        max_buffered_bytes=settings.max_buffered_bytes,
        waited=partial(metrics.observe_stage, "wait"),
    )
    service = Service(settings, admission, metrics, predictor)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if service.predictor is None:
            service.predictor = await run_in_threadpool(Predictor.load, settings.bundle or BUNDLED)
        metrics.set_bundle(
            name=service.predictor.manifest.name,
            bundle_sha256=service.predictor.bundle_sha256,
            version=__version__,
        )
        try:
            yield
        finally:
            await run_in_threadpool(admission.close)

    app = FastAPI(
        title="Chest X-ray pneumonia classifier",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # see documentation
        redoc_url=None,
        redirect_slashes=False,  # nobody wants an upload sent twice
    )
    app.state.service = service
    app.openapi = partial(_document, service, app.openapi)  # type: ignore[method-assign]
    if settings.demands_key:
        app.include_router(
            protected_router,
            dependencies=[Depends(require_key)],
            responses=openapi.problems(401),
        )
    else:
        app.include_router(protected_router)
    app.include_router(open_router)
    app.include_router(documentation.router)
    app.include_router(reading_page.router)
    app.add_exception_handler(ChestXrayError, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid_query)
    app.add_exception_handler(HTTPException, on_http_exception)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", HEADER],
            expose_headers=[HEADER, "Retry-After"],
        )
    app.add_middleware(
        Boundary,
        service=service,
    )
    return app


def _document(service: Service, described: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    document = described()
    loaded = service.predictor
    openapi.complete(document, () if loaded is None else loaded.manifest.operating_points)
    return document
