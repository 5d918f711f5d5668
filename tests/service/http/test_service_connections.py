"""Heads come in time and in size, and what is broken gets a problem."""

import json
import logging
import re
import time

import httpx
import pytest

from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.http import connections
from chestxray.service.settings import Settings
from factories import raw_http
from factories.requests import radiograph_png
from factories.servers import served, serving

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
