"""The interactive documentation at ``/docs``: Swagger UI, from this process and no other host.

FastAPI's own page takes its scripts from a content delivery network: empty where there is no
Internet, and a stranger's code in a page that people type API keys into.

Does not: describe the API (the OpenAPI document does).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Chest X-ray classifier: API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="data:,">
<main id="swagger-ui"></main>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
START = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, tryItOutEnabled: true,
  validatorUrl: null,
});
"""
# Swagger UI draws its icons from data: URLs, and sets styles on elements.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'"
)
CACHED = {"Cache-Control": "max-age=3600"}


@router.get("/docs")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})


@router.get("/docs/start.js")
async def start() -> Response:
    return Response(START, media_type="text/javascript", headers=CACHED)


@router.get("/docs/swagger-ui-bundle.js")
async def script() -> Response:
    return _from_package("swagger-ui-bundle.js", "text/javascript")


@router.get("/docs/swagger-ui.css")
async def style() -> Response:
    return _from_package("swagger-ui.css", "text/css")


def _from_package(name: str, media_type: str) -> Response:
    return Response(_content(name), media_type=media_type, headers=CACHED)


@cache
def _content(name: str) -> bytes:
    # Read once: who asks often opens no files, and many who read slowly share one copy.
    return (files("fastapi_swagger") / "resources" / name).read_bytes()
