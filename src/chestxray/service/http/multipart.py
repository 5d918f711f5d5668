"""The files of a multipart body (RFC 7578), read into memory under limits.

Starlette's own form parser spools files to disk, takes a body that breaks off for a whole one, and
cannot give up on one file of many; this one does none of that.

Does not: look into the files, keep parts that were not asked for, or log anything of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers

from chestxray.errors import (
    MalformedBodyError,
    MissingFieldError,
    SlowBodyError,
    TooManyBytesError,
    TooManyFilesError,
)

MAX_OTHER_PARTS = 16
"""Parts beside the files that are skipped without complaint; more cost time and serve nobody."""


MIN_BYTES_PER_S = 16 * 1024
"""A sender on the worst of lines is faster; a few bytes now and then are no way to send a file."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What one request body may hold, and how slowly it may come.

    It has ``timeout_s`` and a second more for each ``MIN_BYTES_PER_S`` that have come.
    """

    max_body_bytes: int
    max_file_bytes: int
    max_files: int
    timeout_s: float


@dataclass(slots=True)
class Upload:
    """One file as sent, or the ``error`` that it broke a limit; then ``data`` is empty."""

    filename: str
    data: bytes = b""
    error: TooManyBytesError | None = None

    def load(self) -> bytes:
        """The data. Raises ``error``."""
        if self.error is not None:
            raise self.error
        return self.data


async def read_uploads(
    headers: Headers,
    stream: AsyncIterator[bytes],
    *,
    name: str,
    limits: BodyLimits,
    buffer: Callable[[int], None],
) -> list[Upload]:
    """The files in the form field ``name``, at least one, in the order sent.

    A file beyond ``max_file_bytes`` is dropped while it arrives and costs only itself. ``buffer``
    is told how many bytes each piece of the body adds to memory, and may raise.

    Raises:
        MalformedBodyError: the body is not multipart/form-data, or breaks off.
        MissingFieldError: there is no file in the field ``name``.
        TooManyBytesError: the body as a whole is too long.
        TooManyFilesError: more than ``max_files`` files.
        SlowBodyError: the body comes too slowly.
    """
    parser = _parser(headers, parts := _Parts(name, limits))
    n_bytes = 0
    async for chunk in _in_time(stream, limits.timeout_s):
        n_bytes += len(chunk)
        if n_bytes > limits.max_body_bytes:
            raise _body_too_long(limits)
        buffer(len(chunk))
        try:
            parser.write(chunk)
        except FormParserError as exc:
            raise MalformedBodyError("the body does not follow multipart/form-data") from exc
    if not parts.ended:
        raise MalformedBodyError("the body ends before its closing boundary")
    if not parts.uploads:
        raise MissingFieldError(f"the form has no file in a field named {name!r}")
    return parts.uploads


def declared_bytes(headers: Headers, limits: BodyLimits) -> int:
    """The length that the body says it has; 0 if it does not say.

    Raises:
        TooManyBytesError: it is too long.
    """
    declared = headers.get("content-length", "")
    n_bytes = int(declared) if declared.isascii() and declared.isdigit() else 0
    if n_bytes > limits.max_body_bytes:
        raise _body_too_long(limits)
    return n_bytes


async def _in_time(stream: AsyncIterator[bytes], timeout_s: float) -> AsyncIterator[bytes]:
    """``stream``, as long as it keeps to the time that :class:`BodyLimits` gives it."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as exc:
            raise SlowBodyError("the body comes too slowly") from exc
        deadline += len(chunk) / MIN_BYTES_PER_S
        yield chunk


def _parser(headers: Headers, parts: _Parts) -> MultipartParser:
    content_type, options = parse_options_header(headers.get("content-type"))
    boundary = options.get(b"boundary")
    if content_type != b"multipart/form-data":
        raise MalformedBodyError("the body must be multipart/form-data")
    if not boundary:
        raise MalformedBodyError("the content type names no boundary")
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": parts.on_part_begin,
                "on_header_field": parts.on_header_field,
                "on_header_value": parts.on_header_value,
                "on_header_end": parts.on_header_end,
                "on_headers_finished": parts.on_headers_finished,
                "on_part_data": parts.on_part_data,
                "on_part_end": parts.on_part_end,
                "on_end": parts.on_end,
            },
        )
    except FormParserError as exc:
        raise MalformedBodyError("the boundary is too long") from exc


def _body_too_long(limits: BodyLimits) -> TooManyBytesError:
    return TooManyBytesError(f"the body has more than the {limits.max_body_bytes} bytes accepted")


@dataclass(slots=True)
class _Parts:
    """What the parser's callbacks gather; they get slices of the chunk they are called for."""

    name: str
    limits: BodyLimits
    uploads: list[Upload] = field(default_factory=list)
    ended: bool = False
    _n_parts: int = 0
    _header_name: bytearray = field(default_factory=bytearray)
    _header_value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _current: Upload | None = None
    _data: bytearray = field(default_factory=bytearray)

    def on_part_begin(self) -> None:
        self._n_parts += 1
        self._disposition = b""
        self._current = None
        if self._n_parts > self.limits.max_files + MAX_OTHER_PARTS:
            raise TooManyFilesError(f"the form has more than {self._n_parts - 1} parts")

    def on_header_field(self, chunk: bytes, start: int, end: int) -> None:
        self._header_name += chunk[start:end]

    def on_header_value(self, chunk: bytes, start: int, end: int) -> None:
        self._header_value += chunk[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != self.name.encode() or b"filename" not in options:
            return
        if len(self.uploads) == self.limits.max_files:
            raise TooManyFilesError(f"more than the {self.limits.max_files} accepted files")
        self._current = Upload(_decoded(options[b"filename"]))
        self.uploads.append(self._current)

    def on_part_data(self, chunk: bytes, start: int, end: int) -> None:
        if self._current is None or self._current.error is not None:
            return
        if len(self._data) + end - start > self.limits.max_file_bytes:
            self._current.error = TooManyBytesError(
                f"the file has more than the {self.limits.max_file_bytes} bytes accepted"
            )
            self._data.clear()
        else:
            self._data += chunk[start:end]

    def on_part_end(self) -> None:
        if self._current is not None:
            self._current.data = bytes(self._data)
            self._data.clear()

    def on_end(self) -> None:
        self.ended = True


def _decoded(filename: bytes) -> str:
    try:
        return filename.decode()
    except UnicodeDecodeError:
        return filename.decode("latin-1")
