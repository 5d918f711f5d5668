"""Around all routes: what every request gets, however it ends.

An id; headers that are always right; a line in the log and a count in the metrics; a problem where
something unexpected happened.

Does not: know what is asked or answered (``api`` does), or handle connections (``connections``).
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chestxray.errors import OverloadedError
from chestxray.service.http.admission import Admission
from chestxray.service.http.problems import make_problem
from chestxray.service.http.request_id import HEADER, request_id, request_id_for
from chestxray.service.http.responses import on_error, problem_response, report_problem
from chestxray.service.metrics import Metrics

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
"""The status after which nobody waits for the rest."""

WORK = frozenset({"/predict", "/predict_batch"})
"""Routes whose requests need a place in the queue."""

PIECE_BYTES = 64 * 1024
"""An answer goes to the connection in pieces of this size, each when the one before is taken: what
is sent to many, such as a file of the page, is in memory once, however many read it slowly."""

QUIET = frozenset({"/livez", "/readyz", "/metrics", "/page/{name}", "/page/examples/{name}"})
"""Routes that are asked every few seconds, or twenty for a page; they are logged at ``debug`` when
all is well."""


class Boundary:
    """The outermost layer of an application. While ``draining``, answers end their connections."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        admission: Admission,
        metrics: Metrics,
        draining: Callable[[], bool],
    ) -> None:
        self._app = app
        self._admission, self._metrics = admission, metrics
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = request_id_for(Headers(scope=scope).get(HEADER))
        reset = request_id.set(identity)
        exchange = _Exchange(scope, receive, send, identity, self._draining)
        if scope["path"] in WORK:
            exchange.keeping = self._admission.keeping
        begun = time.perf_counter()
        try:
            await self._answer(exchange, scope)
        finally:
            self._account(scope, exchange.status, time.perf_counter() - begun)
            request_id.reset(reset)

    async def _answer(self, exchange: _Exchange, scope: Scope) -> None:
        try:
            if scope["path"] in WORK:
                # Before all that it takes to find a route and read a query: refusing must cost
                # next to nothing, or those who are refused take the time of those who are not.
                self._admission.check_room()
            await self._app(scope, exchange.receive, exchange.send)
        except OverloadedError as exc:
            response = await on_error(Request(scope), exc)
            await response(scope, exchange.receive, exchange.send)
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
            report_problem(self._metrics, problem)
            await problem_response(problem)(scope, exchange.receive, exchange.send)

    def _account(self, scope: Scope, status: int | None, duration_s: float) -> None:
        status = GONE if status is None else status
        unrouted = scope["path"] if scope["path"] in WORK else "other"
        route = str(getattr(scope.get("route"), "path", unrouted))
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
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        identity: str,
        draining: Callable[[], bool],
    ) -> None:
        self.status: int | None = None
        self.keeping: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext()
        """Counts the bytes of an answer that is this request's alone while it is sent."""
        self._receive, self._send = receive, send
        self._identity = identity
        self._draining = draining
        # Such a client sends its body or not, as it likes: nobody can tell what comes next.
        self._waits_to_be_asked = "expect" in Headers(scope=scope)

    async def receive(self) -> Message:
        self._waits_to_be_asked = False
        return await self._receive()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name for name, _ in message["headers"]}
            message["headers"] += [pair for pair in _RAW_HEADERS if pair[0] not in given]
            headers = MutableHeaders(scope=message)
            headers[HEADER] = self._identity
            if self._draining() or self._waits_to_be_asked or self.status == TOO_SLOW:
                headers["Connection"] = "close"
        if len(message.get("body", b"")) > PIECE_BYTES:
            with self.keeping(len(message["body"])):
                await self._send_in_pieces(memoryview(message["body"]), message)
        else:
            await self._send(message)

    async def _send_in_pieces(self, body: memoryview, message: Message) -> None:
        for start in range(0, len(body), PIECE_BYTES):
            end = start + PIECE_BYTES
            more_body = end < len(body) or message.get("more_body", False)
            await self._send({**message, "body": body[start:end], "more_body": more_body})
