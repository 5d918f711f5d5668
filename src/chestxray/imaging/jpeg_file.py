"""Walks the segments of a JPEG file before it is decoded; see ``container`` for why.

Sources: ITU-T T.81 annex B (JPEG), CIPA DC-007 (MPO). Does not: decode, or judge the entropy-coded
data, which carries no checksum.
"""

import re
import struct
from collections.abc import Iterator

from chestxray.errors import (
    AnimatedFileError,
    DamagedFileError,
    TruncatedFileError,
    UnsupportedFormatError,
)
from chestxray.imaging.container import MAX_PARTS, Coded, exif_orientation, tiff_value
from chestxray.imaging.radiograph import Limits

SIGNATURE = b"\xff\xd8\xff"

# A progressive JPEG of a few bytes per scan can ask for hours of decoding. Real ones have some ten.
_MAX_SCANS = 100

# In entropy-coded data, FF is followed by 00 (an escaped FF), D0-D7 (restart) or a marker.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_EOI, _SOS = 0xD9, 0xDA
_SOF_READ = {0xC0, 0xC1, 0xC2}  # baseline, extended sequential, progressive; all Huffman-coded
_SOF_OTHER = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_TABLES = {0xC4, 0xDB, 0xDD}  # Huffman, quantisation, restart interval
_COLOUR = {0xE0, 0xEE}  # JFIF and Adobe say what the components mean
_METADATA = {*range(0xE0, 0xF0), 0xFE} - _COLOUR

_NUMBER_OF_IMAGES = 0xB001


def unpack_jpeg(data: bytes, limits: Limits) -> Coded:
    """Walk a JPEG from its signature to its end marker; what follows that is ignored.

    A JPEG without end marker counts as truncated even if every row may be there: nothing tells it
    from one that was cut, and libjpeg would fill the rest with grey.

    Raises:
        TruncatedFileError, DamagedFileError, UnsupportedFormatError, AnimatedFileError,
        TooManyPixelsError, TooSmallError.
    """
    size: tuple[int, int] | None = None
    scans = 0
    metadata: list[bytes] = []
    parts = [memoryview(data)[:2]]
    for code, payload, segment in _segments(data):
        if code in _METADATA:
            metadata.append(payload)
            continue
        parts.append(segment)
        if code in _SOF_READ:
            if size is not None:
                raise DamagedFileError("the JPEG has two frame headers")
            size = _frame_size(payload)
            limits.check_pixels(*size)
        elif code in _SOF_OTHER:
            raise UnsupportedFormatError("a lossless, hierarchical or arithmetic JPEG is not read")
        elif code == _SOS:
            scans += 1
        elif code not in {*_TABLES, *_COLOUR, _EOI}:
            raise DamagedFileError(f"the JPEG has a marker FF{code:02X} where none can be")
    if size is None or not 0 < scans <= _MAX_SCANS:
        raise DamagedFileError("the JPEG has no picture, or more scans than any picture needs")
    if _has_more_pictures(metadata):
        raise AnimatedFileError("a JPEG of several pictures (MPO) is not read: send one picture")
    limits.check_sides(*size)
    exif = next((block[6:] for block in metadata if block.startswith(b"Exif\0\0")), b"")
    return Coded(*size, exif_orientation(exif), b"".join(parts))


def _segments(data: bytes) -> Iterator[tuple[int, bytes, memoryview]]:
    """Yield each segment's code, payload, and bytes in the file (of a scan, with its data)."""
    view = memoryview(data)
    at = 2
    for _ in range(MAX_PARTS):
        marker = _MARKER.search(data, at)
        if marker is None:
            raise TruncatedFileError("the JPEG ends before its end marker")
        code, start = marker[1][0], marker.end()
        if code == _EOI:
            yield code, b"", view[marker.start() : start]
            return
        at = start + int.from_bytes(view[start : start + 2])
        if max(at, start + 2) > len(data):
            raise TruncatedFileError("the JPEG ends within a segment")
        payload = data[start + 2 : at]
        if code == _SOS:
            following = _MARKER.search(data, at)
            at = following.start() if following else len(data)
        yield code, payload, view[marker.start() : at]
    raise DamagedFileError("the JPEG has more segments than any picture needs")


def _frame_size(payload: bytes) -> tuple[int, int]:
    if len(payload) < 6:
        raise DamagedFileError("the JPEG has a broken frame header")
    bits, height_px, width_px = struct.unpack_from(">BHH", payload)
    if bits != 8:
        raise UnsupportedFormatError(f"a JPEG of {bits} bits is not read")
    if 0 in (width_px, height_px):
        raise DamagedFileError("the JPEG has a side of no pixels")
    return width_px, height_px


def _has_more_pictures(metadata: list[bytes]) -> bool:
    # The second picture of an Ultra HDR photograph is no page but the brightness of the first.
    if any(b'hdrgm:Version="' in block for block in metadata):
        return False
    indexes = [block[4:] for block in metadata if block.startswith(b"MPF\0")]
    return any((tiff_value(index, _NUMBER_OF_IMAGES) or 1) > 1 for index in indexes)
