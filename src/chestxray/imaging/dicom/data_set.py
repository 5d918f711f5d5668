"""Walks the elements of a DICOM file, be it a Part 10 file or a bare data set, before use.

As the walks through JPEG and PNG: what is truncated, nested too deep or without end is refused, and
what is left are elements whose values lie as they are stored, each proved to be there. A deflated
data set is inflated up to the limit. Nothing after the pixel data is looked at.

Sources: PS3.5 sections 7 and A, PS3.10 section 7. Does not: convert values (``elements`` does, one
at a time), so neither work nor warnings come from elements that nobody asks for.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from chestxray.errors import (
    DamagedFileError,
    TooManyBytesError,
    TruncatedFileError,
    UnsupportedTransferSyntaxError,
)
from chestxray.imaging.radiograph import Limits

MAX_ELEMENTS = 100_000
"""Elements, items and fragments, nested ones too. A radiograph has hundreds."""

MAX_ELEMENTS_OF_SEQUENCE = 10_000
"""In one that is looked into: regions, views and look-up tables have a few of them."""

MAX_SHORT_BYTES = 0xFFFF
"""Of a value that has 16 bits for its length where VRs are explicit, whatever they are here."""

MAX_DEPTH = 32
"""Sequences within sequences. Structured reports reach ten."""

_PREFIX_AT, _PREFIX_END, _PREFIX = 128, 132, b"DICM"
_META_GROUP = b"\2\0"  # always little endian
_FIRST_GROUPS = (0x0002, 0x0008)
_TRANSFER_SYNTAX_UID = 0x00020010
_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UID_BYTES = 64
_UID = re.compile(r"(0|[1-9]\d{0,20})(\.(0|[1-9]\d{0,20})){1,20}")

_DELIMITERS = 0xFFFE  # their group; they have no VR
_UNDEFINED = 0xFFFFFFFF

_VRS = {str(vr).encode() for vr in STANDARD_VR}
_LONG_VRS = {str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32}


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a Part 10 file, or begin as a bare data set does."""
    return data[_PREFIX_AT:_PREFIX_END] == _PREFIX or _look_of(data) is not None


def read_data_set(data: bytes, limits: Limits) -> Dataset:
    """The elements of a file up to its pixel data, values as they are stored.

    ``file_meta.TransferSyntaxUID`` of the result is what the file says, or else what it looks like.
    Whether VRs are explicit is seen from the first element, since files err about it.

    Raises:
        TooManyBytesError: it inflates to more than ``limits.max_bytes``.
        UnsupportedTransferSyntaxError: its transfer syntax is no UID.
        TruncatedFileError, DamagedFileError: its elements cannot be walked.
    """
    view = memoryview(data)
    at = _PREFIX_END if data[_PREFIX_AT:_PREFIX_END] == _PREFIX else 0
    stated, at = _file_meta(view, at)
    if stated == DeflatedExplicitVRLittleEndian:
        view, at = memoryview(_inflate(view[at:], limits.max_bytes)), 0
    encoding = _encoding(stated, view[at : at + 8])
    ds = Dataset(_elements(_Walk(view), view, (at, len(view)), encoding))
    ds.set_original_encoding(not encoding.explicit, encoding.order == "<")
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = stated or encoding.transfer_syntax
    return ds


def items_of(sequence: RawDataElement) -> list[Dataset]:
    """The items of a sequence that ``read_data_set`` has left as it is stored.

    Raises:
        TruncatedFileError, DamagedFileError: as ``read_data_set``.
    """
    view = memoryview(sequence.value or b"")
    encoding = _Encoding(
        explicit=not sequence.is_implicit_VR, order="<" if sequence.is_little_endian else ">"
    )
    # One for all, so that many items are not as many budgets.
    walk = _Walk(view, MAX_ELEMENTS_OF_SEQUENCE)
    spans, _ = walk.items(0, len(view), encoding)
    return [Dataset(_elements(walk, view, span, encoding)) for span in spans]


class _Encoding(NamedTuple):
    explicit: bool
    order: str  # "<" is little endian

    @property
    def transfer_syntax(self) -> UID:
        if not self.explicit:
            return ImplicitVRLittleEndian
        return ExplicitVRLittleEndian if self.order == "<" else ExplicitVRBigEndian


class _Element(NamedTuple):
    tag: int
    vr: bytes | None
    start: int
    end: int  # of the value
    encoding: _Encoding  # of what is in the value
    next: int


class _Walk:
    """Steps from element to element, counting; sequences are walked only where their end asks."""

    def __init__(self, data: memoryview, max_elements: int = MAX_ELEMENTS) -> None:
        self._data = data
        self._steps_left = max_elements

    def elements(
        self, at: int, end: int, encoding: _Encoding, depth: int = 0
    ) -> Iterator[_Element]:
        """Each element from ``at`` to ``end``; the end of an undefined item is the last."""
        while end - at >= 8:
            tag, vr, length, start = self._head(at, encoding)
            inner = encoding
            if length != _UNDEFINED:
                stop = at = start + length
            else:
                # PS3.5 section 6.2.2: what is unknown and of undefined length has implicit VRs.
                inner = _Encoding(explicit=False, order="<") if vr == b"UN" else encoding
                _, stop = self.items(start, end, inner, depth + 1)
                at = stop + 8
            if at > end:
                raise TruncatedFileError("the DICOM file ends within an element")
            yield _Element(tag, vr, start, stop, inner, at)
            if tag == _ITEM_END:
                return

    def items(
        self, at: int, end: int, encoding: _Encoding, depth: int = 0
    ) -> tuple[list[tuple[int, int]], int]:
        """Start and end of each item's content, and where the sequence's delimiter begins."""
        if depth > MAX_DEPTH:
            raise DamagedFileError("the DICOM file's sequences are nested too deep")
        spans: list[tuple[int, int]] = []
        while end - at >= 8:
            tag, _, length, start = self._head(at, _Encoding(explicit=False, order=encoding.order))
            if tag == _SEQUENCE_END:
                return spans, at
            if tag != _ITEM:
                raise DamagedFileError("a DICOM sequence holds what is no item")
            if length != _UNDEFINED:
                stop = at = start + length
            else:
                stop = at = end
                for element in self.elements(start, end, encoding, depth):
                    if element.tag == _ITEM_END:
                        stop, at = element.start - 8, element.next
            if at > end:
                raise TruncatedFileError("the DICOM file ends within an item")
            spans.append((start, stop))
        if depth > 0:
            raise TruncatedFileError("the DICOM file ends within a sequence")
        return spans, at

    def _head(self, at: int, encoding: _Encoding) -> tuple[int, bytes | None, int, int]:
        """An element's tag, VR, length and where its value begins."""
        self._steps_left -= 1
        if self._steps_left < 0:
            raise DamagedFileError("the DICOM file has more elements than any radiograph needs")
        order = encoding.order
        group, element = struct.unpack_from(f"{order}HH", self._data, at)
        tag, vr = group << 16 | element, bytes(self._data[at + 4 : at + 6])
        # Some writers change to implicit VRs within explicit ones: a length is no two capitals.
        if group == _DELIMITERS or not encoding.explicit or not _is_vr(vr):
            (length,) = struct.unpack_from(f"{order}I", self._data, at + 4)
            return tag, None, length, at + 8
        if vr not in _LONG_VRS:
            (length,) = struct.unpack_from(f"{order}H", self._data, at + 6)
            return tag, vr, length, at + 8
        if at + 12 > len(self._data):
            raise TruncatedFileError("the DICOM file ends within an element")
        (length,) = struct.unpack_from(f"{order}I", self._data, at + 8)
        return tag, vr, length, at + 12


def _is_vr(code: bytes) -> bool:
    return code.isalpha() and code.isupper()


def _elements(
    walk: _Walk, view: memoryview, span: tuple[int, int], encoding: _Encoding
) -> dict[BaseTag, RawDataElement | DataElement]:
    """The elements in a span of ``view``, up to the pixel data."""
    found: dict[BaseTag, RawDataElement | DataElement] = {}
    for element in walk.elements(*span, encoding):
        if element.end - element.start > MAX_SHORT_BYTES and _is_short(element.tag):
            raise DamagedFileError("an element of the DICOM file is longer than its kind can be")
        found[BaseTag(element.tag)] = _raw(view, element)
        if element.tag == _PIXEL_DATA:
            break
    return found


def _is_short(tag: int) -> bool:
    """Whether the standard gives an element a VR of short values: numbers, codes, names, dates."""
    if not dictionary_has_tag(tag):
        return False
    return not any(vr.encode() in _LONG_VRS for vr in dictionary_VR(tag).split(" or "))


def _file_meta(view: memoryview, at: int) -> tuple[UID | None, int]:
    """The transfer syntax in the file meta information, and where that ends."""
    transfer_syntax = None
    walk = _Walk(view).elements(at, len(view), _Encoding(explicit=True, order="<"))
    while view[at : at + 2] == _META_GROUP and (element := next(walk, None)):
        if element.tag == _TRANSFER_SYNTAX_UID:
            transfer_syntax = _uid(bytes(view[element.start : element.end][: _UID_BYTES + 2]))
        at = element.next
    return transfer_syntax, at


def _raw(view: memoryview, element: _Element) -> RawDataElement:
    value = bytes(view[element.start : element.end])
    return RawDataElement(
        BaseTag(element.tag),
        element.vr.decode("ascii") if element.vr else None,
        len(value),
        value,
        element.start,
        not element.encoding.explicit,
        element.encoding.order == "<",
    )


def _uid(stored: bytes) -> UID | None:
    value = stored.decode("latin-1").strip("\0 ")
    if value and (len(value) > _UID_BYTES or not _UID.fullmatch(value)):
        raise UnsupportedTransferSyntaxError("the transfer syntax is no UID")
    return UID(value) if value else None


def _encoding(transfer_syntax: UID | None, head: memoryview) -> _Encoding:
    """How the elements are encoded, by what the file says and by its first element."""
    look = _look_of(head)
    if transfer_syntax is None:
        return look or _Encoding(explicit=False, order="<")
    explicit = look.explicit if look else transfer_syntax != ImplicitVRLittleEndian
    return _Encoding(explicit, ">" if transfer_syntax == ExplicitVRBigEndian else "<")


def _look_of(head: bytes | memoryview) -> _Encoding | None:
    """The encoding of a first element that looks like a data set's."""
    if len(head) < 8:
        return None
    explicit = bytes(head[4:6]) in _VRS
    for order in "<>":
        group, element, length = struct.unpack_from(f"{order}HHI", head)
        # The first elements are short: a length of group, a character set, a type.
        plausible = explicit or (order == "<" and element < 0x0100 and length < 0x0400)
        if group in _FIRST_GROUPS and plausible:
            return _Encoding(explicit, order)
    return None


def _inflate(deflated: memoryview, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(deflated, max_bytes + 1)
    except zlib.error as exc:
        raise DamagedFileError("the deflated data set is damaged") from exc
    if len(inflated) > max_bytes:
        raise TooManyBytesError(f"the data set inflates to more than {max_bytes} bytes")
    if not inflater.eof:
        raise TruncatedFileError("the deflated data set ends before its end")
    return inflated
