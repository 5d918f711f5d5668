"""The application: the rooms' parts put together.

Does not: define routes (``api`` and ``page`` do), or open a port (``server``).
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
from chestxray.assessment import MemoryBudget
from chestxray.errors import ChestXrayError
from chestxray.service.api import documentation, openapi
from chestxray.service.api.routes import open_router, protected_router, require_key
from chestxray.service.api.served import Served, read_served
from chestxray.service.api.shadows import Shadows
from chestxray.service.api.state import Service
from chestxray.service.http.admission import Admission
from chestxray.service.http.boundary import Boundary
from chestxray.service.http.request_id import HEADER
from chestxray.service.http.responses import on_error, on_http_exception, on_invalid_query
from chestxray.service.metrics import Metrics
from chestxray.service.page.routes import router as page_router
from chestxray.service.settings import Settings

DESCRIPTION = (
    "Says of radiographs whether they show a finding, with a calibrated probability and the "
    "evidence for it. **Not a medical device**: no answer replaces a radiologist's."
)


def create_app(settings: Settings, served: Served | None = None) -> FastAPI:
    """The application; unless they are given, it loads the settings' bundles when it starts.

    Raises (when it starts):
        BundleError, ConfigError: the bundles cannot be used.
    """
    metrics = Metrics()
    admission = Admission(
        threads=settings.threads_per_worker,
        queue_size=settings.queue_size,
        queue_timeout_s=settings.queue_timeout_s,
        max_buffered_bytes=settings.max_buffered_bytes,
        waited=partial(metrics.observe_stage, "wait"),
    )
    budget = MemoryBudget(settings.decode_budget_bytes)
    shadows = Shadows(admission, metrics, budget, settings.shadow_share)
    service = Service(settings, admission, metrics, budget, shadows)
    if served is not None:
        service.serve(served)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if service.served is None:
            service.serve(await run_in_threadpool(lambda: Served.of(read_served(settings))))
        try:
            yield
        finally:
            shadows.close()
            await run_in_threadpool(admission.close)

    app = FastAPI(
        title="Chest X-ray classifier",
        description=DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # see documentation
        redoc_url=None,
        redirect_slashes=False,  # nobody wants an upload sent twice
    )
    app.state.service = service  # for the API's routes and the server
    app.state.metrics = metrics  # for the handlers of errors
    app.state.settings = settings  # for the page
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
    app.include_router(page_router)
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
        admission=admission,
        metrics=metrics,
        draining=lambda: service.draining,
    )
    return app


def _document(service: Service, described: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    document = described()
    if service.served is not None:
        openapi.complete(document, service.served.registry)
    return document
