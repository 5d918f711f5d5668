"""Reads one element's value, leniently where that needs no guess: what cannot be read is not there.

pydicom's conversion would warn with the value, which may be a patient's, and it reads sequences
without bound; so stored values are taken apart here, of data sets that ``read_data_set`` has read
and in which pydicom has not converted the element yet.

Does not: know what the values mean.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.charset import python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from chestxray.imaging.dicom.data_set import items_of

GREATEST = 1e12
"""No slope, window or count is larger, and nothing that is computed from such overflows."""

_LOOKED_AT_BYTES = 1024
"""Of a value. None that is asked for here is longer, and a file's element may have 60 MB."""

_ESCAPE = b"\x1b"

_INTEGERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i"}


def stored(ds: Dataset, keyword: str) -> RawDataElement | None:
    """An element as it is stored, if it is there and not empty."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword  # noqa: S101
    if tag not in ds:
        return None
    element = ds.get_item(BaseTag(tag))
    assert isinstance(element, RawDataElement), "converted by pydicom"  # noqa: S101
    return element if element.value else None


def texts(ds: Dataset, keyword: str, encodings: Sequence[str] = ("latin-1",)) -> list[str]:
    """The values of a code string, date or age: in capitals, without padding and empty ones.

    ``encodings`` are tried in their order; the last must fit any bytes.
    """
    element = stored(ds, keyword)
    if element is None:
        return []
    values = _decoded((element.value or b"")[:_LOOKED_AT_BYTES], encodings).split("\\")
    return [text for value in values if (text := value.strip("\0 ").upper())]


def encodings(ds: Dataset) -> list[str]:
    """In what its words may be: UTF-8, which nothing else looks like; what it says; Latin-1."""
    said = [python_encoding.get(name, "latin-1") for name in texts(ds, "SpecificCharacterSet")]
    return ["utf-8", *reversed(said), "latin-1"]


def _decoded(value: bytes, encodings: Sequence[str]) -> str:
    for encoding in encodings:
        if encoding == "utf-8" and _ESCAPE in value:
            continue  # in one of ISO 2022, of which each byte is ASCII
        try:
            return value.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    raise AssertionError(encodings)


def text(ds: Dataset, keyword: str) -> str | None:
    """The first of ``texts``."""
    return next(iter(texts(ds, keyword)), None)


def number(ds: Dataset, keyword: str) -> float | None:
    """The first value of a DS or IS element, if it is a number not beyond ``GREATEST``."""
    try:
        value = float(text(ds, keyword) or "nan")
    except ValueError:
        return None
    return value if abs(value) <= GREATEST else None


def integers(ds: Dataset, keyword: str, *, signed: bool = False) -> list[int]:
    """The values of an element that is stored as integers.

    ``signed`` says what 16 bits mean where the file does not: with implicit VRs, where the
    dictionary says "US or SS".
    """
    element = stored(ds, keyword)
    if element is None:
        return []
    value = (element.value or b"")[:_LOOKED_AT_BYTES]
    code = _INTEGERS.get(element.VR or "", "h" if signed else "H")
    order = "<" if element.is_little_endian else ">"
    return list(struct.unpack_from(f"{order}{len(value) // struct.calcsize(code)}{code}", value))


def integer(ds: Dataset, keyword: str, *, signed: bool = False) -> int | None:
    """The first of ``integers``."""
    return next(iter(integers(ds, keyword, signed=signed)), None)


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent.

    Raises:
        TruncatedFileError, DamagedFileError: see ``items_of``.
    """
    element = stored(ds, keyword)
    return [] if element is None else items_of(element)
