"""Decompresses one grey frame, after its own header has been held against the data set's.

imagecodecs carries the decoders, none of them GPL: libjpeg-turbo (JPEG of 2 to 16 bits, lossy and
lossless), CharLS (JPEG-LS), OpenJPEG (JPEG 2000, high-throughput too), PackBits (RLE). They take
the memory that a frame's header asks for, so that is read here first, by the walks that
``jpeg_segments`` and ``jpeg_2000`` have; and all but the last are asked in a process that may be
killed (``decoder``).

Sources: ITU-T T.81 (JPEG), T.87 (JPEG-LS), PS3.5 annex G (RLE).
Does not: decode colour.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from chestxray.errors import (
    ColourError,
    DamagedFileError,
    TruncatedFileError,
    UnreadableError,
    UnsupportedFormatError,
)
from chestxray.imaging.dicom.decoder import decode
from chestxray.imaging.dicom.jpeg_2000 import Siz, bounded, codestream_of, siz_of
from chestxray.imaging.jpeg_segments import (
    DRI,
    FRAMES,
    LSE,
    SOI,
    SOS,
    FrameHeader,
    frame_header,
    segments,
)

Words = NDArray[np.uint8] | NDArray[np.uint16]


class Shape(NamedTuple):
    rows: int
    columns: int


class _Scan(NamedTuple):
    """The one scan of a JPEG or JPEG-LS: the header before it, where its data begin, and whether
    there are restart markers in them.
    """

    header: FrameHeader
    at: int
    restarts: bool


# Of JPEG frames: Huffman-coded sequential ones and lossless ones, since some files state one and
# hold the other. Progressive ones belong to no transfer syntax, and a few bytes of theirs can ask
# for hours.
_JPEG, _JPEG_LS = (0xC0, 0xC1, 0xC3), (0xF7,)

_NEVER_READ = {0xC2: "a progressive", 0xC9: "an arithmetic-coded", 0xCA: "a progressive"}

_END = b"\xff\xd9"  # of a JPEG, JPEG-LS or JPEG 2000: it occurs nowhere in coded data
_END_OF_DATA = re.compile(_END)
_TRAILER_BYTES = 1024  # most have none, and need not be searched from the start
_ENDING = b"\x55" * 64  # of a JPEG: codes that mean something, whatever the tables

NO_END_MARKER = "the compressed picture has no end marker; it was read, since all of it is there"

_PRESETS_OF_SIZE = 4  # JPEG-LS: a size beside the frame header's

_MOST_BITS = 16

_RLE_HEADER_BYTES = 64


class Decoded(NamedTuple):
    """Words, how many of their low bits count, and what a reader should know of the frame."""

    words: Words
    bits: int
    warnings: tuple[str, ...] = ()


def _jpeg(frame: memoryview, shape: Shape) -> Decoded:
    scan = _scan(frame, _JPEG)
    bits = _check(scan.header, shape)
    if _has_end(frame, scan):
        return Decoded(_decoded("jpeg8", frame, shape, bits), bits)
    return Decoded(_jpeg_without_end(frame, scan, shape), bits, (NO_END_MARKER,))


def _jpeg_without_end(frame: memoryview, scan: _Scan, shape: Shape) -> Words:
    """libjpeg makes something of whatever is missing: of all that is there, the same of any end.

    Raises:
        TruncatedFileError: rows are missing, or may be.
    """
    frame = frame[: len(frame) - _padding_bytes(frame)]
    checksums = set()
    for ending in (b"", _ENDING):
        whole = memoryview(b"".join((frame, ending, _END)))
        words = _decoded("jpeg8", whole, shape, scan.header.bits)
        checksums.add(zlib.crc32(words.data))
    # Where there are restart markers, what lies before the next is skipped.
    if scan.restarts or len(checksums) > 1:
        raise TruncatedFileError("the JPEG frame ends before its end marker")
    return words


def _padding_bytes(frame: memoryview) -> int:
    """0 or 1: of a frame without end marker, what is no code of its last rows for sure.

    A 0 makes its length even. The first byte of a marker may be left of one that was cut.
    """
    last = bytes(frame[-2:])
    return int(last[1:] == b"\xff" or (last[1:] == b"\0" and last != b"\xff\0"))


def _jpeg_ls(frame: memoryview, shape: Shape) -> Decoded:
    scan = _scan(frame, _JPEG_LS)
    bits = _check(scan.header, shape)
    if _has_end(frame, scan):
        return Decoded(_decoded("jpegls", frame, shape, bits), bits)
    for padding_bytes in (0, 1):  # CharLS wants the end where the data end
        whole = memoryview(b"".join((frame[: len(frame) - padding_bytes], _END)))
        try:
            return Decoded(_decoded("jpegls", whole, shape, bits), bits, (NO_END_MARKER,))
        except DamagedFileError:
            pass
    raise TruncatedFileError("the JPEG-LS frame ends before its end marker")


def _jpeg_2000(frame: memoryview, shape: Shape) -> Decoded:
    codestream = codestream_of(frame)
    siz = siz_of(codestream)
    bits = _check(siz, shape)
    walked = bounded(codestream, siz)
    has_end = codestream[len(walked) - len(_END) : len(walked)] == _END
    words = _decoded("jpeg2k", walked, shape, bits, signed=siz.signed)
    return Decoded(words, bits, () if has_end else (NO_END_MARKER,))


def _rle(frame: memoryview, shape: Shape) -> Decoded:
    """PS3.5 G.5: a header of 16 integers, then one segment for each byte of a pixel, high first."""
    if len(frame) < _RLE_HEADER_BYTES:
        raise TruncatedFileError("the RLE frame ends within its header")
    count, *offsets = struct.unpack_from("<16I", frame)
    if count not in (1, 2):
        raise DamagedFileError("the RLE frame has not one or two segments")
    ends = [*offsets[1:count], len(frame)]
    words: NDArray[Any] = np.zeros(shape, np.uint8 if count == 1 else np.uint16)
    plane = bytearray(shape.rows * shape.columns)
    for start, end in zip(offsets[:count], ends, strict=True):
        try:
            decoded = imagecodecs.packbits_decode(bytes(frame[start:end]), out=plane)
        except (RuntimeError, ValueError) as exc:
            raise DamagedFileError("the RLE frame is damaged") from exc
        if len(decoded) < len(plane):
            raise TruncatedFileError("the RLE frame ends before its last row")
        words <<= 8
        words |= np.frombuffer(plane, np.uint8).reshape(shape)
    return Decoded(words, 8 * count)


CODECS: dict[UID, Callable[[memoryview, Shape], Decoded]] = {
    RLELossless: _rle,
    JPEGBaseline8Bit: _jpeg,
    JPEGExtended12Bit: _jpeg,
    JPEGLossless: _jpeg,
    JPEGLosslessSV1: _jpeg,
    JPEGLSLossless: _jpeg_ls,
    JPEGLSNearLossless: _jpeg_ls,
    JPEG2000Lossless: _jpeg_2000,
    JPEG2000: _jpeg_2000,
    HTJ2KLossless: _jpeg_2000,
    HTJ2KLosslessRPCL: _jpeg_2000,
    HTJ2K: _jpeg_2000,
}
"""What decodes a frame of a shape, by transfer syntax.

Each raises TruncatedFileError, DamagedFileError, TooCostlyError, UnsupportedFormatError or
ColourError.
"""


def _check(header: FrameHeader | Siz, shape: Shape) -> int:
    """That the frame's own header says of its size what the data set says; and its bits."""
    if header.components != 1:
        raise ColourError("an image in colour is not read")
    if Shape(header.height_px, header.width_px) != shape:
        raise DamagedFileError("rows and columns are not those of the compressed frame")
    if header.bits > _MOST_BITS:
        raise DamagedFileError("the compressed frame has more bits than a radiograph's")
    return header.bits


def _decoded(
    codec: str, frame: memoryview, shape: Shape, bits: int, *, signed: bool = False
) -> Words:
    n_bytes = 1 if bits <= 8 else 2
    return decode(codec, frame, *shape, f"{'i' if signed else 'u'}{n_bytes}").view(f"u{n_bytes}")


def _scan(frame: memoryview, kinds: Container[int]) -> _Scan:
    """The scan of a JPEG or JPEG-LS, which must be of one of the ``kinds``.

    One component has one scan, and what follows it can change nothing: a decoder takes another
    header, or scan, for an error.
    """
    if frame[: len(SOI)] != SOI:
        raise DamagedFileError("the compressed frame is no JPEG")
    header, restarts = None, False
    for segment in segments(frame):
        if segment.code in FRAMES:
            header = frame_header(segment)
            if header.kind not in kinds:
                raise _wrong_kind(header.kind)
        elif segment.code == DRI:
            restarts = any(segment.payload)
        elif segment.code == LSE and segment.payload[:1] == bytes([_PRESETS_OF_SIZE]):
            break
        elif segment.code == SOS and header is not None:
            return _Scan(header, segment.end, restarts)
    raise DamagedFileError("the JPEG frame is none of its transfer syntax")


def _wrong_kind(kind: int) -> UnreadableError:
    if kind in (*_JPEG, *_JPEG_LS):
        return DamagedFileError("the JPEG frame is none of its transfer syntax")
    name = _NEVER_READ.get(kind, "a hierarchical")
    return UnsupportedFormatError(f"the frame is {name} JPEG, which is none of its transfer syntax")


def _has_end(frame: memoryview, scan: _Scan) -> bool:
    """Whether an end marker follows the scan's data, be it far before the end of the frame."""
    near_the_end = max(scan.at, len(frame) - _TRAILER_BYTES)
    return any(_END_OF_DATA.search(frame, at) for at in (near_the_end, scan.at))
