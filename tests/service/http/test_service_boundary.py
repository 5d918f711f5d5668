"""What every request gets, however it ends."""

import json
import logging
import re
import uuid
from collections.abc import Callable

import httpx
import pytest

from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.http.boundary import HEADERS
from chestxray.service.http.request_id import HEADER
from chestxray.service.logs import json_formatter
from chestxray.service.settings import Settings
from factories.requests import predict, predict_batch, radiograph_png
from factories.servers import serving


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/predict", 405),
        ("POST", "/predict", 400),
        ("POST", "/predict?heatmap=perhaps", 400),
    ],
)
def test_every_answer_has_an_id_and_the_headers_of_a_cautious_server(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert len(uuid.UUID(response.headers[HEADER]).hex) == 32
    assert {name: response.headers[name] for name in HEADERS} == HEADERS
    if status >= 400:
        assert response.json()["request_id"] == response.headers[HEADER]


@pytest.mark.parametrize("offered", ["0a1b2c3d", str(uuid.UUID(int=7)), "F" * 64])
def test_the_id_of_a_proxy_is_kept(client: httpx.Client, offered: str) -> None:
    assert client.get("/livez", headers={HEADER: offered}).headers[HEADER] == offered


@pytest.mark.parametrize("offered", ["roe-jane", "0a1b2c3", "F" * 65, "0a1b2c3d 1950", ""])
def test_an_id_that_could_be_a_name_is_replaced(client: httpx.Client, offered: str) -> None:
    answered = client.get("/livez", headers={HEADER: offered}).headers[HEADER]
    assert answered != offered
    assert uuid.UUID(answered)


def test_a_line_is_logged_for_each_request_with_its_id_and_without_its_query(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    with caplog.at_level(logging.INFO, logger="chestxray"):
        response = predict(client, b"no picture", input_check="warn")
        wait_until(lambda: any("POST" in line for line in caplog.messages))
    (record,) = [record for record in caplog.records if hasattr(record, "duration_ms")]
    record.request_id = response.headers[HEADER]
    line = json.loads(json_formatter().format(record))
    assert line.pop("time")
    assert line.pop("duration_ms") > 0
    assert line.pop("message").startswith("POST /predict 415 in ")
    assert line == {
        "level": "INFO",
        "logger": "chestxray.service.http.boundary",
        "request_id": response.headers[HEADER],
        "method": "POST",
        "route": "/predict",
        "status": 415,
        "key": "",
    }


@pytest.mark.anyio
async def test_while_draining_every_answer_ends_its_connection(
    settings: Settings, predictor: Predictor
) -> None:
    app = create_app(settings, serving(predictor))
    app.state.service.draining = True
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path, status in [("/livez", 200), ("/readyz", 503)]:
            response = await client.get(path)
            assert (response.status_code, response.headers["connection"]) == (status, "close")


@pytest.mark.anyio
async def test_pages_of_other_sites_may_ask_only_where_the_settings_name_them(
    settings: Settings, predictor: Predictor
) -> None:
    for origins, allowed in [([], None), (["https://pacs.example"], "https://pacs.example")]:
        app = create_app(settings.model_copy(update={"cors_origins": origins}), serving(predictor))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.get("/readyz", headers={"Origin": "https://pacs.example"})
            assert response.status_code == 200
            assert response.headers.get("access-control-allow-origin") == allowed
            response = await client.get("/readyz", headers={"Origin": "https://else.example"})
            assert "access-control-allow-origin" not in response.headers


def test_the_interactive_documentation_comes_from_this_process_alone(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert "http" not in page.text
    assert "script-src 'self';" in page.headers["content-security-policy"]
    for part in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
        assert part in page.text
        assert client.get(f"/docs/{part}").status_code == 200


def test_what_is_answered_is_counted(client: httpx.Client) -> None:
    def count(line: str) -> float:
        found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0

    ok = 'chestxray_requests_total{key="",route="/predict",status="200"}'
    bad = 'chestxray_problems_total{code="empty_file"}'
    stages = [
        f'chestxray_stage_duration_seconds_count{{stage="{stage}"}}'
        for stage in ("receive", "wait", "open", "decode", "infer", "render")
    ]
    before = [count(line) for line in (ok, bad, *stages)]
    assert predict(client, radiograph_png()).status_code == 200
    predict_batch(client, [("a.png", b""), ("b.png", b"")])
    after = [count(line) for line in (ok, bad, *stages)]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 2, 2, 2, 3, 1, 1, 1]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
