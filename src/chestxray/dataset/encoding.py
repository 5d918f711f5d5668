"""Tells in which encoding a text is, as spreadsheets, editors and shells save it.

Does not: guess a national code page, in which any bytes at all have a meaning.
"""

from __future__ import annotations

import codecs

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes) -> str:
    """Python's name of the encoding of a text that begins with ``head``; without a mark, UTF-8.

    An ASCII letter in two bytes is UTF-16 without its byte order mark.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    match [byte == 0 for byte in head[:2]]:
        case [True, False]:
            return "utf-16-be"
        case [False, True]:
            return "utf-16-le"
    return "utf-8-sig"
