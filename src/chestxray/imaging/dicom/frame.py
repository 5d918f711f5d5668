"""Gets the one frame's stored values out of the pixel data, in bounds.

Every size is checked before memory is taken: the data set's against the limits, the compressed
frame's own against the data set's.

Sources: PS3.5 sections 8 and A.4. Does not: apply anything to the values (``greyscale``).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from chestxray.errors import (
    DamagedFileError,
    NoPixelDataError,
    TruncatedFileError,
    UnsupportedFormatError,
    UnsupportedTransferSyntaxError,
)
from chestxray.imaging.dicom.codecs import CODECS, Shape
from chestxray.imaging.dicom.elements import integer, stored
from chestxray.imaging.radiograph import Limits

_NATIVE = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)

TRANSFER_SYNTAXES = (*_NATIVE, *CODECS)
"""All that are read."""

_DELIMITERS, _ITEM = 0xFFFE, 0xE000

MAX_FRAGMENTS = 100_000

_BYTES_PER_PIXEL = 6  # words of 16 bits, and with them a codec's numbers of 32 or the grey levels
_COPIES = 3  # of a compressed frame: joined, shared and the codec's own
_BESIDES_BYTES = 32 << 20  # the table of grey levels, and freed memory that malloc keeps


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """``words`` (rows, columns) uint8 or uint16, of which the bits from ``shift`` up are the value.

    ``signed`` values are two's complement in ``bits``. ``warnings`` are of the compressed frame.
    """

    words: NDArray[np.uint8] | NDArray[np.uint16]
    bits: int
    shift: int
    signed: bool
    warnings: tuple[str, ...] = ()


def frame_of(ds: Dataset, limits: Limits) -> Frame:
    """The frame of a data set with one grey frame.

    Raises:
        UnsupportedTransferSyntaxError, UnsupportedFormatError: nothing here decodes it.
        NoPixelDataError, TruncatedFileError, DamagedFileError, TooCostlyError: it cannot be
            decoded.
        TooManyPixelsError, TooSmallError: see ``Limits``.
    """
    shape = Shape(integer(ds, "Rows") or 0, integer(ds, "Columns") or 0)
    if 0 in shape:
        raise DamagedFileError("the DICOM file has a side of no pixels")
    limits.check_pixels(shape.columns, shape.rows)
    limits.check_sides(shape.columns, shape.rows)
    allocated = integer(ds, "BitsAllocated") or 0
    if allocated not in (8, 16):
        raise UnsupportedFormatError(
            f"pixels of {allocated} bits are not read, of 8 and 16 they are"
        )
    bits = integer(ds, "BitsStored") or allocated
    high_bit = integer(ds, "HighBit") or bits - 1
    if not 0 < bits <= high_bit + 1 <= allocated:
        raise DamagedFileError("the bits stored are more than the bits allocated")
    signed = integer(ds, "PixelRepresentation") == 1
    element = stored(ds, "PixelData")
    if element is None:
        raise NoPixelDataError("the file has no pixel data")
    transfer_syntax = ds.file_meta.TransferSyntaxUID
    if transfer_syntax in _NATIVE:
        words = _native(element, shape, allocated)
        return Frame(words, bits, high_bit + 1 - bits, signed)
    if transfer_syntax not in CODECS:
        raise UnsupportedTransferSyntaxError("the transfer syntax is none that is read")
    decoded = CODECS[transfer_syntax](_joined_fragments(element.value or b""), shape)
    # What is decoded lies at the low bits. Some files state fewer than were coded.
    bits = bits if signed else max(bits, decoded.bits)
    return Frame(decoded.words, bits, 0, signed, decoded.warnings)


def memory_bytes_of(ds: Dataset, limits: Limits) -> int:
    """The most that ``frame_of``, and what makes grey levels of its words, take meanwhile."""
    n_pixels = (integer(ds, "Rows") or 0) * (integer(ds, "Columns") or 0)
    n_pixels = min(n_pixels, limits.max_pixels)  # of more than that nothing is decoded
    element, transfer_syntax = stored(ds, "PixelData"), ds.file_meta.TransferSyntaxUID
    coded_bytes = 0 if element is None or transfer_syntax in _NATIVE else element.length
    return n_pixels * _BYTES_PER_PIXEL + coded_bytes * _COPIES + _BESIDES_BYTES


def _native(
    element: RawDataElement, shape: Shape, allocated: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    value, order = element.value or b"", "<" if element.is_little_endian else ">"
    count = shape.rows * shape.columns
    if len(value) < count * allocated // 8:
        raise TruncatedFileError("the pixel data are less than rows and columns ask for")
    if allocated == 16:
        words = np.frombuffer(value, f"{order}u2", count)
        return words.astype(np.uint16, copy=False).reshape(shape)
    if order == ">" and element.VR == "OW":  # two pixels to a word, whose bytes are swapped
        padded = np.frombuffer(value, ">u2", (count + 1) // 2).astype("<u2")
        return padded.view(np.uint8)[:count].reshape(shape)
    return np.frombuffer(value, np.uint8, count).reshape(shape)


def _joined_fragments(value: bytes) -> memoryview:
    """The fragments of encapsulated pixel data (PS3.5 A.4) that follow the offset table, joined.

    One alone, as most have, is not copied.
    """
    view, at, fragments = memoryview(value), 0, []
    while at + 8 <= len(view):
        group, element, length = struct.unpack_from("<HHI", view, at)
        if group != _DELIMITERS or element != _ITEM:
            break
        fragments.append(view[at + 8 : at + 8 + length])
        at += 8 + length
        if at > len(view) or len(fragments) > MAX_FRAGMENTS:
            raise TruncatedFileError("the pixel data end within a fragment")
    if len(fragments) < 2:
        raise DamagedFileError("the pixel data hold no compressed frame")
    return fragments[1] if len(fragments) == 2 else memoryview(b"".join(fragments[1:]))
