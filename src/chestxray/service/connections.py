"""A connection: uvicorn's, with the bounds that it lacks on a request's head.

uvicorn waits for a head for ever and takes one of any length, and tells of a broken one in plain
text. Here a head must come in time and in size, and what is broken gets a problem.

Does not: bound bodies (``multipart`` does) or read them.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chestxray.service.boundary import HEADERS
from chestxray.service.problems import MEDIA_TYPE, make_problem
from chestxray.service.request_id import HEADER, request_id, request_id_for

HEAD_TIMEOUT_S = 20.0
"""From a connection's or a head's first byte to the head's last."""

MAX_HEAD_BYTES = 64 * 1024
"""Of the request line and all headers; as h11 has it. Browsers and proxies send a few KiB."""


class _Coalescing:
    """A transport whose writes of one turn of the event loop leave together.

    uvicorn writes the head and the body of an answer one after the other. Together they cost one
    system call, and a proxy that forwards an early head over HTTP/2 does not lose the body.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pending: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pending:
            self._transport.writelines(self._pending)
            self._pending = []


_OFFER = re.compile(rb"(?i)\r\nupgrade:[^\r\n]*(?=\r\n)")


class Connection(HttpToolsProtocol):
    """A connection whose requests' heads are bounded in time and in size."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Coalescing(transport, self.loop))  # type: ignore[arg-type]
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if self._head_timer is None:
                self._await_head()
            self._head_bytes += len(data)
            data = _without_offer(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "Head too large", "headers_too_large")

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._in_head and self.cycle.response_complete:
            self.transport.close()  # the boundary has taken in as much after the answer as it may

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the name is uvicorn's
        self._refuse(400, "Malformed request", "malformed_request")

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self._head_bytes > 0:
            self._refuse(408, "Head too slow", "slow_head")
        else:
            self.transport.close()  # a connection that was opened in advance and never used

    def _refuse(self, status: int, title: str, code: str) -> None:
        """Answer with a problem and close, unless the answer to what came before is on its way."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if not (answering and self.cycle.response_started):
            self.transport.write(_problem(status, title, code))
        self.transport.close()


def _without_offer(data: bytes) -> bytes:
    """``data``, which begins in a head, without the offer to go on in another protocol.

    Java's client offers HTTP/2 with every request. Nobody takes the offer here, but the parser that
    sees it would take the body for that other protocol and drop it.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _OFFER.sub(b"", head + end[:2]) + end[2:] + rest


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
