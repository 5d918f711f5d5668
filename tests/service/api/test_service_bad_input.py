"""Whatever a client sends, it gets a problem with a stable code, and never a 500."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import httpx
import numpy as np
import pytest

from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories import images, raw_http
from factories.requests import predict, predict_batch, radiograph_png
from factories.servers import served, serving

JPEG = images.jpeg(images.smooth(200, 200))
BOUNDARY = "b0undary"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(name: str = "file", data: bytes = JPEG, filename: str | None = "a.jpg") -> bytes:
    """A multipart body with one part; a form field, not a file, where ``filename`` is ``None``."""
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n"
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    problem = response.json()
    assert problem["type"] == f"urn:chestxray:problem:{code}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


FILES = {
    "text named .jpg": (b"this is a text, whatever its name says", 415, "unsupported_format"),
    "empty file": (b"", 400, "empty_file"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], 400, "truncated_file"),
    "JPEG of three bytes": (JPEG[:3], 400, "truncated_file"),
    "truncated PNG": (radiograph_png()[:-20], 400, "truncated_file"),
    "PNG with a flipped byte": (
        radiograph_png()[:200] + b"\x5a\xa5" + radiograph_png()[202:],
        400,
        "damaged_file",
    ),
    "1-pixel PNG": (images.png(np.zeros((1, 1), np.uint8)), 422, "too_small"),
    "PNG bomb": (
        images.png_of(images.header(50_000, 50_000, images.GREY, 8), [b"\0" * 1000]),
        413,
        "too_many_pixels",
    ),
    "GIF": (images.gif(), 415, "unsupported_format"),
    "animated PNG": (images.apng(), 415, "animated_file"),
    "too large a file": (JPEG + bytes(300_000), 413, "too_many_bytes"),
    "white picture": (images.png(np.full((64, 64), 255, np.uint8)), 422, "not_a_chest_radiograph"),
}


@pytest.mark.parametrize(("data", "status", "code"), FILES.values(), ids=FILES)
def test_a_bad_file_is_a_problem_of_its_own(
    client: httpx.Client, data: bytes, status: int, code: str
) -> None:
    assert_problem(predict(client, data), status, code)
    (element,) = predict_batch(client, [("a.jpg", data)]).json()["results"]
    assert (element["error"]["status"], element["error"]["code"]) == (status, code)


BODIES = {
    "wrong field name": (form("picture"), MULTIPART, "missing_field"),
    "text in the file's place": (form(filename=None), MULTIPART, "missing_field"),
    "no file": (f"--{BOUNDARY}--\r\n".encode(), MULTIPART, "missing_field"),
    "part without a name": (
        f"--{BOUNDARY}\r\nX-Other: 1\r\n\r\nabc\r\n--{BOUNDARY}--\r\n".encode(),
        MULTIPART,
        "missing_field",
    ),
    "empty body": (b"", MULTIPART, "malformed_body"),
    "body that breaks off in the file": (form()[:-400], MULTIPART, "malformed_body"),
    "body that breaks off in the last boundary": (form()[:-6], MULTIPART, "malformed_body"),
    "another boundary": (form().replace(b"b0", b"xx"), MULTIPART, "malformed_body"),
    "garbage": (bytes(range(256)) * 8, MULTIPART, "malformed_body"),
    "broken part header": (
        form().replace(b"Content-Disposition", b"Content\0Disposition"),
        MULTIPART,
        "malformed_body",
    ),
    "endless part header": (
        form(filename="x" * 100_000),
        MULTIPART,
        "malformed_body",
    ),
    "no boundary": (form(), {"content-type": "multipart/form-data"}, "malformed_body"),
    "empty boundary": (
        form(),
        {"content-type": "multipart/form-data; boundary="},
        "malformed_body",
    ),
    "endless boundary": (
        form(),
        {"content-type": f"multipart/form-data; boundary={'x' * 2000}"},
        "malformed_body",
    ),
    "JSON": (b"{}", {"content-type": "application/json"}, "malformed_body"),
    "bare JPEG": (JPEG, {"content-type": "image/jpeg"}, "malformed_body"),
    "no content type": (form(), {}, "malformed_body"),
    "form of another kind": (
        b"file=abc",
        {"content-type": "application/x-www-form-urlencoded"},
        "malformed_body",
    ),
}


@pytest.mark.parametrize("route", ["/predict", "/predict_batch"])
@pytest.mark.parametrize(("body", "headers", "code"), BODIES.values(), ids=BODIES)
def test_a_bad_body_is_a_problem_with_the_request(
    client: httpx.Client, route: str, body: bytes, headers: dict[str, str], code: str
) -> None:
    if route == "/predict_batch":
        body = body.replace(b'name="file"', b'name="files"')
    assert_problem(client.post(route, content=body, headers=headers), 400, code)


@pytest.mark.parametrize("route", ["/predict", "/predict_batch"])
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("heatmap=maybe", "invalid_query"),
        ("heatmap=", "invalid_query"),
        ("evidence=2", "invalid_query"),
        ("preview=no%00", "invalid_query"),
        ("input_check=ignore", "invalid_query"),
        ("hetmap=true", "invalid_query"),
        ("operating_point=best", "unknown_operating_point"),
        ("operating_point=", "unknown_operating_point"),
        ("operating_point=%ff%fe", "unknown_operating_point"),
    ],
)
def test_a_bad_query_is_a_problem_with_the_request(
    client: httpx.Client, route: str, query: str, code: str
) -> None:
    files = {"file": ("a.png", radiograph_png()), "files": ("a.png", radiograph_png())}
    assert_problem(client.post(f"{route}?{query}", files=files), 400, code)


def test_two_files_for_predict_are_too_many(client: httpx.Client) -> None:
    files = [("file", ("a.png", radiograph_png())), ("file", ("b.png", radiograph_png()))]
    assert_problem(client.post("/predict", files=files), 413, "too_many_files")


def test_more_files_than_a_batch_takes_are_too_many(
    client: httpx.Client, settings: Settings
) -> None:
    files = [("a.png", b"x")] * (settings.max_files + 1)
    assert_problem(predict_batch(client, files), 413, "too_many_files")
    assert predict_batch(client, files[1:]).status_code == 200


def test_endless_small_fields_are_too_many(client: httpx.Client) -> None:
    fields = {f"field{i}": "x" for i in range(100)}
    files = {"file": ("a.png", radiograph_png())}
    assert_problem(client.post("/predict", data=fields, files=files), 413, "too_many_files")


def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_read(
    client: httpx.Client, settings: Settings
) -> None:
    connection = HTTPConnection(client.base_url.host, client.base_url.port or 0, timeout=30)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", MULTIPART["content-type"])
    connection.putheader("Content-Length", str(settings.max_body_bytes + 1))
    connection.endheaders()  # and no body: only an answer that does not wait for it can come
    with closing(connection), connection.getresponse() as response:
        assert response.status == 413
        assert json.load(response)["code"] == "too_many_bytes"


def test_a_body_that_does_not_say_its_length_is_counted(
    client: httpx.Client, settings: Settings
) -> None:
    def body() -> Iterator[bytes]:
        whole = form("other", bytes(settings.max_body_bytes))
        for start in range(0, len(whole), 65_536):
            yield whole[start : start + 65_536]

    assert_problem(
        client.post("/predict", content=body(), headers=MULTIPART), 413, "too_many_bytes"
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/predict/", 404, "not_found"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("POST", "/metadata", 405, "method_not_allowed"),
        ("TRACE", "/predict", 405, "method_not_allowed"),
        ("BREW", "/predict", 400, "malformed_request"),
    ],
)
def test_a_route_or_method_that_does_not_exist_is_a_problem_too(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)
    assert_problem(response, status, code)
    if status == 405:
        assert response.headers["allow"]


def test_a_request_cut_into_single_bytes_is_understood(client: httpx.Client) -> None:
    body = form(data=radiograph_png(side_px=32))
    chunks = (body[i : i + 1] for i in range(len(body)))
    assert client.post("/predict", content=chunks, headers=MULTIPART).status_code == 200


def test_bytes_that_look_like_boundaries_stay_in_the_file(client: httpx.Client) -> None:
    tail = f"\r\n--{BOUNDARY[:-1]}\r\n--{BOUNDARY[:3]}".encode() * 20
    response = client.post(
        "/predict", content=form(data=radiograph_png() + tail), headers=MULTIPART
    )
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict_batch"])
def test_a_body_that_comes_too_slowly_is_cut_and_told_why(
    settings: Settings, predictor: Predictor, path: str
) -> None:
    app = create_app(settings.model_copy(update={"body_timeout_s": 0.1}), serving(predictor))
    with served(app) as client, raw_http.connected(client) as connection:
        connection.sendall(raw_http.post(100_000, path=path) + raw_http.FORM_HEAD)
        response, body = raw_http.received(connection)
        assert (response.status, json.loads(body)["code"]) == (408, "slow_body")
        assert raw_http.is_closed(connection)
        assert predict(client, radiograph_png()).status_code == 200


def test_a_long_body_has_more_time_as_long_as_it_keeps_coming(
    settings: Settings, predictor: Predictor
) -> None:
    app = create_app(settings.model_copy(update={"body_timeout_s": 0.3}), serving(predictor))
    body = raw_http.form(radiograph_png(side_px=400))
    with served(app) as client, raw_http.connected(client) as connection:
        connection.sendall(raw_http.post(len(body)))
        for start in range(0, len(body), 16_384):  # 0.1 s each, and it gets a second more for it
            time.sleep(0.1)
            connection.sendall(body[start : start + 16_384])
        assert len(body) > 5 * 16_384
        assert raw_http.received(connection)[0].status == 200
