"""A connection: uvicorn's, with bounds on a request's head and a decent end.

uvicorn waits for a head for ever and takes one of any length, and tells of a broken one in plain
text. Here a head must come in time and in size, and what is broken gets a problem.

An answer may be given before its request's body has been read: a full queue, a body too long, a
missing key. A connection that is closed on a sender is reset, and the sender never sees the answer.
So the rest of the body is taken in and dropped, in bounds, at next to no cost.

Does not: bound bodies that are wanted (``multipart`` does) or read them.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chestxray.service.http.boundary import HEADERS
from chestxray.service.http.problems import MEDIA_TYPE, make_problem
from chestxray.service.http.request_id import HEADER, request_id, request_id_for

HEAD_TIMEOUT_S = 20.0
"""From a connection's or a head's first byte to the head's last."""

MAX_HEAD_BYTES = 64 * 1024
"""Of the request line and all headers, as h11 has it; a little more may come in the read that
completes them. Browsers and proxies send a few KiB."""

REST_TIMEOUT_S = 20.0
"""From an answer to the end of the body that it did not wait for."""

MAX_REST_BYTES = 128 * 1024 * 1024
"""Of such a body; the longest body that the service takes by default."""

RETRY_PAUSE_S = 1.0
"""For so long nothing is read from a connection that was told to come back later, and it was told
no shorter time. Clients that come back at once would otherwise keep the event loop so busy with
refusing them that the requests which were let in could hardly be read."""

_OFFER = re.compile(rb"(?i)\r\nupgrade:[^\r\n]*(?=\r\n)")


class Connection(HttpToolsProtocol):
    """A connection whose requests' heads are bounded, and that hears its senders out."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.in_head = True
        """Whether the next byte belongs to a head, not to a body."""
        self._head_bytes = 0
        self._rest_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Outgoing(transport, self))  # type: ignore[arg-type]
        self._time(HEAD_TIMEOUT_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._untime()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.in_head:
            if self._timer is None:
                self._time(HEAD_TIMEOUT_S, self._head_is_late)
            self._head_bytes += len(data)
            data = _without_offer(data)
        elif self.cycle.response_complete:
            self._rest_bytes += len(data)
            if self._rest_bytes > MAX_REST_BYTES:
                self.transport.abort()
                return
        super().data_received(data)
        if self.in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "Head too large", "headers_too_large")

    def on_headers_complete(self) -> None:
        self._untime()
        self.in_head = False
        self._head_bytes = self._rest_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.in_head = True
        if self.cycle.response_complete:  # what came was the rest
            self._untime()
            self._exchange_ended()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.cycle.response_complete:
            return  # the answer was to a request before this one
        if self.in_head:
            self._exchange_ended()
        else:
            self._time(REST_TIMEOUT_S, self.transport.abort)

    def _exchange_ended(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()
        elif "retry_after_s" in self.cycle.scope["state"]:
            self.flow.pause_reading()
            self.loop.call_later(RETRY_PAUSE_S, self.flow.resume_reading)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the name is uvicorn's
        self._refuse(400, "Malformed request", "malformed_request")

    def _time(self, seconds: float, then: Any) -> None:
        self._untime()
        self._timer = self.loop.call_later(seconds, then)

    def _untime(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        if self._head_bytes > 0:
            self._refuse(408, "Head too slow", "slow_head")
        else:
            self.transport.abort()  # a connection that was opened in advance and never used

    def _refuse(self, status: int, title: str, code: str) -> None:
        """Answer with a problem and close, unless the answer to what came before is on its way."""
        if self.transport.is_closing():  # what comes is the rest of a body, and broken
            self.transport.abort()
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if not (answering and self.cycle.response_started):
            self.transport.write(_problem(status, title, code))
        self.in_head = True  # what else comes is no body
        self.transport.close()


class _Outgoing:
    """The transport of a connection, as uvicorn sees it.

    Writes of one turn of the event loop leave together: uvicorn writes the head and the body of an
    answer one after the other, which costs two system calls, and a proxy that forwards the head of
    an early answer over HTTP/2 at once loses its body. And what is closed while a body is coming
    ends only for writing; the connection ends when the body has.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport, self._connection = transport, connection
        self._pending: list[bytes] = []
        self._closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self.is_closing():
            return
        if not self._pending:
            self._connection.loop.call_soon(self._flush)
        self._pending.append(data)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        self._flush()
        self._closing = True
        if self._connection.in_head:
            self._transport.close()
        else:
            self._transport.write_eof()
            self._connection.flow.resume_reading()  # uvicorn pauses before 64 KiB of a body

    def abort(self) -> None:
        """Close now, after what has been written, whatever still comes."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pending and not self._transport.is_closing():
            self._transport.writelines(self._pending)
        self._pending = []


def _without_offer(data: bytes) -> bytes:
    """``data``, which begins in a head, without the offer to go on in another protocol.

    Java's client offers HTTP/2 with every request. Nobody takes the offer here, but the parser that
    sees it would take the body for that other protocol and drop it.
    """
    end = data.find(b"\r\n\r\n")
    offer = _OFFER.search(data, 0, len(data) if end < 0 else end + 2)
    return data if offer is None else data[: offer.start()] + data[offer.end() :]


def _problem(status: int, title: str, code: str) -> bytes:
    identity = request_id_for(None)
    reset = request_id.set(identity)
    body = make_problem(status, title, title, code).model_dump_json().encode()
    request_id.reset(reset)
    headers = HEADERS | {
        HEADER: identity,
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
