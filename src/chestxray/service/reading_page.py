"""The reading page at ``/``: the files of ``web/``, and three things that only the service knows.

The page asks ``/predict_batch`` and ``/metadata`` as any client does, and so needs a key where they
do; the page itself holds nothing of anybody and needs none.

Does not: build the page (it is plain HTML, CSS and ES modules), or know what it shows.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.staticfiles import StaticFiles

from chestxray.inference import render_colour_bar
from chestxray.service.schemas import PageSettings
from chestxray.service.state import Service

router = APIRouter(include_in_schema=False)

HEADERS = {
    # Heatmaps are data: URLs. With Trusted Types and no policy for them, text never becomes markup.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
CACHED = {"Cache-Control": "no-cache"}
"""Kept, but asked about each time: after an upgrade no part of the page is the old one."""


_PACKAGE = Path(__file__).parents[1]
_WEB = StaticFiles(directory=_PACKAGE / "service" / "web", check_dir=False)
_EXAMPLES = StaticFiles(directory=_PACKAGE / "examples", check_dir=False)


@router.head("/")
@router.get("/")
async def page(request: Request) -> Response:
    return await _file(_WEB, "index.html", request)


@router.get("/page/settings.json")
async def settings(request: Request) -> PageSettings:
    """What the page must know before it asks: told to anyone, as the first 401 or 413 would."""
    service: Service = request.app.state.service
    return PageSettings(
        demands_key=service.settings.demands_key,
        max_file_bytes=service.settings.max_file_bytes,
    )


@router.get("/page/colour-bar.png")
async def colour_bar() -> Response:
    return Response(render_colour_bar(), media_type="image/png", headers=CACHED)


@router.get("/page/examples/{name}")
async def example(request: Request, name: str) -> Response:
    return await _file(_EXAMPLES, name, request)


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    return await _file(_WEB, name, request)


async def _file(folder: StaticFiles, name: str, request: Request) -> Response:
    """The file, 304 to who has it, or Starlette's 404."""
    response = await folder.get_response(name, request.scope)
    response.headers.update(HEADERS | CACHED)
    if name.endswith(".js"):
        # Some systems' own tables call it text/plain, and then no browser would run it.
        response.headers["Content-Type"] = "text/javascript; charset=utf-8"
    return response
