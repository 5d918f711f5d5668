"""The page's routes: the files of ``web/``, and three things that only the service knows.

The page asks ``/predict_batch`` and ``/metadata`` as any client does, and so needs a key where they
do; the page itself holds nothing of anybody and needs none.

Does not: build the page (it is plain HTML, CSS and ES modules), or know what it shows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from chestxray.inference import render_colour_bar
from chestxray.service.settings import Settings

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

MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".jpeg": "image/jpeg",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""Not the system's own table: some call scripts text, and then no browser runs them."""

WEB = Path(__file__).parent / "web"
EXAMPLES = Path(__file__).parents[2] / "examples"


class PageSettings(BaseModel):
    """Settings that the page heeds, and the names of the examples that it offers."""

    demands_key: bool
    max_file_bytes: int
    examples: list[str]


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the page, as it is sent."""

    content: bytes
    media_type: str
    etag: str


@cache
def parts(folder: Path) -> dict[str, Part]:
    """The files of a folder by name, read once.

    They are small, and sent in one piece: of an answer that is read from a disk while it is sent,
    what a client wrongly sends after its request may break off the rest.
    """
    made = {}
    for file in folder.iterdir():
        if file.suffix in MEDIA_TYPES:
            content = file.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            made[file.name] = Part(content, MEDIA_TYPES[file.suffix], etag)
    return made


@router.head("/")
@router.get("/")
async def page(request: Request) -> Response:
    return _answer(request, WEB, "index.html")


@router.get("/page/settings.json")
async def settings(request: Request) -> PageSettings:
    """What the page must know before it asks: told to anyone, as the first 401 or 413 would."""
    given: Settings = request.app.state.settings
    return PageSettings(
        demands_key=given.demands_key,
        max_file_bytes=given.max_file_bytes,
        examples=sorted(parts(EXAMPLES)),
    )


@router.get("/page/colour-bar.png")
async def colour_bar() -> Response:
    return Response(render_colour_bar(), media_type="image/png", headers=CACHED)


@router.get("/page/examples/{name}")
async def example(request: Request, name: str) -> Response:
    return _answer(request, EXAMPLES, name)


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    return _answer(request, WEB, name)


def _answer(request: Request, folder: Path, name: str) -> Response:
    """The file, or 304 to who has it.

    Raises:
        HTTPException: there is none of that name.
    """
    found = parts(folder).get(name)
    if found is None:
        raise HTTPException(404)
    headers = HEADERS | CACHED | {"ETag": found.etag}
    if found.etag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.media_type)
