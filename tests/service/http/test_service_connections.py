"""Heads come in time and in size, and what is broken gets a problem."""

import json
import logging
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.http import connections
from chestxray.service.settings import Settings
from factories import raw_http
from factories.requests import radiograph_png
from factories.servers import served, serving, wait_until

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


def problem(response, body: bytes) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(body)["request_id"] == response.headers["x-request-id"]
    return response.status, json.loads(body)["code"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_problem(client: httpx.Client, garbage: bytes) -> None:
    with raw_http.connected(client) as connection:
        connection.sendall(garbage)
        assert problem(*raw_http.received(connection)) == (400, "malformed_request")
        assert raw_http.is_closed(connection)


def test_a_head_that_does_not_end_is_cut_by_its_size(client: httpx.Client) -> None:
    with raw_http.connected(client) as connection:
        connection.sendall(GET + b"X-Long: " + b"x" * connections.MAX_HEAD_BYTES)
        assert problem(*raw_http.received(connection)) == (431, "headers_too_large")


def test_a_head_that_does_not_end_is_cut_by_the_clock(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.05)
    with raw_http.connected(client) as connection:
        connection.sendall(GET)
        assert problem(*raw_http.received(connection)) == (408, "slow_head")


def test_the_second_head_of_a_connection_is_bounded_as_well(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.2)
    with raw_http.connected(client) as connection:
        connection.sendall(GET + b"\r\n")
        assert raw_http.received(connection)[0].status == 200
        connection.sendall(GET)
        assert problem(*raw_http.received(connection)) == (408, "slow_head")


def test_a_connection_that_is_never_used_is_closed_without_a_word(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.05)
    with raw_http.connected(client) as connection:
        assert raw_http.is_closed(connection)


def test_a_request_is_answered_before_the_garbage_behind_it_ends_the_connection(
    client: httpx.Client,
) -> None:
    body = raw_http.form(radiograph_png())
    with raw_http.connected(client) as connection:
        connection.sendall(raw_http.post(len(body)) + body + b"GARBAGE\r\n\r\n")
        response, answer = raw_http.received(connection)
        assert response.status == 200
        assert json.loads(answer)["label"]
        assert raw_http.is_closed(connection)


def test_an_offer_of_http_2_is_declined_and_the_request_answered(client: httpx.Client) -> None:
    body = raw_http.form(radiograph_png())
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]
    with raw_http.connected(client) as connection:
        for _ in range(2):  # as Java's client does, with each request
            connection.sendall(raw_http.post(len(body), *offer) + body)
            response, answer = raw_http.received(connection)
            assert response.status == 200, answer


def test_requests_sent_at_once_are_answered_in_their_order(client: httpx.Client) -> None:
    body = raw_http.form(radiograph_png())
    with raw_http.connected(client) as connection:
        last = GET + b"Connection: close\r\n\r\n"
        connection.sendall(raw_http.post(len(body)) + body + last)
        with connection.makefile("rb") as answers:
            heads = re.split(rb"(?=HTTP/1.1 200 OK\r\n)", answers.read())[1:]
    assert len(heads) == 2
    assert b'"label"' in heads[0]
    assert heads[1].endswith(b'{"status":"alive"}')


def test_the_head_and_the_body_of_an_answer_leave_together(client: httpx.Client) -> None:
    with raw_http.connected(client) as connection:
        for _ in range(20):
            connection.sendall(GET + b"\r\n")
            assert connection.recv(10_000).endswith(b'{"status":"alive"}')


def test_who_sends_too_much_gets_to_see_the_answer_while_still_sending(
    client: httpx.Client,
) -> None:
    with raw_http.connected(client) as connection:
        # Twice the limit of the settings, of which nothing is read until all of it was sent.
        connection.sendall(raw_http.post(2_000_000))
        connection.sendall(raw_http.FORM_HEAD)
        connection.sendall(bytes(1_900_000))
        response, body = raw_http.received(connection)
        assert problem(response, body) == (413, "too_many_bytes")


def test_after_an_answer_that_came_before_the_body_the_connection_can_be_used_again(
    client: httpx.Client,
) -> None:
    body = raw_http.form(bytes(500_000))
    with raw_http.connected(client) as connection:
        for _ in range(2):
            connection.sendall(raw_http.post(len(body), path="/nowhere") + body)
            response, _ = raw_http.received(connection)
            assert response.status == 404
            assert "connection" not in response.headers


def test_who_waits_to_be_asked_for_the_body_is_refused_without_being_asked(
    client: httpx.Client,
) -> None:
    with raw_http.connected(client) as connection:
        connection.sendall(raw_http.post(2_000_000, "Expect: 100-continue"))
        response, _ = raw_http.received(connection)
        assert response.status == 413
        assert raw_http.is_closed(connection)


def test_what_is_sent_beyond_all_bounds_after_the_answer_ends_the_connection(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_REST_BYTES", 1_000_000)
    with raw_http.connected(client) as connection:
        connection.sendall(raw_http.post(1_000_000_000))
        with pytest.raises(ConnectionError):  # the server has taken in a megabyte and closed
            connection.sendall(bytes(999_000_000))


def test_what_comes_too_slowly_after_the_answer_ends_the_connection(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REST_TIMEOUT_S", 0.05)
    with raw_http.connected(client) as connection:
        connection.sendall(raw_http.post(100, path="/nowhere") + b"x")
        assert raw_http.received(connection)[0].status == 404
        assert raw_http.is_closed(connection)


def test_a_connection_that_was_told_to_come_back_later_is_not_read_until_then(
    settings: Settings, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "RETRY_PAUSE_S", 0.3)
    app = create_app(settings.model_copy(update={"max_buffered_bytes": 1000}), serving(predictor))
    body = raw_http.form(bytes(1500))
    with served(app) as client, raw_http.connected(client) as connection:
        connection.sendall(raw_http.post(len(body)) + body)
        response, answer = raw_http.received(connection)
        assert problem(response, answer) == (429, "overloaded")
        assert int(response.headers["retry-after"]) >= connections.RETRY_PAUSE_S
        connection.sendall(GET + b"\r\n")
        sent_s = time.monotonic()
        assert raw_http.received(connection)[0].status == 200
        assert time.monotonic() - sent_s > 0.2


def test_a_body_that_turns_out_broken_after_its_answer_ends_the_connection_quietly(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    with raw_http.connected(client) as connection, caplog.at_level(logging.ERROR):
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        assert raw_http.received(connection)[0].status == 404
        connection.sendall(b"no length of a chunk\r\n")
        assert raw_http.is_closed(connection)
        assert client.get("/livez").status_code == 200  # a turn of the event loop later
    assert not caplog.records


def test_a_long_body_that_was_refused_on_a_last_connection_does_not_hold_its_sender(
    client: httpx.Client,
) -> None:
    body = raw_http.form(bytes(900_000))
    with raw_http.connected(client) as connection:
        head = raw_http.post(len(body), "Connection: close", path="/nowhere")
        connection.sendall(head + body[:100_000])
        assert raw_http.received(connection)[0].status == 404
        connection.settimeout(5)  # far less than the rest may take
        connection.sendall(body[100_000:])
        assert raw_http.is_closed(connection)


# --- an offer of another protocol, however it comes -----------------------------------------------

OFFER = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]


@pytest.mark.parametrize("first_read_bytes", [5, 60, 110, 150, 171, 185, 200])
def test_an_offer_that_comes_in_the_second_read_of_a_head_is_declined_too(
    client: httpx.Client, first_read_bytes: int
) -> None:
    body = raw_http.form(radiograph_png())
    request = raw_http.post(len(body), *OFFER) + body
    with raw_http.connected(client) as connection:
        connection.sendall(request[:first_read_bytes])
        assert client.get("/livez").status_code == 200  # a turn of the event loop later
        connection.sendall(request[first_read_bytes:])
        response, answer = raw_http.received(connection)
        assert response.status == 200, answer


@pytest.mark.parametrize(
    "offer",
    [
        [*OFFER, "Upgrade: websocket", "upgrade: TLS/1.0"],
        ["Upgrade: h2c, websocket", "Connection: keep-alive", "Connection: upgrade"],
        ["UPGRADE : h2c".replace(" :", ":"), "CONNECTION: close, UPGRADE"],
    ],
)
def test_an_offer_that_is_repeated_or_spelt_otherwise_is_declined_too(
    client: httpx.Client, offer: list[str]
) -> None:
    body = raw_http.form(radiograph_png())
    with raw_http.connected(client) as connection:
        connection.sendall(raw_http.post(len(body), *offer) + body)
        response, answer = raw_http.received(connection)
        assert response.status == 200, answer


def test_a_chunked_body_behind_an_offer_is_read(client: httpx.Client) -> None:
    body = raw_http.form(radiograph_png())
    head = raw_http.post(0, *OFFER, "Transfer-Encoding: chunked")
    head = head.replace(b"Content-Length: 0\r\n", b"")
    with raw_http.connected(client) as connection:
        connection.sendall(head + chunks(body, 1000) + GET + b"Connection: close\r\n\r\n")
        with connection.makefile("rb") as answers:
            assert answers.read().count(b"HTTP/1.1 200 OK\r\n") == 2  # that behind it, too


# --- storms of small things -----------------------------------------------------------------------

CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def chunks(body: bytes, size_bytes: int) -> bytes:
    pieces = [body[i : i + size_bytes] for i in range(0, len(body), size_bytes)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("size_bytes", [connections.MIN_CHUNK_BYTES, 1000, 70_000])
def test_a_body_of_honest_chunks_is_read(client: httpx.Client, size_bytes: int) -> None:
    body = raw_http.form(radiograph_png() + bytes(250_000))
    with raw_http.connected(client) as connection:
        connection.sendall(CHUNKED + chunks(body, size_bytes))
        response, answer = raw_http.received(connection)
        assert response.status == 200, answer


def test_a_short_body_may_come_in_chunks_of_one_byte(client: httpx.Client) -> None:
    body = raw_http.form(bytes(500))
    assert len(body) < connections.FREE_CHUNKS
    with raw_http.connected(client) as connection:
        connection.sendall(CHUNKED + chunks(body, 1))
        assert raw_http.received(connection)[0].status == 415


@pytest.mark.parametrize("path", [b"/predict", b"/nowhere"])
def test_a_storm_of_tiny_chunks_is_refused_and_ends_the_connection(
    client: httpx.Client, path: bytes
) -> None:
    with raw_http.connected(client) as connection:
        connection.sendall(CHUNKED.replace(b"/predict", path) + chunks(bytes(3000), 1)[:-5])
        assert raw_http.received(connection)[0].status in (400, 404)
        assert raw_http.is_closed(connection)


def test_a_storm_of_trailers_is_refused(client: httpx.Client) -> None:
    body = chunks(raw_http.form(radiograph_png()), 5000)[:-2]
    with raw_http.connected(client) as connection:
        connection.sendall(CHUNKED + body + b"X: y\r\n" * 2000)
        assert problem(*raw_http.received(connection)) == (400, "malformed_request")
        assert raw_http.is_closed(connection)


# --- who does not read ----------------------------------------------------------------------------

BUNDLE = "/docs/swagger-ui-bundle.js"


def get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()


@contextmanager
def reading_late(client: httpx.Client) -> Iterator[socket.socket]:
    """A connection that holds little until it is read."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(30)
        connection.connect((client.base_url.host, client.base_url.port))
        yield connection


def test_who_takes_nothing_of_an_answer_is_cut_off(
    settings: Settings, predictor: Predictor
) -> None:
    app = create_app(settings.model_copy(update={"answer_timeout_s": 0.1}), serving(predictor))
    with served(app) as client:
        whole = len(client.get(BUNDLE).content)
        with reading_late(client) as connection:
            connection.sendall(get(BUNDLE))
            wait_until(lambda: ended(connection))
            assert len(all_of(connection)) < whole


def test_who_has_an_answer_and_takes_no_byte_of_it_is_cut_off_when_it_is_complete_too(
    settings: Settings, predictor: Predictor
) -> None:
    app = create_app(settings.model_copy(update={"answer_timeout_s": 0.1}), serving(predictor))
    with served(app) as client, reading_late(client) as connection:
        connection.sendall(get("/openapi.json") * 100)  # each shorter than a piece
        wait_until(lambda: ended(connection))


def test_who_reads_slowly_but_steadily_gets_all_of_an_answer(client: httpx.Client) -> None:
    whole = client.get(BUNDLE).content
    with reading_late(client) as connection:
        connection.sendall(get(BUNDLE).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        read = b"".join(iter(partial(connection.recv, 50_000), b""))
    assert read.endswith(whole)


def ended(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection, however much of it is still unread."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\x01"


def all_of(connection: socket.socket) -> bytes:
    read = bytearray()
    with suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            read += data
    return bytes(read)


def test_many_who_do_not_read_a_file_of_the_documentation_cost_little(
    settings: Settings, predictor: Predictor
) -> None:
    app = create_app(settings, serving(predictor))
    n_readers = 100
    with served(app) as client, ExitStack() as open_ones:
        whole = len(client.get(BUNDLE).content)
        before = resident_bytes()
        for _ in range(n_readers):
            connection = open_ones.enter_context(reading_late(client))
            connection.sendall(get(BUNDLE))
        assert client.get("/livez").status_code == 200
        assert resident_bytes() - before < n_readers * whole / 10


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_an_answer_that_is_being_taken_counts_as_memory_that_bodies_have_not(
    settings: Settings, predictor: Predictor
) -> None:
    app = create_app(settings, serving(predictor))
    admission = app.state.service.admission
    files = [("files", ("a.png", radiograph_png())) for _ in range(16)]
    request = httpx.Request(
        "POST", "http://x/predict_batch?heatmap=true&preview=true&evidence=true", files=files
    )
    head = b"POST %b HTTP/1.1\r\n" % request.url.raw_path
    head += b"".join(b"%b: %b\r\n" % field for field in request.headers.raw) + b"\r\n"
    with served(app) as client:
        with reading_late(client) as connection:
            connection.sendall(head + request.read())
            wait_until(lambda: admission.in_flight == 0 and admission.buffered_bytes > 0)
        wait_until(lambda: admission.buffered_bytes == 0)


# --- too many -------------------------------------------------------------------------------------


def test_beyond_the_limit_who_is_waited_for_longest_makes_room(
    settings: Settings, predictor: Predictor
) -> None:
    app = create_app(settings.model_copy(update={"max_connections": 3}), serving(predictor))
    with served(app) as client, ExitStack() as open_ones:
        first, second, third = (
            open_ones.enter_context(raw_http.connected(client)) for _ in range(3)
        )
        for connection in (second, third, first):  # the order in which they wait from now on
            connection.sendall(GET + b"\r\n")
            assert raw_http.received(connection)[0].status == 200
        assert client.get("/livez").status_code == 200
        assert raw_http.is_closed(second)
        third.sendall(GET + b"\r\n")
        assert raw_http.received(third)[0].status == 200


def test_whose_request_is_being_answered_makes_no_room(
    settings: Settings, predictor: Predictor
) -> None:
    app = create_app(settings.model_copy(update={"max_connections": 2}), serving(predictor))
    admission = app.state.service.admission
    released = threading.Event()
    body = raw_http.form(radiograph_png())
    with served(app) as client, raw_http.connected(client) as asking:
        run = admission.run_in_thread
        admission.run_in_thread = lambda job: run(lambda: released.wait(30) and job())
        asking.sendall(raw_http.post(len(body)) + body)
        wait_until(lambda: admission.in_flight == 1 and admission.waiting == 0)
        for _ in range(5):
            with raw_http.connected(client) as other:
                other.sendall(GET + b"\r\n")
                assert raw_http.received(other)[0].status == 200
        released.set()
        assert raw_http.received(asking)[0].status == 200


# --- whose turn it is -----------------------------------------------------------------------------


class Turns:
    """The event loop's ``call_soon``, a turn at a time."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[..., None], *arguments: object) -> None:
        self.soon.append(partial(callback, *arguments))

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


def test_of_requests_that_are_not_urgent_one_begins_in_a_turn() -> None:
    room, turns, begun = connections.Room(10), Turns(), []
    for number in range(3):
        room.begin_in_turn(partial(begun.append, number), turns)
    for n_turns in range(1, 4):
        turns.turn()
        assert begun == [*range(n_turns)]
    assert not turns.soon


def test_connections_are_let_in_before_and_not_for_ever() -> None:
    room, turns, begun = connections.Room(1000), Turns(), []
    room.begin_in_turn(partial(begun.append, 0), turns)
    n_turns = 0
    while not begun:
        room.enter(object())
        turns.turn()
        n_turns += 1
    assert n_turns == connections.MAX_LET_IN_BEFORE
