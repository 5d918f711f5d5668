"""Decompresses one grey frame, after its own header has been held against the data set's.

imagecodecs carries the decoders, none of them GPL: libjpeg-turbo (JPEG of 2 to 16 bits, lossy and
lossless), CharLS (JPEG-LS), OpenJPEG (JPEG 2000, high-throughput too), PackBits (RLE). They take
the memory that a frame's header asks for, so that is read here first, by the walks that
``jpeg_segments`` and ``jpeg_2000`` have.

Sources: ITU-T T.81 (JPEG), T.87 (JPEG-LS), PS3.5 annex G (RLE).
Does not: decode colour.
"""

from __future__ import annotations

import struct
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

from chestxray.errors import ColourError, DamagedFileError, TruncatedFileError
from chestxray.imaging.dicom.jpeg_2000 import bounded, codestream_of, siz_of
from chestxray.imaging.jpeg_segments import (
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


# Of JPEG frames: Huffman-coded sequential ones and lossless ones, since some files state one and
# hold the other. Progressive ones belong to no transfer syntax, and a few bytes of theirs can ask
# for hours.
_JPEG, _JPEG_LS = (0xC0, 0xC1, 0xC3), (0xF7,)

_END = b"\xff\xd9"  # of a JPEG or JPEG-LS: it occurs nowhere in coded data
_TRAILER_BYTES = 1024

_PRESETS_OF_SIZE = 4  # JPEG-LS: a size beside the frame header's

_MOST_BITS = 16

_RLE_HEADER_BYTES = 64


def _jpeg(frame: bytes, shape: Shape) -> tuple[Words, int]:
    header = _jpeg_header(frame, _JPEG)
    _check(Shape(header.height_px, header.width_px), header.components, header.bits, shape)
    return _decoded(imagecodecs.jpeg8_decode, frame, shape), header.bits


def _jpeg_ls(frame: bytes, shape: Shape) -> tuple[Words, int]:
    header = _jpeg_header(frame, _JPEG_LS)
    _check(Shape(header.height_px, header.width_px), header.components, header.bits, shape)
    return _decoded(imagecodecs.jpegls_decode, frame, shape), header.bits


def _jpeg_2000(frame: bytes, shape: Shape) -> tuple[Words, int]:
    codestream = codestream_of(frame)
    siz = siz_of(codestream)
    _check(Shape(siz.height_px, siz.width_px), siz.components, siz.bits, shape)
    return _decoded(imagecodecs.jpeg2k_decode, bounded(codestream, siz), shape), siz.bits


def _rle(frame: bytes, shape: Shape) -> tuple[Words, int]:
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
            decoded = imagecodecs.packbits_decode(frame[start:end], out=plane)
        except (RuntimeError, ValueError) as exc:
            raise DamagedFileError("the RLE frame is damaged") from exc
        if len(decoded) < len(plane):
            raise TruncatedFileError("the RLE frame ends before its last row")
        words <<= 8
        words |= np.frombuffer(plane, np.uint8).reshape(shape)
    return words, 8 * count


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

Each raises TruncatedFileError, DamagedFileError, UnsupportedFormatError or ColourError.
"""


def _check(said: Shape, components: int, bits: int, shape: Shape) -> None:
    """That the frame's own header says of its size what the data set says."""
    if components != 1:
        raise ColourError("an image in colour is not read")
    if said != shape:
        raise DamagedFileError("rows and columns are not those of the compressed frame")
    if bits > _MOST_BITS:
        raise DamagedFileError("the compressed frame has more bits than a radiograph's")


def _decoded(decode: Callable[[bytes], NDArray[np.generic]], frame: bytes, shape: Shape) -> Words:
    try:
        words = decode(frame)
    except (RuntimeError, ValueError, MemoryError) as exc:
        raise DamagedFileError("the compressed frame is damaged") from exc
    if words.shape != shape or words.dtype.itemsize > 2:
        raise DamagedFileError("the compressed frame is not the picture that its header says")
    return words.view(np.uint8) if words.dtype.itemsize == 1 else words.view(np.uint16)


def _jpeg_header(frame: bytes, kinds: Container[int]) -> FrameHeader:
    """The frame header of a JPEG or JPEG-LS, which must be of one of the ``kinds`` and whole.

    One component has one scan, and what follows it can change nothing: a decoder takes another
    header, or scan, for an error.
    """
    if not frame.startswith(SOI):
        raise DamagedFileError("the compressed frame is no JPEG")
    if _END not in frame[-_TRAILER_BYTES:]:
        raise TruncatedFileError("the JPEG frame ends before its end marker")
    header = None
    for segment in segments(frame):
        if segment.code in FRAMES:
            header = frame_header(segment)
        elif segment.code == LSE and segment.payload[:1] == bytes([_PRESETS_OF_SIZE]):
            break
        elif segment.code == SOS:
            if header is not None and header.kind in kinds:
                return header
            break
    raise DamagedFileError("the JPEG frame is none of its transfer syntax")
