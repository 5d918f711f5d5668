"""Reads lists of paths as shells write them: a path on each line, or between zero bytes.

UTF-8 with or without a byte order mark, UTF-16 (PowerShell's ``>``), any ends of lines, and names
that are no UTF-8.

Does not: look for the files, or hold a list in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from chestxray.dataset.encoding import encoding_of
from chestxray.errors import ConfigError

LONGEST_NAME = 4096  # PATH_MAX; what is longer can lie on no disk
_HEAD_BYTES = 4 * LONGEST_NAME + 4  # whatever the encoding, with the end of the first name in it
_BINARY = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")


def is_list(file: str) -> bool:
    """Whether a file is text, so that its lines can be names; raises OSError."""
    with open(file, "rb") as content:  # noqa: PTH123
        head = content.read(_HEAD_BYTES)
    text = head.decode(encoding_of(head), errors="replace")
    if "\0" not in text:
        return b"\0" not in head or not _BINARY.search(text)
    names = text.removesuffix("\0").split("\0")
    return all(name and not _BINARY.search(name) for name in names)


def paths_in(file: str) -> Iterator[str]:
    """The paths in a list.

    Raises:
        ConfigError: it is not in the encoding that it begins with, or holds what can be no path.
    """
    with open(file, "rb") as content:  # noqa: PTH123
        head = content.read(_HEAD_BYTES)
    encoding = encoding_of(head)
    zeros = "\0" in head.decode(encoding, errors="replace")
    with open(  # noqa: PTH123
        file,
        encoding=encoding,
        errors="surrogateescape" if encoding == "utf-8-sig" else "strict",
        newline="" if zeros else None,  # where zeros part them, a name may have ends of lines in it
    ) as text:
        try:
            for path in _parted(text, "\0" if zeros else "\n"):
                if len(path) > LONGEST_NAME:
                    raise ConfigError(f"{file} is neither an archive nor a list of paths")
                if path:
                    yield path
        except UnicodeDecodeError as exc:
            raise ConfigError(f"{file} is not {encoding.upper()} throughout") from exc


def _parted(text: IO[str], end: str) -> Iterator[str]:
    rest = ""
    while more := text.read(LONGEST_NAME):
        *whole, rest = (rest + more).split(end)
        yield from whole
        if len(rest) > LONGEST_NAME:
            yield rest
    yield rest
