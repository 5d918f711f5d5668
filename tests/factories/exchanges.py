"""Sends bytes to a server as they are, and reads all answers that come.

Does not: judge them (``oracles`` does), or mind what is sent.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from io import BytesIO
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"

HANG_S = 30.0
"""No answer and no end of the connection in so long is a hang."""

MORE_S = 0.1
"""After an answer, how long another one is waited for; the server ends most connections."""

BOUNDARY = "no-file-has-this-7d1f0b9e"

_FINAL = re.compile(rb"^HTTP/1\.1 [2-5]", re.MULTILINE)


class HangError(Exception):
    """The server neither answers nor closes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    bodiless: bool = False
    """To a HEAD request."""


def exchange(port: int, data: bytes, *, patience_s: float) -> list[Answer]:
    """Send ``data`` on a connection of its own, and return the answers until its end.

    A server that waits for more is given ``patience_s`` (after an answer, less); then the
    connection is closed for sending, which must end it. A reset by the server is an end, too.

    Raises:
        HangError: it does not end.
        HTTPException: what comes is not HTTP.
    """
    received = bytearray()
    deadline = time.monotonic() + HANG_S
    with socket.create_connection((HOST, port), timeout=HANG_S) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # an answer may be there already
            connection.sendall(data)
        connection.settimeout(patience_s)
        try:
            while chunk := _received(connection):
                received += chunk
                connection.settimeout(MORE_S if _FINAL.search(received) else patience_s)
                if time.monotonic() > deadline:
                    raise HangError("the answer has no end")
        except ConnectionResetError:
            pass
    return parse_answers(bytes(received), head=data.lstrip(b"\r\n ").startswith(b"HEAD "))


def parse_answers(received: bytes, *, head: bool = False) -> list[Answer]:
    """All answers in ``received``; the first may be to a HEAD request where ``head`` is true.

    Raises:
        HTTPException: it is not HTTP, or breaks off.
    """
    stream = _Stream(received)
    answers: list[Answer] = []
    while stream.tell() < len(received):
        bodiless = head and not answers
        answers.append(_answer(_begun(stream, "HEAD" if bodiless else "POST"), bodiless))
        rest = received[stream.tell() :]
        if bodiless and rest and not rest.startswith(b"HTTP/"):
            # The request was too broken to be known for a HEAD.
            stream.seek(0)
            answers = [_answer(_begun(stream, "POST"), bodiless=False)]
    return answers


class Connection:
    """One connection that is kept, for one request after the other; opened again after its end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    @classmethod
    def of(cls, opened: socket.socket, port: int) -> Self:
        """One that was opened, and written to, by somebody else."""
        connection = cls(port)
        connection._socket = opened
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, request: bytes) -> Answer:
        """Send a whole request, and return its answer.

        Raises:
            OSError, HTTPException: the connection breaks before the answer is there.
        """
        self.send(request)
        return self.answer()

    def send(self, request: bytes) -> None:
        """Send a whole request. Raises OSError."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection((HOST, self._port), timeout=HANG_S)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            self._socket.sendall(request)
        except OSError:
            self.close()
            raise

    def answer(self) -> Answer:
        """The answer to what was sent. Raises OSError, HTTPException."""
        assert self._socket is not None, "nothing was sent"
        try:
            with HTTPResponse(self._socket, method="POST") as response:
                response.begin()
                answer = _answer(response, bodiless=False)
        except (OSError, HTTPException):
            self.close()
            raise
        if response.will_close:
            self.close()
        return answer


def upload(target: str, files: Sequence[tuple[str, bytes]]) -> bytes:
    """A whole request that uploads ``files`` as (name, content), in the field that is wanted."""
    field = "files" if "batch" in target else "file"
    parts = []
    for name, content in files:
        disposition = f'form-data; name="{field}"; filename="{name}"'
        head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n"
        parts += [head.encode(), content, b"\r\n"]
    body = b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except TimeoutError:
        pass
    connection.settimeout(HANG_S)
    with suppress(OSError):  # it may be closed by now
        connection.shutdown(socket.SHUT_WR)
    try:
        return connection.recv(65536)
    except TimeoutError as exc:
        raise HangError("neither an answer nor the end of the connection") from exc


def _begun(stream: _Stream, method: str) -> HTTPResponse:
    response = HTTPResponse(stream, method=method)  # type: ignore[arg-type]
    response.begin()
    return response


def _answer(response: HTTPResponse, bodiless: bool) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    try:
        body = response.read()
    except IncompleteRead as exc:
        raise HTTPException(f"an answer with {response.status} breaks off") from exc
    return Answer(response.status, headers, body, bodiless)


class _Stream(BytesIO):
    """What HTTPResponse takes for a socket, and for the file that it makes of one."""

    def makefile(self, _: str) -> Self:
        return self

    def close(self) -> None:
        """Not after the first answer."""
