"""Walks the segments of a JPEG file before it is decoded; see ``container`` for why.

Sources: ITU-T T.81 annex B (JPEG), CIPA DC-007 (MPF), ISO 21496-1 (gain maps). Does not: decode, or
judge the entropy-coded data, which carries no checksum.
"""

import re
from itertools import islice

from chestxray.errors import (
    AnimatedFileError,
    DamagedFileError,
    TooManyPixelsError,
    TruncatedFileError,
    UnreadableError,
    UnsupportedFormatError,
)
from chestxray.imaging.container import Coded, exif_orientation, tiff_value
from chestxray.imaging.jpeg_segments import (
    APPLICATION,
    EOI,
    FRAMES,
    LSE,
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

# Of each pixel, where there are as many as are accepted: what libjpeg holds until the last scan.
_MOST_DECODER_BYTES = 7

_PROGRESSIVE = 0xC2
_FRAMES_READ = {0xC0, 0xC1, _PROGRESSIVE}  # and baseline, extended sequential; all Huffman-coded
_JPEG_LS_FRAME = 0xF7
_JPEG_LS = "the file is a JPEG-LS: send a JPEG, PNG or DICOM file"
_COLOUR = {0xE0, 0xEE}  # JFIF and Adobe say what the components mean
_METADATA = {*APPLICATION, 0xFE} - _COLOUR

_NUMBER_OF_IMAGES = 0xB001
_MOST_LOOKED_AT, _MOST_SEGMENTS = 16, 100  # pictures behind the first, and of each what comes first
# Adobe's and Google's (Ultra HDR), Apple's (two) and ISO 21496-1's words for it.
_GAIN_MAP = (b"hdrgm", b"GainMap", b"gainmap", b"21496")


def unpack_jpeg(data: bytes, limits: Limits) -> Coded:
    """Walk a JPEG from its signature to its end marker; what follows that is ignored.

    A JPEG without end marker counts as truncated even if every row may be there: nothing tells it
    from one that was cut, and libjpeg would fill the rest with grey.

    Raises:
        TruncatedFileError, DamagedFileError, UnsupportedFormatError, AnimatedFileError,
        TooManyPixelsError.
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
        elif segment.code == LSE:
            raise UnsupportedFormatError(_JPEG_LS)
        elif segment.code not in {*TABLES, *_COLOUR, EOI}:
            raise DamagedFileError(f"the JPEG has a marker FF{segment.code:02X} where none can be")
    if scans == 0:
        raise DamagedFileError("the JPEG has no picture")
    if coded_bytes < _least_bytes(header):
        raise TruncatedFileError("the JPEG's data end before its last row")
    if _is_indexed(metadata) and _has_its_like(header, metadata, view[segment.end :]):
        raise AnimatedFileError("a JPEG of several pictures (MPO) is not read: send one picture")
    decoder_bytes = _decoder_bytes(header, scans)
    if decoder_bytes > limits.max_pixels * _MOST_DECODER_BYTES:
        raise TooManyPixelsError(
            f"{header.width_px} × {header.height_px} pixels in scans of {header.components} "
            "components are more than can be held until the last scan"
        )
    exif = next((block[6:] for block in metadata if block.startswith(b"Exif\0\0")), b"")
    return Coded(
        *(header.width_px, header.height_px, exif_orientation(exif), parts),
        decoder_bytes=decoder_bytes,
        stored_bytes=header.width_px * header.height_px,
    )


def _header_read(segment: Segment) -> FrameHeader:
    if segment.code == _JPEG_LS_FRAME:
        raise UnsupportedFormatError(_JPEG_LS)
    if segment.code not in _FRAMES_READ:
        raise UnsupportedFormatError("a lossless, hierarchical or arithmetic JPEG is not read")
    header = frame_header(segment)
    if header.bits != 8:
        raise UnsupportedFormatError(f"a JPEG of {header.bits} bits is not read")
    return header


def _least_bytes(header: FrameHeader) -> int:
    """The least that a picture takes; T.81 F.1.2 and G.1.2.

    A block has a code for its mean and, but in a progressive JPEG, one for its end, of a bit each.
    """
    return _blocks(header) * (1 if header.kind == _PROGRESSIVE else 2) // 8


def _decoder_bytes(header: FrameHeader, scans: int) -> int:
    """A grey byte of each pixel, of CMYK four, and 2 of each coefficient if there are many scans.

    libjpeg makes grey of colour by itself, and has two scans for many: of one component each, say.
    """
    pixels = header.width_px * header.height_px * (4 if header.components == 4 else 1)
    coefficients = 64 * _blocks(header) if scans > 1 or header.kind == _PROGRESSIVE else 0
    return pixels + 2 * coefficients


def _blocks(header: FrameHeader) -> int:
    """Of 8 × 8 samples; T.81 A.1.1."""
    numbers = header.sampling[: len(header.sampling) // 3 * 3]
    factors = [(number >> 4, number & 15) for number in numbers[1::3]]
    most_h = max((h for h, _ in factors), default=0) or 1
    most_v = max((v for _, v in factors), default=0) or 1
    return sum(
        -(-header.width_px * h // (8 * most_h)) * -(-header.height_px * v // (8 * most_v))
        for h, v in factors
    )


def _is_indexed(metadata: list[bytes]) -> bool:
    """Whether the file has an index of several pictures; what else follows one is ignored."""
    indexes = [block[4:] for block in metadata if block.startswith(b"MPF\0")]
    return any((tiff_value(index, _NUMBER_OF_IMAGES) or 1) > 1 for index in indexes)


def _has_its_like(header: FrameHeader, metadata: list[bytes], rest: memoryview) -> bool:
    """Whether a picture of at least the same size follows, as in a stereo pair or a panorama.

    Smaller ones are previews, depths or gain maps of the first, which is the one to be read. A gain
    map of its size says what it is, there or in the first.
    """
    if _has_gain_map(metadata):
        return False
    found = islice(re.finditer(re.escape(SIGNATURE), rest), _MOST_LOOKED_AT)
    return any(_is_like(header, rest[signature.start() :]) for signature in found)


def _is_like(header: FrameHeader, picture: memoryview) -> bool:
    metadata = []
    try:
        for segment in islice(segments(picture), _MOST_SEGMENTS):
            if segment.code in _METADATA:
                metadata.append(segment.payload)
            elif segment.code in FRAMES:
                its = frame_header(segment)
                is_as_large = its.width_px * its.height_px >= header.width_px * header.height_px
                return is_as_large and not _has_gain_map(metadata)
    except UnreadableError:
        pass  # whatever it is, the first picture is whole
    return False


def _has_gain_map(metadata: list[bytes]) -> bool:
    return any(word in block for block in metadata for word in _GAIN_MAP)
