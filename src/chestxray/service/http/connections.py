"""A connection: uvicorn's, with bounds on what it takes and holds, and a decent end.

uvicorn waits for a head for ever and takes one of any length, tells of a broken one in plain text,
and parses whatever a read brings in one go. Here a head must come in time and in size, what is
broken gets a problem, and between two slices of what is not plain body everyone else has a turn.

An answer may be given before its request's body has been read: a full queue, a body too long, a
missing key. A connection that is closed on a sender is reset, and the sender never sees the answer.
So the rest of the body is taken in and dropped, in bounds, at next to no cost.

And an answer must be taken: who reads none, or too slowly, is cut off, and when there are too many
connections those whose clients we wait for longest make room (:class:`Room`).

Does not: bound bodies that are wanted (``multipart`` does) or read them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from chestxray.service.http.boundary import HEADERS, PIECE_BYTES, WORK
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

SLICE_BYTES = 16 * 1024
"""So much is parsed at once of what may hold many small things: heads, chunks, trailers."""

FREE_CHUNKS = 1024
MIN_CHUNK_BYTES = 64
"""What the chunks of a body must have on average beyond the first ``FREE_CHUNKS``. Each costs as
much as a kilobyte of body, and senders of files make them of many KiB."""

MAX_TRAILER_BYTES = 8 * 1024
"""Of the headers behind a chunked body, which nobody reads."""


URGENT = WORK | {"/livez", "/readyz"}
"""Paths whose requests begin at once: those that places are for, and those that say how it goes."""


MAX_LET_IN_BEFORE = 32
"""Connections that are accepted before a request that is not urgent begins."""


class Room:
    """How many connections a process has, who goes when there are too many, and whose turn it is.

    Those go whose clients have had the next move for longest: to send a request or the rest of one,
    or to take an answer. A connection whose request is being answered stays.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._all: set[Connection] = set()
        self._awaited: dict[Connection, None] = {}  # in the order in which their wait began
        self._to_begin: deque[Callable[[], None]] = deque()
        self._entered_in_turn = False
        self._n_let_in_before = 0

    def enter(self, connection: Connection) -> None:
        self._all.add(connection)
        self._entered_in_turn = True
        self.awaits(connection)
        if len(self._all) > self._max_connections:
            longest = next(iter(self._awaited))
            self.leave(longest)
            longest.drop()

    def leave(self, connection: Connection) -> None:
        self._all.discard(connection)
        self._awaited.pop(connection, None)

    def awaits(self, connection: Connection) -> None:
        """The next move is the client's, from now on."""
        self._awaited.pop(connection, None)
        if connection in self._all:
            self._awaited[connection] = None

    def answers(self, connection: Connection) -> None:
        """The next move is ours."""
        self._awaited.pop(connection, None)

    def begin_in_turn(self, begin: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Begin a request that is not urgent: one in each turn of the event loop."""
        self._to_begin.append(begin)
        if len(self._to_begin) == 1:
            loop.call_soon(self._begin_next, loop)

    def _begin_next(self, loop: asyncio.AbstractEventLoop) -> None:
        # uvloop accepts one connection in a turn, and who asks whether we are alive may be among
        # those who wait for that.
        self._n_let_in_before += 1
        if self._entered_in_turn and self._n_let_in_before < MAX_LET_IN_BEFORE:
            self._entered_in_turn = False
        else:
            self._n_let_in_before = 0
            self._to_begin[0]()
            self._to_begin.popleft()
        if self._to_begin:
            loop.call_soon(self._begin_next, loop)


class Connection(HttpToolsProtocol):
    """A connection whose requests and answers are bounded, and that hears its senders out."""

    def __init__(
        self, *args: object, room: Room, answer_timeout_s: float, **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.in_head = True
        """Whether the next byte belongs to a head, not to a body."""
        self._room = room
        self._answer_timeout_s = answer_timeout_s
        self._head_bytes = 0
        self._rest_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._one_after_another = False
        # What has come and is not parsed yet, and whether it may be: see _parse.
        self._unparsed = b""
        self._turn: asyncio.Handle | None = None
        self._held = False
        # Of the body that is coming. What is left of one whose length is known is parsed at once.
        self._plain_bytes_left = 0
        self._body_bytes = 0
        self._n_chunks = 0
        self._trailer_bytes = 0
        # The clock of who does not take what was written.
        self._untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.set_write_buffer_limits(high=PIECE_BYTES // 2, low=0)
        # Nor does the kernel keep more of what is not sent yet, in memory that counts as ours.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, PIECE_BYTES)
        super().connection_made(_Outgoing(transport, self))  # type: ignore[arg-type]
        self._time(HEAD_TIMEOUT_S, self._head_is_late)
        self._room.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.leave(self)
        self._untime()
        self._unparsed = b""
        if self._untaken is not None:
            self._untaken.cancel()
        super().connection_lost(exc)

    def drop(self) -> None:
        """End now: nothing of what is written or read is waited for any more."""
        self._unparsed = b""
        self.transport.drop()  # type: ignore[attr-defined] # it is an _Outgoing

    # --- what comes -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._unparsed += data
        if self._turn is None:
            self._parse()

    def hold(self, *, held: bool) -> None:
        """Whether uvicorn wants no more for now: its buffer is full, or a request waits."""
        self._held = held
        if self._unparsed and not held and self._turn is None:
            self._turn = self.loop.call_soon(self._parse_on)
        elif not self._unparsed:
            self.transport.read(not held)  # type: ignore[attr-defined]

    def _parse_on(self) -> None:
        self._one_after_another = True  # what begins now was sent before it was its turn
        self._parse()
        self._one_after_another = False

    def _parse(self) -> None:
        """Parse a slice of what has come; the rest when everyone else had a turn.

        Only when all is parsed more is read: what one connection can keep the event loop busy with
        at once is a slice of small things, or a read of plain body, which costs nothing.
        """
        self._turn = None
        while self._unparsed and not self._held:
            n_bytes = self._slice_bytes()
            data, self._unparsed = self._unparsed[:n_bytes], self._unparsed[n_bytes:]
            self._parse_slice(data)
            if self._unparsed and self._plain_bytes_left <= 0:
                self._turn = self.loop.call_soon(self._parse_on)
                break
        self.transport.read(not (self._held or self._unparsed))  # type: ignore[attr-defined]

    def _slice_bytes(self) -> int:
        if self.in_head:  # one request, or two if its head began in an earlier read
            end = self._unparsed.find(b"\r\n\r\n", 0, SLICE_BYTES)
            return SLICE_BYTES if end < 0 else end + 4
        return max(SLICE_BYTES, self._plain_bytes_left)

    def _parse_slice(self, data: bytes) -> None:
        if self.in_head:
            if self._timer is None:
                self._time(HEAD_TIMEOUT_S, self._head_is_late)
            self._head_bytes += len(data)
        elif self.cycle.response_complete:
            self._rest_bytes += len(data)
            if self._rest_bytes > MAX_REST_BYTES:
                self._unparsed = b""
                self.transport.abort()
                return
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            if self._offers_another_protocol():
                self._unparsed = data[offer.args[0] :] + self._unparsed
                self._parse_without_offer()
        except HttpParserError:
            self._refuse(400, "Malformed request", "malformed_request")
        if self.in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "Head too large", "headers_too_large")

    def _parse_without_offer(self) -> None:
        """Parse the head that has come again, without the offer to speak another protocol.

        Java's client offers HTTP/2 with every request. Nobody takes the offer here, but the parser
        that has seen it would take the body for that other protocol and drop it.
        """
        method, url, version = self.parser.get_method(), self.url, self.parser.get_http_version()
        lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
        lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._head_bytes = 0
        self._parse_slice(b"\r\n".join([*lines, b"", b""]))

    def _offers_another_protocol(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value) + len(b": \r\n")
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise ValueError("too many trailers")

    def on_headers_complete(self) -> None:
        if self._offers_another_protocol():
            return
        self._untime()
        self.in_head = False
        self._head_bytes = self._rest_bytes = 0
        self._body_bytes = self._n_chunks = self._trailer_bytes = 0
        # That it is a number, and the only one, the parser has seen to.
        lengths = [value for name, value in self.headers if name == b"content-length"]
        self._plain_bytes_left = int(lengths[0]) if lengths else 0
        self._room.awaits(self)
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # A thousand who ask for a file at once, or one who asks a thousand times, would otherwise
        # be answered before anyone else is read.
        begin = partial(super()._start_asgi_task, cycle, app)
        if cycle.scope["path"] in URGENT and not self._one_after_another:
            begin()
        else:
            self._room.begin_in_turn(begin, self.loop)

    def on_chunk_header(self) -> None:
        self._n_chunks += 1
        beyond = self._n_chunks - FREE_CHUNKS
        if beyond > 0 and self._body_bytes < beyond * MIN_CHUNK_BYTES:
            raise ValueError("the chunks are too small")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._plain_bytes_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._offers_another_protocol():
            return
        super().on_message_complete()
        self.in_head = True
        self._plain_bytes_left = 0
        if self.cycle.response_complete:  # what came was the rest
            self._untime()
            self._exchange_ended()
        else:
            self._room.answers(self)

    # --- what leaves ------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        self._one_after_another = True  # what begins now was sent before it was its turn
        super().on_response_complete()
        self._one_after_another = False
        if not self.cycle.response_complete:
            return  # the answer was to a request before this one
        if self.in_head:
            self._exchange_ended()
        else:
            self._time(REST_TIMEOUT_S, self.transport.abort)

    def _exchange_ended(self) -> None:
        self._room.awaits(self)
        if self.transport.is_closing():
            self.transport.abort()
        elif "retry_after_s" in self.cycle.scope["state"]:
            self.flow.pause_reading()
            self.loop.call_later(RETRY_PAUSE_S, self.flow.resume_reading)

    def written(self, n_bytes: int, left_bytes: int) -> None:
        """So much was written just now, and so much is not taken yet."""
        if left_bytes and (self._untaken is None or left_bytes <= n_bytes):
            if self._untaken is not None:
                self._untaken.cancel()
            self._untaken = self.loop.call_later(self._answer_timeout_s, self._drop_if_untaken)
            self._room.awaits(self)

    def _drop_if_untaken(self) -> None:
        self._untaken = None
        if self.transport.get_write_buffer_size():
            self.drop()

    # --- the end ----------------------------------------------------------------------------------

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
        self._unparsed = b""
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
        self._pending_bytes = 0
        self._closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self.is_closing():
            return
        if not self._pending:
            self._connection.loop.call_soon(self._flush)
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= PIECE_BYTES:
            self._flush()  # only what has been written can hold up who writes more

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._connection.hold(held=True)

    def resume_reading(self) -> None:
        self._connection.hold(held=False)

    def read(self, wanted: bool) -> None:
        """Read on, or stop."""
        if self._transport.is_closing():
            return
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

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

    def drop(self) -> None:
        """Close now, whatever still comes, and whether what has been written is taken or not."""
        self._closing = True
        self._pending = []
        if self._transport.get_write_buffer_size():
            # The kernel, too, forgets what it has of an answer that nobody takes.
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending and not self._transport.is_closing():
            self._transport.writelines(pending)
            self._connection.written(self._pending_bytes, self._transport.get_write_buffer_size())
        self._pending_bytes = 0


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
