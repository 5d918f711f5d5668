"""The client against the real service; a made-up one only for what that cannot be made to do."""

import ast
import base64
import contextlib
import dataclasses
import inspect
import pickle
import re
import socket
import ssl
import subprocess
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from chestxray import assessment
from chestxray import client as client_module
from chestxray.client import (
    Choice,
    Client,
    ClientError,
    InputCheck,
    Metadata,
    Model,
    NotReadyError,
    OperatingPoint,
    OverloadedError,
    Prediction,
    Problem,
    ProblemError,
    Radiograph,
    RefusedError,
    UnauthorizedError,
    UnreachableError,
)
from chestxray.service.api import schemas
from chestxray.service.app import create_app
from chestxray.service.http.keys import hash_of, make_key
from chestxray.service.settings import Settings
from factories import images
from factories.bundles import write_tiny_bundle
from factories.requests import predict, predict_batch, radiograph_png
from factories.servers import served

REPOSITORY = Path(__file__).parents[1]
PNG = b"\x89PNG\r\n\x1a\n"
NOT_A_CHEST = images.png(images.smooth(96, 96).T[::-1].copy())


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Limits small enough to reach them quickly."""
    return Settings(
        bundle=write_tiny_bundle(tmp_path_factory.mktemp("bundle")),
        threads=2,
        max_file_bytes=300_000,
        max_body_bytes=1_000_000,
        max_files=4,
    )


@pytest.fixture(scope="module")
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture(scope="module")
def raw(app: FastAPI) -> Iterator[httpx.Client]:
    """The service as it looks without the client."""
    with served(app) as raw:
        yield raw


@pytest.fixture
def client(raw: httpx.Client) -> Iterator[Client]:
    with Client(str(raw.base_url), retry_for_s=0) as client:
        yield client


class Recording(httpx.HTTPTransport):
    """The network, with what went over it."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.bodies.append(request.read())
        return super().handle_request(request)

    @property
    def n_files(self) -> list[int]:
        return [body.count(b'filename="') for body in self.bodies]


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
def recorded(raw: httpx.Client, recording: Recording) -> Iterator[Client]:
    with Client(str(raw.base_url), retry_for_s=0, transport=recording) as client:
        yield client


# --- answers --------------------------------------------------------------------------------------


def test_a_prediction_is_what_the_service_says_with_its_pictures_decoded(
    client: Client, raw: httpx.Client
) -> None:
    said = predict(raw, radiograph_png(), heatmap=True, evidence=True, preview=True).json()
    prediction = client.predict(radiograph_png(), heatmap=True, evidence=True, preview=True)
    assert as_json(prediction) == said
    for picture in (prediction.heatmap, prediction.preview):
        assert picture is not None
        assert picture.startswith(PNG)


def test_what_was_not_asked_for_is_not_there(client: Client) -> None:
    prediction = client.predict(radiograph_png())
    assert (prediction.heatmap, prediction.evidence, prediction.preview) == (None, None, None)


def test_evidence_is_not_validated_where_the_service_does_not_say_so(
    raw: httpx.Client,
) -> None:
    said = predict(raw, radiograph_png()).json()
    del said["evidence_validated"]
    answering = httpx.MockTransport(lambda _: httpx.Response(200, json=said))
    with Client(transport=answering) as client:
        assert client.predict(radiograph_png()).evidence_validated is False


def test_a_file_may_be_given_by_content_path_or_name(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(radiograph_png())
    answers = {client.predict(image) for image in (radiograph_png(), file, str(file))}
    assert len(answers) == 1


def test_the_query_reaches_the_service(client: Client) -> None:
    strict = client.predict(radiograph_png(), operating_point="rule_in")
    assert (strict.operating_point, strict.threshold) == ("rule_in", 0.8)
    warned = client.predict(NOT_A_CHEST, input_check="warn")
    assert not warned.input_check.accepted
    assert warned.warnings


def test_metadata_is_what_the_service_says(client: Client, raw: httpx.Client) -> None:
    metadata = client.metadata()
    assert as_json(metadata) == raw.get("/metadata").json()
    assert metadata.operating_points["balanced"].threshold == 0.5


def test_a_service_is_ready_until_it_drains_and_then_sends_everyone_away(
    settings: Settings,
) -> None:
    app = create_app(settings)
    with served(app) as raw, Client(str(raw.base_url), retry_for_s=0) as client:
        assert client.ready()
        app.state.service.draining = True
        assert not client.ready()
        with pytest.raises(NotReadyError) as caught:
            client.predict(radiograph_png())
        assert caught.value.problem.code == "not_ready"
        app.state.service.draining = False  # or what is in flight would never end


# --- batches --------------------------------------------------------------------------------------


def test_a_batch_is_answered_in_the_order_given_and_a_bad_file_costs_only_itself(
    client: Client,
) -> None:
    files = [radiograph_png(0), b"text", radiograph_png(1), b""]
    first, unreadable, second, empty = client.predict_batch(files, evidence=True)
    assert first == client.predict(files[0], evidence=True)
    assert second == client.predict(files[2], evidence=True)
    assert first != second
    assert isinstance(unreadable, Problem)
    assert (unreadable.status, unreadable.code) == (415, "unsupported_format")
    assert isinstance(empty, Problem)
    assert empty.code == "empty_file"


def test_a_file_that_is_no_chest_radiograph_keeps_its_score_in_a_batch(client: Client) -> None:
    (problem,) = client.predict_batch([NOT_A_CHEST])
    assert isinstance(problem, Problem)
    assert problem.input_check is not None
    assert 0 <= problem.input_check.score < 1


def test_no_images_are_no_request(recorded: Client, recording: Recording) -> None:
    assert recorded.predict_batch([]) == []
    assert recording.requests == []


def test_many_files_are_read_and_sent_a_request_at_a_time(
    recorded: Client, recording: Recording
) -> None:
    taken_at_request: list[int] = []
    taken = 0

    def files() -> Iterator[bytes]:
        nonlocal taken
        for seed in range(7):
            taken += 1
            yield radiograph_png(seed)

    send = recording.handle_request

    def observed(request: httpx.Request) -> httpx.Response:
        taken_at_request.append(taken)
        return send(request)

    recording.handle_request = observed
    together = recorded.predict_batch(files(), files_per_request=3)
    assert recording.n_files == [3, 3, 1]
    assert taken_at_request == [4, 7, 7]  # one is taken to see that there is more
    assert together == [recorded.predict(radiograph_png(seed)) for seed in range(7)]


def test_large_files_share_a_request_with_fewer_others(
    recorded: Client, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = len(radiograph_png())
    monkeypatch.setattr(client_module, "BYTES_PER_REQUEST", 2 * one)
    assert len(recorded.predict_batch([radiograph_png()] * 4)) == 4
    assert recording.n_files == [2, 2]


def test_a_server_that_takes_fewer_files_gets_fewer(recorded: Client, recording: Recording) -> None:
    results = recorded.predict_batch([radiograph_png(seed) for seed in range(6)])
    assert recording.n_files == [6, 3, 3]  # the first is more than max_files
    assert results == [recorded.predict(radiograph_png(seed)) for seed in range(6)]


def test_a_file_larger_than_any_request_may_be_costs_only_itself(client: Client) -> None:
    first, large, last = client.predict_batch(
        [radiograph_png(0), bytes(1_200_000), radiograph_png(1)]
    )
    assert isinstance(first, Prediction)
    assert isinstance(last, Prediction)
    assert isinstance(large, Problem)
    assert (large.status, large.code) == (413, "too_many_bytes")


def test_an_error_that_is_no_files_fault_ends_a_batch(client: Client) -> None:
    with pytest.raises(ProblemError) as caught:
        client.predict_batch([radiograph_png()], operating_point="no such point")
    assert caught.value.problem.code == "unknown_operating_point"


def test_the_server_is_not_told_the_name_of_a_file(
    recorded: Client, recording: Recording, tmp_path: Path
) -> None:
    file = tmp_path / "roe_jane.png"
    file.write_bytes(radiograph_png())
    recorded.predict(file)
    recorded.predict_batch([file, str(file)])
    assert recording.n_files == [1, 2]
    assert not any(b"roe_jane" in body for body in recording.bodies)
    assert not any("roe_jane" in str(request.url) for request in recording.requests)


def test_a_file_that_cannot_be_read_is_the_callers_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.predict(tmp_path / "absent.png")
    with pytest.raises(FileNotFoundError):
        client.predict_batch([tmp_path / "absent.png"])


# --- errors ---------------------------------------------------------------------------------------


def test_a_refusal_carries_the_score_and_the_id_that_is_in_the_servers_log(
    recorded: Client, recording: Recording
) -> None:
    with pytest.raises(RefusedError) as caught:
        recorded.predict(NOT_A_CHEST)
    problem = caught.value.problem
    assert (problem.status, problem.code) == (422, "not_a_chest_radiograph")
    assert problem.title
    assert problem.detail
    assert problem.input_check is not None
    assert not problem.input_check.accepted
    assert re.fullmatch("[0-9a-f-]{8,64}", problem.request_id or "")
    assert f"request {problem.request_id}" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [(b"", 400, "empty_file"), (b"text", 415, "unsupported_format")],
)
def test_a_file_that_is_no_image_is_a_problem(
    client: Client, data: bytes, status: int, code: str
) -> None:
    with pytest.raises(ProblemError) as caught:
        client.predict(data)
    assert type(caught.value) is ProblemError
    assert (caught.value.problem.status, caught.value.problem.code) == (status, code)


def test_a_key_opens_what_is_closed_without_it(settings: Settings) -> None:
    key = make_key()
    closed = settings.model_copy(update={"api_keys": {"radiology": hash_of(key)}})
    with served(create_app(closed)) as raw:
        with Client(str(raw.base_url), api_key=key) as client:
            assert client.predict(radiograph_png()).model.name == "tiny"
            assert client.metadata().name == "tiny"
        for wrong in (None, "wrong"):
            with Client(str(raw.base_url), api_key=wrong) as client:
                assert client.ready()
                with pytest.raises(UnauthorizedError):
                    client.predict(radiograph_png())


@pytest.mark.parametrize("key", ["two words", "with a newline\n", "schlüssel", "tab\t"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        Client(api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["localhost:8000", "/predict", "ftp://x", "http://", "http://x:port"]
)
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Client(address)


def test_nobody_at_the_address_is_unreachable_and_not_ready() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retry_for_s=0) as client:
        assert not client.ready()
        with pytest.raises(UnreachableError) as caught:
            client.predict(radiograph_png())
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def test_a_server_that_hangs_up_is_asked_again(raw: httpx.Client) -> None:
    """On real connections: the first two end without an answer, as when a worker is killed."""
    time, body = Time(), predict(raw, radiograph_png()).content
    with hangs_up(2, body) as address, Client(address, sleep=time.sleep) as client:
        assert client.predict(radiograph_png()).model.name == "tiny"
    assert len(time.pauses_s) == 2


def test_the_errors_of_a_caller_are_one_tree_that_survives_a_process_boundary() -> None:
    problem = Problem("about:blank", "Title", 429, "detail", "code", "id", InputCheck(False, 0.1))
    tree = [
        member
        for member in vars(client_module).values()
        if inspect.isclass(member) and issubclass(member, Exception)
    ]
    assert len(tree) == 7
    for kind in tree:
        assert issubclass(kind, ClientError)
        error = kind(problem) if issubclass(kind, ProblemError) else kind("message")
        error.retry_after_s = 3.0
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert type(copy) is kind
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)


# --- patience -------------------------------------------------------------------------------------


class Time:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        self.now_s += pause_s


class Server:
    """Answers as told, one after the other, and from then on as told last."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.n_requests = 0
        self.bodies: set[int] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.add(len(request.read()))
        answer = self._answers[min(self.n_requests, len(self._answers) - 1)]
        self.n_requests += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def answer(raw: httpx.Client) -> httpx.Response:
    """A real answer, to be given at the end of a sequence."""
    return httpx.Response(200, content=predict(raw, radiograph_png()).content)


def busy(status: int, **headers: str | bytes) -> httpx.Response:
    return httpx.Response(
        status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        json={
            "type": "urn:chestxray:problem:overloaded",
            "title": "Overloaded",
            "status": status,
            "detail": "come back later",
            "code": "overloaded",
            "request_id": "0123abcd",
        },
    )


def patient(server: Server, time: Time, *, jitter: float = 0.5, retry_for_s: float = 30) -> Client:
    return Client(
        "http://test",
        retry_for_s=retry_for_s,
        transport=httpx.MockTransport(server),
        sleep=time.sleep,
        clock=time.clock,
        jitter=lambda: jitter,
    )


DATES = {"date": "Tue, 03 Mar 2026 10:00:00 GMT", "retry_after": "Tue, 03 Mar 2026 10:00:07 GMT"}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "least_s"),
    [
        ({"retry_after": "3"}, 3),
        (DATES, 7),
        (DATES | {"date": "Tue, 03 Mar 2026 10:00:09 GMT"}, 0),  # it is over
        ({"retry_after": DATES["retry_after"]}, 0),  # by which clock?
        ({"retry_after": "soon"}, 0),
        ({"retry_after": "-3"}, 0),
        ({"retry_after": b"\xb3"}, 0),
        ({}, 0),
    ],
)
def test_a_busy_server_is_asked_again_when_it_says_and_a_little_later(
    answer: httpx.Response, status: int, headers: dict[str, str], least_s: float
) -> None:
    time, server = Time(), Server(busy(status, **headers), answer)
    assert patient(server, time).predict(radiograph_png()).model.name == "tiny"
    assert time.pauses_s == [least_s + 0.25]  # half, by the jitter, of the first half second
    assert len(server.bodies) == 1  # the second time everything was sent again


@pytest.mark.parametrize(
    ("attempt", "longest_s"), [(1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 8), (7, 8)]
)
def test_clients_that_were_sent_away_together_do_not_come_back_together(
    answer: httpx.Response, attempt: int, longest_s: float
) -> None:
    pauses_s = []
    for jitter in (0, 0.5, 1):
        time, server = Time(), Server(*[busy(429, retry_after="2")] * attempt, answer)
        patient(server, time, jitter=jitter, retry_for_s=100).predict(radiograph_png())
        pauses_s.append(time.pauses_s[-1])
    assert pauses_s == [2, 2 + longest_s / 2, 2 + longest_s]


@pytest.mark.parametrize(
    "broken",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("no answer to SYN"),
        httpx.ReadError("reset"),
        httpx.WriteError("broken pipe"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_a_broken_connection_is_tried_again_with_growing_pauses(
    answer: httpx.Response, broken: Exception
) -> None:
    time, server = Time(), Server(broken, broken, broken, answer)
    assert patient(server, time).predict(radiograph_png()).model.name == "tiny"
    assert time.pauses_s == [0.25, 0.5, 1.0]


def test_a_certificate_that_is_not_trusted_is_no_broken_connection() -> None:
    broken = httpx.ConnectError("certificate verify failed")
    broken.__cause__ = ssl.SSLCertVerificationError("certificate verify failed")
    assert attempts_at(broken, UnreachableError) == 1


def test_a_server_that_is_too_slow_is_not_asked_for_more() -> None:
    assert attempts_at(httpx.ReadTimeout("timed out"), UnreachableError) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 415, 422, 425, 500, 501])
def test_what_would_end_the_same_way_is_asked_once(status: int) -> None:
    assert attempts_at(busy(status, retry_after="1"), ProblemError) == 1


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (busy(429), OverloadedError),
        (busy(503), NotReadyError),
        (httpx.Response(502, html="<h1>Bad Gateway</h1>"), NotReadyError),
        (httpx.Response(504, html="<h1>Gateway Timeout</h1>"), NotReadyError),
        (httpx.ConnectError("refused"), UnreachableError),
    ],
)
def test_patience_ends(last: httpx.Response | Exception, error: type[ClientError]) -> None:
    time, server = Time(), Server(last)
    with pytest.raises(error):
        patient(server, time, jitter=1, retry_for_s=20).predict(radiograph_png())
    assert time.pauses_s == [0.5, 1, 2, 4, 8]
    assert server.n_requests == 6


def test_a_wait_longer_than_all_patience_is_not_begun() -> None:
    time, server = Time(), Server(busy(429, retry_after="31"))
    with pytest.raises(OverloadedError) as caught:
        patient(server, time, retry_for_s=30).predict(radiograph_png())
    assert time.pauses_s == []
    assert caught.value.retry_after_s == 31


def attempts_at(answer: httpx.Response | Exception, error: type[ClientError]) -> int:
    time, server = Time(), Server(answer)
    with pytest.raises(error):
        patient(server, time).predict(radiograph_png())
    assert time.pauses_s == []
    return server.n_requests


# --- strangers ------------------------------------------------------------------------------------


def test_new_members_of_an_answer_are_no_obstacle(raw: httpx.Client) -> None:
    said = predict(raw, radiograph_png()).json()
    new = said | {"new": 1, "model": said["model"] | {"new": 1}}
    newer = patient(Server(httpx.Response(200, json=new)), Time())
    assert as_json(newer.predict(b"")) == said
    refused = predict(raw, NOT_A_CHEST).json()
    newer = patient(Server(httpx.Response(422, json=refused | {"new": 1})), Time())
    with pytest.raises(RefusedError):
        newer.predict(b"")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"null", b"{}", b'{"model": 1}', b"\xff"])
def test_an_answer_of_something_else_is_an_error_of_the_client(content: bytes) -> None:
    stranger = patient(Server(httpx.Response(200, content=content)), Time())
    for ask in (lambda: stranger.predict(b""), lambda: stranger.predict_batch([b""])):
        with pytest.raises(ClientError, match="not one of this service"):
            ask()
    with pytest.raises(ClientError, match="not one of this service"):
        stranger.metadata()


def test_fewer_answers_than_files_are_given_to_no_file(raw: httpx.Client) -> None:
    said = predict_batch(raw, [("a", radiograph_png())]).json()
    short = patient(Server(httpx.Response(200, json=said)), Time())
    with pytest.raises(ClientError, match="2 files were sent, 1 were answered"):
        short.predict_batch([radiograph_png(), radiograph_png()])


@pytest.mark.parametrize("body", [b"<h1>Not Found</h1>", b"[]", b'"text"', b"{}", b"\xff"])
def test_a_problem_in_other_words_than_the_services_is_still_a_problem(body: bytes) -> None:
    answer = httpx.Response(404, content=body, headers={"X-Request-ID": "0123abcd"})
    with pytest.raises(ProblemError, match=r"404 Not Found.*0123abcd") as caught:
        patient(Server(answer), Time()).predict(b"")
    assert (caught.value.problem.status, caught.value.problem.code) == (404, "http_error")


def test_a_redirect_is_not_followed_and_says_where_to() -> None:
    moved = httpx.Response(301, headers={"Location": "https://elsewhere/predict"})
    server = Server(moved)
    with pytest.raises(ProblemError, match="Moved Permanently to https://elsewhere/predict"):
        patient(server, Time()).predict(b"")
    assert server.n_requests == 1


# --- agreement ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "ours"),
    [
        ("PredictionAnswer", Prediction),
        ("InputCheckAnswer", InputCheck),
        ("RadiographAnswer", Radiograph),
        ("ModelAnswer", Model),
        ("InputCheckProblem", Problem),
        ("Metadata", Metadata),
        ("OperatingPoint", OperatingPoint),
    ],
)
def test_an_answer_has_the_members_that_the_openapi_document_gives_it(
    raw: httpx.Client, schema: str, ours: type[Any]
) -> None:
    document = raw.get("/openapi.json").json()
    members = list(document["components"]["schemas"][schema]["properties"])
    assert members == [field.name for field in dataclasses.fields(ours)]


def test_the_choices_are_the_services() -> None:
    assert typing.get_args(Choice) == typing.get_args(assessment.Choice)


@pytest.mark.parametrize(
    ("method", "own"),
    [
        (Client.predict, {"self", "image"}),
        (Client.predict_batch, {"self", "images", "files_per_request"}),
    ],
)
def test_what_can_be_asked_and_its_defaults_are_the_services(
    method: Callable[..., Any], own: set[str]
) -> None:
    parameters = inspect.signature(method).parameters
    ours = {name: value.default for name, value in parameters.items() if name not in own}
    theirs = {name: field.default for name, field in schemas.PredictOptions.model_fields.items()}
    assert ours == theirs


def test_answers_are_frozen_and_have_no_room_for_more(client: Client) -> None:
    prediction = client.predict(radiograph_png())
    with pytest.raises(dataclasses.FrozenInstanceError):
        prediction.label = "NORMAL"  # type: ignore[misc]
    assert not hasattr(prediction, "__dict__")


def test_importing_the_client_loads_httpx_and_nothing_of_the_service() -> None:
    program = """
import sys
import chestxray.client
ours = sorted(name for name in sys.modules if name.partition(".")[0] == "chestxray")
heavy = {"numpy", "fastapi", "starlette", "pydantic", "PIL", "onnxruntime", "typer"}
print(ours, sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['chestxray', 'chestxray.client'] []"


def test_the_client_imports_the_standard_library_and_httpx_alone() -> None:
    tree = ast.parse(Path(client_module.__file__).read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == {"httpx"}


# --- the page -------------------------------------------------------------------------------------


def test_the_examples_of_the_pages_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [REPOSITORY / "README.md", REPOSITORY / "docs" / "client.md"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    blocks = re.findall(r"^```python *\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    monkeypatch.chdir(REPOSITORY)
    with served(create_app(Settings())) as raw:
        for block in blocks:
            assert "http://127.0.0.1:8000" in block
            # Its own words, at this test's address.
            exec(block.replace("http://127.0.0.1:8000", str(raw.base_url)), {})  # noqa: S102
    probability, *printed = capsys.readouterr().out.splitlines()
    assert 0.7 < float(probability) < 1
    assert printed[0].startswith("PNEUMONIA 0.")
    assert [line.split()[1] for line in printed[1:5]] == ["NORMAL"] * 2 + ["PNEUMONIA"] * 2
    assert printed[5].startswith("resnet18 NORMAL the patient's age is not known")
    assert printed[6].startswith("this does not look like a frontal chest radiograph 0.")


# --- what these tests need ------------------------------------------------------------------------


def as_json(answer: Any) -> Any:
    """An answer as the service writes it."""
    if dataclasses.is_dataclass(answer):
        return {
            field.name: as_json(getattr(answer, field.name)) for field in dataclasses.fields(answer)
        }
    if isinstance(answer, tuple):
        return [as_json(element) for element in answer]
    if isinstance(answer, dict):
        return {name: as_json(value) for name, value in answer.items()}
    if isinstance(answer, bytes):
        return "data:image/png;base64," + base64.b64encode(answer).decode()
    return answer


@contextlib.contextmanager
def hangs_up(n_times: int, answer: bytes) -> Iterator[str]:
    """The address of a server that ends so many connections without a word, then answers."""

    class HangingUp(HTTPServer):
        left = n_times

        def verify_request(self, *_: object) -> bool:
            self.left -= 1
            return self.left < 0

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    with HangingUp(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
