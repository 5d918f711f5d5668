"""Decompresses one grey frame, after its own header has been held against the data set's.

imagecodecs carries the decoders, none of them GPL: libjpeg-turbo (JPEG of 2 to 16 bits, lossy and
lossless), CharLS (JPEG-LS), OpenJPEG (JPEG 2000, high-throughput too), PackBits (RLE). They take
the memory that a frame's header asks for, so that is read here first.

Sources: ITU-T T.81 (JPEG), T.87 (JPEG-LS), T.800 (JPEG 2000), PS3.5 annex G (RLE).
Does not: decode colour.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container
from typing import NamedTuple

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

from chestxray.errors import ColourError, DamagedFileError, TruncatedFileError

Words = NDArray[np.uint8] | NDArray[np.uint16]


class Shape(NamedTuple):
    rows: int
    columns: int


class _Header(NamedTuple):
    """What a compressed frame says of itself; ``bits`` is its precision."""

    shape: Shape
    components: int
    bits: int


# Of JPEG frames: Huffman-coded sequential ones and lossless ones, since some files state one and
# hold the other. Progressive ones belong to no transfer syntax, and a few bytes of theirs can ask
# for hours.
_JPEG, _JPEG_LS = (0xC0, 0xC1, 0xC3), (0xF7,)

_END = b"\xff\xd9"  # of a JPEG or JPEG-LS: it occurs nowhere in coded data
_TRAILER_BYTES = 1024

_SOC_SIZ = b"\xff\x4f\xff\x51"
# A JP2 file in the place of its codestream is against the standard, and read.
_JP2_BOXES_BYTES = 4096
_MAX_TILES = 65_535

_RLE_HEADER_BYTES = 64


def _jpeg(frame: bytes, shape: Shape) -> tuple[Words, int]:
    header = _jpeg_header(frame, _JPEG)
    return _decoded(imagecodecs.jpeg8_decode, frame, header, shape), header.bits


def _jpeg_ls(frame: bytes, shape: Shape) -> tuple[Words, int]:
    header = _jpeg_header(frame, _JPEG_LS)
    return _decoded(imagecodecs.jpegls_decode, frame, header, shape), header.bits


def _jpeg_2000(frame: bytes, shape: Shape) -> tuple[Words, int]:
    header = _jpeg_2000_header(frame)
    return _decoded(imagecodecs.jpeg2k_decode, frame, header, shape), header.bits


def _rle(frame: bytes, shape: Shape) -> tuple[Words, int]:
    """PS3.5 G.5: a header of 16 integers, then one segment for each byte of a pixel, high first."""
    if len(frame) < _RLE_HEADER_BYTES:
        raise TruncatedFileError("the RLE frame ends within its header")
    count, *offsets = struct.unpack_from("<16I", frame)
    if count not in (1, 2):
        raise DamagedFileError("the RLE frame has not one or two segments")
    ends = [*offsets[1:count], len(frame)]
    planes = np.empty((count, shape.rows * shape.columns), np.uint8)
    for plane, start, end in zip(planes, offsets[:count], ends, strict=True):
        try:
            decoded = imagecodecs.packbits_decode(frame[start:end], out=plane)
        except (RuntimeError, ValueError) as exc:
            raise DamagedFileError("the RLE frame is damaged") from exc
        if len(decoded) < len(plane):
            raise TruncatedFileError("the RLE frame ends before its last row")
    if count == 1:
        return planes[0].reshape(shape), 8
    words = planes[0].astype(np.uint16) << 8 | planes[1]
    return words.reshape(shape), 16


CODECS: dict[UID, Callable[[bytes, Shape], tuple[Words, int]]] = {
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
"""What decodes a frame of a shape, by transfer syntax, into words and how many of their bits count.

Each raises TruncatedFileError, DamagedFileError or ColourError.
"""


def _decoded(
    decode: Callable[[bytes], NDArray[np.generic]], frame: bytes, header: _Header, shape: Shape
) -> Words:
    if header.components != 1:
        raise ColourError("an image in colour is not read")
    if header.shape != shape:
        raise DamagedFileError("rows and columns are not those of the compressed frame")
    try:
        words = decode(frame)
    except (RuntimeError, ValueError, MemoryError) as exc:
        raise DamagedFileError("the compressed frame is damaged") from exc
    if words.shape != shape or words.dtype.itemsize > 2:
        raise DamagedFileError("the compressed frame is not the picture that its header says")
    return words.view(np.uint8) if words.dtype.itemsize == 1 else words.view(np.uint16)


def _jpeg_header(frame: bytes, kinds: Container[int]) -> _Header:
    """The frame header of a JPEG or JPEG-LS, which must be of one of the ``kinds`` and whole."""
    if not frame.startswith(b"\xff\xd8"):
        raise DamagedFileError("the compressed frame is no JPEG")
    if _END not in frame[-_TRAILER_BYTES:]:
        raise TruncatedFileError("the JPEG frame ends before its end marker")
    at = 2
    while at + 10 <= len(frame):
        marker, kind, length = struct.unpack_from(">BBH", frame, at)
        if marker != 0xFF or length < 2:
            break
        if kind in kinds:
            bits, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return _Header(Shape(rows, columns), components, bits)
        at += 2 + length
    raise DamagedFileError("the JPEG frame is none of its transfer syntax")


def _jpeg_2000_header(frame: bytes) -> _Header:
    """The SIZ marker segment; ITU-T T.800 A.5.1."""
    at = frame.find(_SOC_SIZ, 0, _JP2_BOXES_BYTES)
    if at < 0 or at + 47 > len(frame):
        raise DamagedFileError("the compressed frame is no JPEG 2000")
    x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components, depth = struct.unpack_from(
        ">8IHB", frame, at + 8
    )
    if x0 >= x1 or y0 >= y1 or 0 in (tile_x, tile_y) or tile_x0 > x0 or tile_y0 > y0:
        raise DamagedFileError("the JPEG 2000 frame has a side of no pixels")
    tiles = -((tile_x0 - x1) // tile_x) * -((tile_y0 - y1) // tile_y)
    if tiles > _MAX_TILES:
        raise DamagedFileError("the JPEG 2000 frame has more tiles than are allowed")
    return _Header(Shape(y1 - y0, x1 - x0), components, (depth & 0x7F) + 1)
