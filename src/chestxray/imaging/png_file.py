"""Walks the chunks of a PNG file before it is decoded; see ``container`` for why.

Source: W3C, Portable Network Graphics, 3rd edition. Does not: undo the filters.
"""

import struct
import zlib
from typing import NamedTuple

from chestxray.errors import (
    AnimatedFileError,
    DamagedFileError,
    TooManyPixelsError,
    TruncatedFileError,
)
from chestxray.imaging.container import MAX_PARTS, Coded, exif_orientation
from chestxray.imaging.radiograph import Limits

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CONTENT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}

_COLOURS = {b"PLTE", b"tRNS"}

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each colour type

_ONE_BYTE = {0, 3}  # Pillow has grey values and indices as they are, and four bytes of all else
_WITH_ALPHA = {4, 6}

_MOST_BITS = 32  # of each pixel, where there are as many as are accepted

# The first column and row of each pass, and the steps rightwards and downwards.
_ONE_PASS = [(0, 0, 1, 1)]
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
_ADAM7 += [(0, 1, 1, 2)]

_PIECE, _INFLATED_PIECE = 2**14, 2**16


class _Header(NamedTuple):
    width_px: int
    height_px: int
    bits: int
    colour: int
    interlaced: int

    @property
    def bits_per_pixel(self) -> int:
        return self.bits * _CHANNELS.get(self.colour, 0)

    def data_bytes(self) -> int:
        """What the data inflates to: rows of packed samples, each behind a filter byte."""
        bits_per_pixel = self.bits_per_pixel
        total = 0
        for x, y, right, down in _ADAM7 if self.interlaced else _ONE_PASS:
            columns = -((x - self.width_px) // right)
            rows = -((y - self.height_px) // down)
            total += rows * (1 + (columns * bits_per_pixel + 7) // 8)
        return total


def unpack_png(data: bytes, limits: Limits) -> Coded:
    """Walk a PNG from its signature to IEND and check every CRC; what follows is ignored.

    Raises:
        TruncatedFileError, DamagedFileError, AnimatedFileError, TooManyPixelsError.
    """
    view = memoryview(data)
    parts = [view[:8]]
    rows: list[memoryview] = []
    header, orientation, has_opacity = _Header(0, 0, 0, 0, 0), 1, False
    at = 8
    for _ in range(MAX_PARTS):
        end = at + 12 + int.from_bytes(view[at : at + 4])
        if end > len(data):
            raise TruncatedFileError("the PNG ends before its end chunk")
        kind, payload = data[at + 4 : at + 8], view[at + 8 : end - 4]
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise DamagedFileError("a chunk of the PNG does not match its checksum")
        if at == 8:
            header = _read_header(kind, payload)
            limits.check_pixels(header.width_px, header.height_px)
            _check_bits(header, limits)
        elif kind == b"IHDR":
            raise DamagedFileError("the PNG has two headers")
        elif kind == b"acTL":
            raise AnimatedFileError("an animated PNG is not read: send one picture")
        elif kind == b"eXIf":
            orientation = exif_orientation(bytes(payload))
        elif kind == b"IDAT":
            rows.append(payload)
        # Colours that follow the data they belong to are too late, and make Pillow warn.
        if kind in _CONTENT and not (rows and kind in _COLOURS):
            parts.append(view[at:end])
            has_opacity |= kind == b"tRNS"
        at = end
        if kind == b"IEND":
            break
    else:
        raise DamagedFileError("the PNG has more chunks than any picture needs")
    _check_rows(header, rows)
    n_pixels = header.width_px * header.height_px
    is_deep = header.colour == 0 and header.bits == 16
    return Coded(
        *(header.width_px, header.height_px, orientation, parts),
        decoder_bytes=n_pixels * (2 if is_deep else 1 if header.colour in _ONE_BYTE else 4),
        stored_bytes=n_pixels * (1 + is_deep + (has_opacity or header.colour in _WITH_ALPHA)),
    )


def _read_header(kind: bytes, payload: memoryview) -> _Header:
    if kind != b"IHDR" or len(payload) != 13:
        raise DamagedFileError("the PNG does not start with a header")
    header = _Header(*struct.unpack(">IIBBxxB", payload))
    if 0 in (header.width_px, header.height_px):
        raise DamagedFileError("the PNG has a side of no pixels")
    return header


def _check_bits(header: _Header, limits: Limits) -> None:
    n_bits = header.width_px * header.height_px * header.bits_per_pixel
    if n_bits > limits.max_pixels * _MOST_BITS:
        raise TooManyPixelsError(
            f"{header.width_px} × {header.height_px} pixels of {header.bits_per_pixel} bits are "
            f"more than the {limits.max_pixels} accepted of {_MOST_BITS} bits"
        )


def _check_rows(header: _Header, rows: list[memoryview]) -> None:
    # Pillow leaves black what the data does not reach, and that would be half an image. So the
    # data is inflated twice, here in pieces that are thrown away, and that a cache holds.
    missing = header.data_bytes()
    inflater = zlib.decompressobj()
    try:
        for part in rows:
            for start in range(0, len(part), _PIECE):
                deflated: bytes | memoryview = part[start : start + _PIECE]
                inflated_bytes = _INFLATED_PIECE  # as many: there may be more
                while missing > 0 and (deflated or inflated_bytes == _INFLATED_PIECE):
                    inflated_bytes = len(inflater.decompress(deflated, _INFLATED_PIECE))
                    deflated = inflater.unconsumed_tail
                    missing -= inflated_bytes
    except zlib.error as exc:
        raise DamagedFileError("the PNG's data is damaged") from exc
    if missing > 0:
        raise DamagedFileError("the PNG's data ends before its last row")
