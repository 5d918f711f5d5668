"""Walks the segments of a JPEG file before it is decoded; see ``container`` for why.

Sources: ITU-T T.81 annex B (JPEG), CIPA DC-007 (MPO). Does not: decode, or judge the entropy-coded
data, which carries no checksum.
"""

from chestxray.errors import (
    AnimatedFileError,
    DamagedFileError,
    TruncatedFileError,
    UnsupportedFormatError,
)
from chestxray.imaging.container import Coded, exif_orientation, tiff_value
from chestxray.imaging.jpeg_segments import (
    APPLICATION,
    EOI,
    FRAMES,
    SOI,
    SOS,
    TABLES,
    FrameHeader,
    Segment,
    frame_header,
    segments,
)
from chestxray.imaging.radiograph import Limits

SIGNATURE = b"\xff\xd8\xff"

# Each scan of a progressive JPEG passes over every block, be it empty: a few bytes could ask for
# minutes. libjpeg writes up to 18 scans, of 24 components together: of CMYK that is this many
# samples at 40 megapixels.
_MAX_SCANS = 100
_MAX_SAMPLES_SCANNED = 1_000_000_000

_PROGRESSIVE = 0xC2
_FRAMES_READ = {0xC0, 0xC1, _PROGRESSIVE}  # and baseline, extended sequential; all Huffman-coded
_COLOUR = {0xE0, 0xEE}  # JFIF and Adobe say what the components mean
_METADATA = {*APPLICATION, 0xFE} - _COLOUR

_NUMBER_OF_IMAGES = 0xB001


def unpack_jpeg(data: bytes, limits: Limits) -> Coded:
    """Walk a JPEG from its signature to its end marker; what follows that is ignored.

    A JPEG without end marker counts as truncated even if every row may be there: nothing tells it
    from one that was cut, and libjpeg would fill the rest with grey.

    Raises:
        TruncatedFileError, DamagedFileError, UnsupportedFormatError, AnimatedFileError,
        TooManyPixelsError, TooSmallError.
    """
    header = FrameHeader(0, 0, 0, 0, 0, b"")
    scans = samples_scanned = coded_bytes = 0
    scan: Segment | None = None
    metadata: list[bytes] = []
    view, parts = memoryview(data), [memoryview(SOI)]
    for segment in segments(data):
        if scan is not None:
            parts.append(view[scan.end : segment.start])
            coded_bytes += segment.start - scan.end
        scan = segment if segment.code == SOS else None
        if segment.code in _METADATA:
            metadata.append(segment.payload)
            continue
        parts.append(view[segment.start : segment.end])
        if segment.code in FRAMES:
            header = _header_read(segment)
            limits.check_pixels(header.width_px, header.height_px)
        elif segment.code == SOS:
            scans += 1
            components = int.from_bytes(segment.payload[:1])
            samples_scanned += components * header.width_px * header.height_px
            if scans > _MAX_SCANS or samples_scanned > _MAX_SAMPLES_SCANNED:
                raise DamagedFileError("the JPEG has more scans than any picture needs")
        elif segment.code not in {*TABLES, *_COLOUR, EOI}:
            raise DamagedFileError(f"the JPEG has a marker FF{segment.code:02X} where none can be")
    if scans == 0:
        raise DamagedFileError("the JPEG has no picture")
    if coded_bytes < _least_bytes(header):
        raise TruncatedFileError("the JPEG's data end before its last row")
    if _has_more_pictures(metadata):
        raise AnimatedFileError("a JPEG of several pictures (MPO) is not read: send one picture")
    limits.check_sides(header.width_px, header.height_px)
    exif = next((block[6:] for block in metadata if block.startswith(b"Exif\0\0")), b"")
    return Coded(header.width_px, header.height_px, exif_orientation(exif), b"".join(parts))


def _header_read(segment: Segment) -> FrameHeader:
    if segment.code not in _FRAMES_READ:
        raise UnsupportedFormatError("a lossless, hierarchical or arithmetic JPEG is not read")
    header = frame_header(segment)
    if header.bits != 8:
        raise UnsupportedFormatError(f"a JPEG of {header.bits} bits is not read")
    return header


def _least_bytes(header: FrameHeader) -> int:
    """The least that a picture takes; T.81 A.1.1, F.1.2 and G.1.2.

    A block has a code for its mean and, but in a progressive JPEG, one for its end, of a bit each.
    """
    numbers = header.sampling[: len(header.sampling) // 3 * 3]
    factors = [(number >> 4, number & 15) for number in numbers[1::3]]
    most_h = max((h for h, _ in factors), default=0) or 1
    most_v = max((v for _, v in factors), default=0) or 1
    blocks = sum(
        -(-header.width_px * h // (8 * most_h)) * -(-header.height_px * v // (8 * most_v))
        for h, v in factors
    )
    return blocks * (1 if header.kind == _PROGRESSIVE else 2) // 8


def _has_more_pictures(metadata: list[bytes]) -> bool:
    # The second picture of an Ultra HDR photograph is no page but the brightness of the first.
    if any(b'hdrgm:Version="' in block for block in metadata):
        return False
    indexes = [block[4:] for block in metadata if block.startswith(b"MPF\0")]
    return any((tiff_value(index, _NUMBER_OF_IMAGES) or 1) > 1 for index in indexes)
