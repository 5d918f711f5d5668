"""Around all routes: what every request gets, however it ends.

An id; headers that are always right; a line in the log and a count in the metrics; a problem where
something unexpected happened. An answer that is given before the body has been read (a full queue,
a body too long, a missing key) is sent at once, and then the rest of the body is taken in and
dropped: a connection closed on a sender resets it, and the sender would never see the answer.

Does not: know what is asked or answered (``routes`` does).
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chestxray.service.metrics import Metrics
from chestxray.service.problems import make_problem
from chestxray.service.request_id import HEADER, request_id, request_id_for
from chestxray.service.responses import problem_response

logger = logging.getLogger(__name__)

HEADERS = {
    "Cache-Control": "no-store",  # an answer speaks of a patient
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer that does not set them otherwise. HSTS is for who ends TLS: the proxy."""

_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

GONE = 499
"""nginx's status for a client that went away; in log and metrics only, since nobody reads it."""

TOO_SLOW = 408
"""The status after which nothing more is read."""

QUIET = frozenset({"/livez", "/readyz", "/metrics"})
"""Routes that are asked every few seconds; they are logged at ``debug`` when all is well."""


class Boundary:
    """The outermost layer.

    ``max_unread_bytes`` and ``timeout_s`` bound what is taken in of a body after its answer.
    ``draining`` tells whether connections are to end with their answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_unread_bytes: int,
        timeout_s: float,
        draining: Callable[[], bool],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_unread_bytes = max_unread_bytes
        self._timeout_s = timeout_s
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = request_id_for(Headers(scope=scope).get(HEADER))
        reset = request_id.set(identity)
        exchange = _Exchange(self, scope, receive, send, identity)
        begun = time.perf_counter()
        try:
            await self._answer(exchange, scope)
        finally:
            self._account(scope, exchange.status, time.perf_counter() - begun)
            request_id.reset(reset)

    async def _answer(self, exchange: _Exchange, scope: Scope) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = GONE
        except Exception as exc:
            # Not the message, which may quote what was sent.
            where = "".join(traceback.format_tb(exc.__traceback__))
            logger.error("unexpected %s\n%s", type(exc).__name__, where)  # noqa: TRY400
            if exchange.status is not None:
                raise
            problem = make_problem(
                500, "Internal error", "The server failed; this is logged.", "internal_error"
            )
            self._metrics.refused(problem.code)
            await problem_response(problem)(scope, exchange.receive, exchange.send)

    def closes(self, headers: Headers, *, body_read: bool, asked_for_body: bool) -> bool:
        """Whether the connection must end with an answer that comes now."""
        if body_read:
            return self._draining()
        declared = headers.get("content-length", "")
        unknown = not (declared.isascii() and declared.isdigit())
        too_long = unknown or int(declared) > self._max_unread_bytes
        # Who waits to be asked for the body may send it or not: nobody could tell what comes next.
        unasked = not asked_for_body and "expect" in headers
        return too_long or unasked or self._draining()

    async def drop_rest(self, receive: Receive) -> None:
        """Take in what is still sent, in bounds, and keep nothing of it."""
        n_bytes = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while n_bytes <= self._max_unread_bytes:
                    message = await receive()
                    n_bytes += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            pass

    def _account(self, scope: Scope, status: int | None, duration_s: float) -> None:
        status = GONE if status is None else status
        route = getattr(scope.get("route"), "path", "other")
        key = scope.get("state", {}).get("key", "")
        self._metrics.request(route=route, status=status, key=key, duration_s=duration_s)
        level = logging.DEBUG if route in QUIET and status < 400 else logging.INFO
        logger.log(
            level,
            "%s %s %d in %.0f ms",
            scope["method"],
            route,
            status,
            1000 * duration_s,
            extra={
                "method": scope["method"],
                "route": route,
                "status": status,
                "duration_ms": round(1000 * duration_s, 1),
                "key": key,
            },
        )


class _Exchange:
    """One request's ``receive`` and ``send``, with what has passed through them."""

    def __init__(
        self, boundary: Boundary, scope: Scope, receive: Receive, send: Send, identity: str
    ) -> None:
        self.status: int | None = None
        self._boundary = boundary
        self._receive, self._send = receive, send
        self._identity = identity
        self._request_headers = Headers(scope=scope)
        self._asked_for_body = False
        self._body_read = not {"content-length", "transfer-encoding"} & set(self._request_headers)

    async def receive(self) -> Message:
        self._asked_for_body = True
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._body_read = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name for name, _ in message["headers"]}
            message["headers"] += [pair for pair in _RAW_HEADERS if pair[0] not in given]
            headers = MutableHeaders(scope=message)
            headers[HEADER] = self._identity
            closes = self._boundary.closes(
                self._request_headers,
                body_read=self._body_read,
                asked_for_body=self._asked_for_body,
            )
            if closes or self.status == TOO_SLOW:
                headers["Connection"] = "close"
        elif not message.get("more_body", False) and self._must_drop_rest():
            await self._send({**message, "more_body": True})
            await self._boundary.drop_rest(self.receive)
            message = {"type": "http.response.body"}
        await self._send(message)

    def _must_drop_rest(self) -> bool:
        waits_to_be_asked = not self._asked_for_body and "expect" in self._request_headers
        # Who was too slow to be heard is not listened to any longer.
        return not (self._body_read or waits_to_be_asked or self.status == TOO_SLOW)
