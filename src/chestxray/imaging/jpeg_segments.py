"""Steps from segment to segment of a JPEG or JPEG-LS stream as their decoders do.

libjpeg and CharLS take a picture's size, and with it memory and time, from the one frame header
before the first scan. So there must be one, there, and no marker that either of them would read
otherwise than it is read here: nothing that looks like a header elsewhere is believed.

Sources: ITU-T T.81 annex B (JPEG), T.87 annex C (JPEG-LS). Does not: judge what kind of frame it
is, or what the tables and the entropy-coded data say.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from chestxray.errors import DamagedFileError, TruncatedFileError
from chestxray.imaging.container import MAX_PARTS

SOI = b"\xff\xd8"

EOI, SOS, DRI, LSE = 0xD9, 0xDA, 0xDD, 0xF8

FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""The frame headers: SOF0 to SOF15, and SOF55 of JPEG-LS."""

TABLES = {0xC4, 0xDB, DRI}
"""Huffman, quantisation, restart interval."""

APPLICATION = frozenset(range(0xE0, 0xF0))

_READ = {*FRAMES, *TABLES, *APPLICATION, EOI, SOS, LSE, 0xFE}

# In entropy-coded data, FF is followed by 00 (an escaped FF), D0-D7 (restart) or a marker.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


class Segment(NamedTuple):
    """``start`` is that of its marker, ``end`` that of what follows its payload."""

    code: int
    payload: bytes
    start: int
    end: int


class FrameHeader(NamedTuple):
    """What a frame header says of the picture; ``bits`` is its precision.

    ``sampling`` has 3 bytes for each component: its number, its factors, its table.
    """

    kind: int
    bits: int
    height_px: int
    width_px: int
    components: int
    sampling: bytes


def segments(data: bytes | memoryview) -> Iterator[Segment]:
    """The segments up to the end marker. A scan's data lie between its segment and the next.

    Of a JPEG-LS, only those up to its scan: FF is escaped otherwise in what follows.

    Raises:
        TruncatedFileError: there is no end marker.
        DamagedFileError: there is no frame header before a scan, or more than one, or a marker
            that no picture has.
    """
    at, frames = len(SOI), 0
    for _ in range(MAX_PARTS):
        marker = _MARKER.search(data, at)
        if marker is None:
            raise TruncatedFileError("the JPEG ends before its end marker")
        code, start, at = marker[1][0], marker.start(), marker.end()
        if code == EOI:
            yield Segment(code, b"", start, at)
            return
        if code not in _READ:
            raise DamagedFileError(f"the JPEG has a marker FF{code:02X} where none can be")
        frames += code in FRAMES
        if frames > 1:
            raise DamagedFileError("the JPEG has two frame headers")
        if code == SOS and frames == 0:
            raise DamagedFileError("the JPEG has no frame header before its data")
        begin, at = at, at + int.from_bytes(data[at : at + 2])
        if max(at, begin + 2) > len(data):
            raise TruncatedFileError("the JPEG ends within a segment")
        yield Segment(code, bytes(data[begin + 2 : at]), start, at)
    raise DamagedFileError("the JPEG has more segments than any picture needs")


def frame_header(segment: Segment) -> FrameHeader:
    """What the segment of a frame header holds.

    Raises:
        DamagedFileError: it is too short, or a side has no pixels.
    """
    if len(segment.payload) < 6:
        raise DamagedFileError("the JPEG has a broken frame header")
    bits, height_px, width_px, components = struct.unpack_from(">BHHB", segment.payload)
    sampling = segment.payload[6:]
    header = FrameHeader(segment.code, bits, height_px, width_px, components, sampling)
    if 0 in (header.height_px, header.width_px):
        raise DamagedFileError("the JPEG has a side of no pixels")
    return header
