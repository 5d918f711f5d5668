"""Walks a JPEG 2000 codestream before it is decoded, and takes it out of the boxes around it.

OpenJPEG takes memory and time by what the headers say: by the size, and also by the number of
tiles, of code-blocks, and of packets, which is layers × precincts. So the main header and the
header of every tile-part are read here; what any of them asks for is bounded, and a marker that no
radiograph needs is refused. Only the codestream that was walked is handed on. A JP2 file in its
place is against the standard, and read: its palettes and profiles reach no parser.

Sources: ITU-T T.800 annexes A, B and I, T.814 annex A (high throughput).
Does not: read packet headers. How many coding passes a code-block has, and so the work up to some
90 passes over every sample, is said only there.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from chestxray.errors import DamagedFileError, TruncatedFileError, UnsupportedFormatError
from chestxray.imaging.container import MAX_PARTS

_SOC_SIZ = b"\xff\x4f\xff\x51"
_EOC = b"\xff\xd9"
_SIZ, _COD, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF90, 0xFF93

# Coding style of a component, order of progression, packed packet headers: they override what was
# bounded, or say it elsewhere. No radiograph needs them.
_OVERRIDING = {0xFF53, 0xFF5F, 0xFF60, 0xFF61}

# Quantisation and regions of interest; lengths of tile-parts and packets; registration, comment;
# capabilities and profile.
_HARMLESS = {0xFF5C, 0xFF5D, 0xFF5E, 0xFF55, 0xFF57, 0xFF58, 0xFF63, 0xFF64, 0xFF50, 0xFF59}

_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_MAX_BOXES = 1000

# 40 megapixels are 2,400 tiles of 128 px, 53,000 code-blocks of 32 px, and 3,300 precincts of
# 128 px in each of 50 layers. OpenJPEG has 300 bytes and more of each code-block, and 46 of each
# segment: what a layer adds to a code-block may be two, or, where passes end by themselves, 164.
_MAX_TILES = 4096
_MAX_CODE_BLOCKS = 80_000
_MAX_PACKETS = 500_000
_MAX_SEGMENTS = 3_000_000

_PASSES_END = 0x01 | 0x04  # bypass, termination: A.6.1

_MAX_LEVELS = 32
_LARGEST_PRECINCTS = 0xFF


class Siz(NamedTuple):
    """The SIZ marker segment (A.5.1); sides in pixels, ``bits`` is the precision of each sample."""

    width_px: int
    height_px: int
    components: int
    bits: int
    signed: bool
    tile_width_px: int
    tile_height_px: int
    tiles: int


def codestream_of(frame: memoryview) -> memoryview:
    """The codestream from its first byte on: that of the first codestream box, or all of it.

    Raises:
        TruncatedFileError, DamagedFileError: there is none.
    """
    at = 0
    if frame[: len(_JP2_SIGNATURE)] == _JP2_SIGNATURE:
        at = _codestream_box(frame)
    if frame[at : at + len(_SOC_SIZ)] != _SOC_SIZ:
        raise DamagedFileError("the compressed frame is no JPEG 2000")
    return frame[at:]


def siz_of(codestream: memoryview) -> Siz:
    """What the codestream says of its size.

    Raises:
        TruncatedFileError: it ends within it.
        DamagedFileError: it has a side of no pixels, or too many tiles.
    """
    if len(codestream) < 45:
        raise TruncatedFileError("the JPEG 2000 frame ends within its header")
    x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components, depth, step_x, step_y = (
        struct.unpack_from(">8IH3B", codestream, 8)
    )
    if x0 >= x1 or y0 >= y1 or 0 in (tile_x, tile_y) or tile_x0 > x0 or tile_y0 > y0:
        raise DamagedFileError("the JPEG 2000 frame has a side of no pixels")
    if (step_x, step_y) != (1, 1):
        raise DamagedFileError("the JPEG 2000 frame has fewer samples than pixels")
    tiles = -((tile_x0 - x1) // tile_x) * -((tile_y0 - y1) // tile_y)
    if tiles > _MAX_TILES:
        raise DamagedFileError("the JPEG 2000 frame has more tiles than any radiograph needs")
    width_px, height_px = x1 - x0, y1 - y0
    tile_width_px, tile_height_px = min(tile_x, width_px), min(tile_y, height_px)
    return Siz(
        *(width_px, height_px, components, (depth & 0x7F) + 1, depth > 0x7F),
        *(tile_width_px, tile_height_px, tiles),
    )


def bounded(codestream: memoryview, siz: Siz) -> memoryview:
    """The codestream of one component up to its last tile-part, if it asks for no more than it may.

    Raises:
        TruncatedFileError, DamagedFileError: it cannot be walked, or asks for too much.
        UnsupportedFormatError: it has markers that no radiograph needs.
    """
    at, has_coding, end_of_tile_part = 2, False, 0
    tiles: set[int] = set()
    for _ in range(MAX_PARTS):
        if at + 4 > len(codestream):
            raise TruncatedFileError("the JPEG 2000 frame ends within its headers")
        marker, length = struct.unpack_from(">HH", codestream, at)
        if marker == _SOD:
            if not end_of_tile_part or at + 2 > end_of_tile_part:
                raise DamagedFileError("the JPEG 2000 frame has data outside its tiles")
            at, end_of_tile_part = end_of_tile_part, 0
            if codestream[at : at + 2] == _SOT.to_bytes(2):
                continue
            if len(tiles) < siz.tiles:
                raise TruncatedFileError("the JPEG 2000 frame ends before its last tile")
            if codestream[at : at + len(_EOC)] == _EOC:
                return codestream[: at + len(_EOC)]
            return memoryview(b"".join((codestream[:at], _EOC)))
        segment = codestream[at + 4 : at + 2 + length]
        if length < 2 or len(segment) != length - 2:
            raise TruncatedFileError("the JPEG 2000 frame ends within a segment")
        if marker == _SOT:
            if not has_coding or end_of_tile_part:
                raise DamagedFileError("the JPEG 2000 frame has a tile where none can be")
            end_of_tile_part = _end_of_tile_part(codestream, at)
            tiles.add(int.from_bytes(segment[:2]))
        elif marker == _COD:
            _check_coding(segment, siz)
            has_coding = True
        elif marker != _SIZ or at != 2:
            _check_harmless(marker)
        at += 2 + length
    raise DamagedFileError("the JPEG 2000 frame has more parts than any radiograph needs")


def _codestream_box(frame: memoryview) -> int:
    """Where the content of the first codestream box begins; I.4."""
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 16 > len(frame):
            break
        length, kind, extended = struct.unpack_from(">I4sQ", frame, at)
        header = 16 if length == 1 else 8
        if kind == b"jp2c":
            return at + header
        length = extended if length == 1 else length
        if length < header:
            break
        at += length
    raise DamagedFileError("the JPEG 2000 file has no codestream")


def _end_of_tile_part(codestream: memoryview, at: int) -> int:
    """A.4.2; a length of 0 is that of the last, which goes up to the end marker.

    Coded data hold no end marker, so that is the last there is, whatever follows it.
    """
    if bytes(codestream[at + 2 : at + 4]) != b"\0\x0a":
        raise DamagedFileError("the JPEG 2000 frame has a broken tile header")
    length = int.from_bytes(codestream[at + 6 : at + 10])
    if length == 0:
        end = bytes(codestream).rfind(_EOC, at)
        if end < 0:
            raise TruncatedFileError("the JPEG 2000 frame ends before its end marker")
        return end
    if length < 14:
        raise DamagedFileError("the JPEG 2000 frame has a broken tile header")
    if at + length > len(codestream):
        raise TruncatedFileError("the JPEG 2000 frame ends within a tile")
    return at + length


def _check_harmless(marker: int) -> None:
    if marker in _OVERRIDING:
        raise UnsupportedFormatError(f"a JPEG 2000 with a marker {marker:04X} is not read")
    if marker not in _HARMLESS:
        raise DamagedFileError(f"the JPEG 2000 frame has a marker {marker:04X} where none can be")


def _check_coding(segment: memoryview, siz: Siz) -> None:
    """What a COD marker segment (A.6.1) asks for, as if it were all tiles', is not too much."""
    if len(segment) < 10:
        raise DamagedFileError("the JPEG 2000 frame has a broken coding style")
    style, _, layers, _, levels, block_x, block_y, block_style = struct.unpack_from(
        ">BBHBBBBB", segment
    )
    precincts = segment[10:] if style & 1 else bytes([_LARGEST_PRECINCTS]) * (levels + 1)
    if levels > _MAX_LEVELS or len(precincts) != levels + 1 or max(block_x, block_y) > 8:
        raise DamagedFileError("the JPEG 2000 frame has a broken coding style")
    n_precincts = n_blocks = 0
    for resolution, exponents in enumerate(precincts):
        # B.5 to B.7: of each resolution but the first, three bands have half its sides.
        halved = int(resolution > 0)
        x, y = exponents & 0x0F, exponents >> 4
        if min(x, y) < halved:
            raise DamagedFileError("the JPEG 2000 frame has precincts of no pixels")
        shrunk = levels - resolution
        width, height = -(-siz.tile_width_px >> shrunk), -(-siz.tile_height_px >> shrunk)
        n_precincts += _cells(width, x) * _cells(height, y)
        across = _cells(width, halved + min(x - halved, block_x + 2))
        down = _cells(height, halved + min(y - halved, block_y + 2))
        n_blocks += across * down * (3 if halved else 1)
    n_blocks *= siz.tiles
    n_packets = n_precincts * siz.tiles * layers
    n_segments = n_blocks * layers * (164 if block_style & _PASSES_END else 2)
    if n_blocks > _MAX_CODE_BLOCKS or n_packets > _MAX_PACKETS or n_segments > _MAX_SEGMENTS:
        raise DamagedFileError("the JPEG 2000 frame has more parts than any radiograph needs")


def _cells(side_px: int, exponent: int) -> int:
    return -(-side_px >> exponent)
