"""Files that ask for much more than they are: one maker for each kind, from the standards.

Every codec and structure that is read has some: counts, sizes and repetitions beyond any picture,
and headers that are not the ones that a decoder believes. Each is small, and valid but for that.

Does not: mutate at random (``mutations``), or make requests (``hostile_requests``).
"""

import struct
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from pydicom import uid

from factories import dicom_files, images
from factories.images import chunk

SIDE_PX = 6320
"""A square of it has the 40 million pixels that are accepted, nearly."""

HUGE_PX = 65_500
"""What libjpeg accepts at the most: 4.3 billion pixels."""

SMALL_PX = 64
"""What the data set says, and the decoys."""

MANY_BYTES = 60 * 2**20

Make = Callable[[], bytes]


# --- JPEG (ITU-T T.81 annex B) --------------------------------------------------------------------


def segment(code: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(payload) + 2) + payload


def frame_header(
    kind: int, side_px: int, *, components: int = 1, bits: int = 8, height_px: int | None = None
) -> bytes:
    height_px = side_px if height_px is None else height_px
    each = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    return segment(kind, struct.pack(">BHHB", bits, height_px, side_px, components) + each)


def scan(numbers: list[int], first: int = 0, last: int = 63, approximation: int = 0) -> bytes:
    each = b"".join(bytes([number, 0]) for number in numbers)
    return segment(0xDA, bytes([len(numbers)]) + each + bytes([first, last, approximation]))


def tables(run: int = 0) -> bytes:
    """A quantisation table, and of both kinds a Huffman code of one bit: 0, or a ``run``."""
    one_bit = bytes([1] + [0] * 15)
    codes = segment(0xC4, b"\0" + one_bit + b"\0") + segment(0xC4, b"\x10" + one_bit + bytes([run]))
    return segment(0xDB, b"\0" + bytes([1] * 64)) + codes


def adobe(components: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0\2") if components == 4 else b""


def jpeg_of(*parts: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def progressive(side_px: int, components: int, scans: int, *, whole: bool = False) -> bytes:
    """A JPEG whose scans pass over every block and say next to nothing of it.

    ``whole``: the means are there, a bit of each block, and what follows refines all of a block.
    """
    numbers = list(range(1, components + 1))
    blocks = (-(-side_px // 8)) ** 2
    means = bytes(blocks * components // 8 + 1) if whole else bytes(8)
    ends = int("0" + ("0" + "1" * 14) * (blocks // 2**15 + 2), 2)
    runs = ends.to_bytes((ends.bit_length() + 7) // 8).replace(b"\xff", b"\xff\0")
    refining = [scan([1 + at % components], 1, 63, 0x10) + runs for at in range(scans)]
    head = adobe(components) + tables(0xE0) + frame_header(0xC2, side_px, components=components)
    return jpeg_of(head, scan(numbers, 0, 0), means, *refining)


def baseline(side_px: int, components: int) -> bytes:
    head = adobe(components) + tables() + frame_header(0xC0, side_px, components=components)
    return jpeg_of(head, scan(list(range(1, components + 1))), bytes(8))


SMALL_FRAME = frame_header(0xC0, SMALL_PX)
HUGE_FRAME = frame_header(0xC0, HUGE_PX)
MEANS = scan([1]) + bytes(64)

JPEG: dict[str, Make] = {
    "scans without end": partial(progressive, SIDE_PX, 1, 99_000),
    "100 scans of CMYK": partial(progressive, SIDE_PX, 4, 99),
    "30 scans of CMYK, and all means": partial(progressive, SIDE_PX, 4, 29, whole=True),
    "20 scans of CMYK, no means": partial(progressive, SIDE_PX, 4, 20),
    "24 scans of CMYK, and all means": partial(progressive, SIDE_PX, 4, 20, whole=True),
    "a scan for each component of CMYK": lambda: jpeg_of(
        adobe(4),
        tables(),
        frame_header(0xC0, SIDE_PX, components=4),
        *(scan([number]) + bytes((SIDE_PX // 8) ** 2 // 4 + 1) for number in (1, 2, 3, 4)),
    ),
    "20 scans of RGB, no means": partial(progressive, SIDE_PX, 3, 20),
    "CMYK without data": partial(baseline, SIDE_PX, 4),
    "grey without data": partial(baseline, SIDE_PX, 1),
    "two frame headers": lambda: jpeg_of(tables(), SMALL_FRAME, HUGE_FRAME, MEANS),
    "a frame header after the first scan": lambda: jpeg_of(
        tables(), HUGE_FRAME, MEANS, SMALL_FRAME, MEANS
    ),
    "a scan before the frame header": lambda: jpeg_of(tables(), MEANS, SMALL_FRAME, MEANS),
    "a frame header after the end": lambda: jpeg_of(tables(), HUGE_FRAME, MEANS) + SMALL_FRAME,
    "a frame header within metadata": lambda: jpeg_of(
        segment(0xE1, b"Exif\0\0" + SMALL_FRAME), tables(), HUGE_FRAME, MEANS
    ),
    "a second start": lambda: jpeg_of(tables(), SMALL_FRAME, b"\xff\xd8", HUGE_FRAME, MEANS),
    "a number of lines after the scan": lambda: jpeg_of(
        tables(),
        frame_header(0xC0, HUGE_PX, height_px=0),
        MEANS,
        segment(0xDC, struct.pack(">H", SMALL_PX)),
    ),
    "a marker without length before the header": lambda: jpeg_of(
        tables(), b"\xff\x01" + struct.pack(">H", 2 + len(HUGE_FRAME)), HUGE_FRAME, MEANS
    ),
    "comments without end": lambda: jpeg_of(
        segment(0xFE, b"") * 200_000, tables(), SMALL_FRAME, MEANS
    ),
}


# --- JPEG and JPEG-LS within DICOM ----------------------------------------------------------------

SYNTAXES = {
    0xC0: uid.JPEGBaseline8Bit,
    0xC1: uid.JPEGExtended12Bit,
    0xC3: uid.JPEGLosslessSV1,
    0xF7: uid.JPEGLSLossless,
}
BITS = {0xC0: 8, 0xC1: 12, 0xC3: 12, 0xF7: 12}
LAST = {0xC0: 63, 0xC1: 63, 0xC3: 0, 0xF7: 0}


def dicom_of(frame: bytes, transfer_syntax: str, side_px: int = SMALL_PX, **said: object) -> bytes:
    """A file of 12 bits whose data set says that the frame is ``side_px`` a side."""
    said = {"Rows": side_px, "Columns": side_px, **said}
    return dicom_files.compressed(
        dicom_files.phantom(12, SMALL_PX), transfer_syntax, frame=frame, **said
    )


def decoyed(kind: int, where: str) -> bytes:
    """A frame of more pixels than are accepted, and beside it a header of what the file says."""
    true = frame_header(kind, HUGE_PX, bits=BITS[kind])
    decoy = frame_header(kind, SMALL_PX, bits=BITS[kind])
    presets = tables() if kind != 0xF7 else b""
    data = scan([1], int(kind == 0xC3), LAST[kind]) + bytes(64)
    parts: dict[str, tuple[bytes, ...]] = {
        "in metadata": (segment(0xE1, decoy), presets, true, data),
        "before it": (presets, decoy, true, data),
        "behind it": (presets, true, decoy, data),
        "behind the scan": (presets, true, data, decoy, data),
        "as a progressive one": (presets, b"\xff\xc2" + true[2:], data, decoy, data),
        "before a second start": (presets, decoy, b"\xff\xd8", true, data),
        "as a number of lines": (
            presets,
            frame_header(kind, HUGE_PX, bits=BITS[kind], height_px=0),
            data,
            segment(0xDC, struct.pack(">H", SMALL_PX)),
        ),
        "behind a marker without length": (
            presets,
            b"\xff\x01" + struct.pack(">H", 2 + len(true)) + true,
            decoy,
            data,
        ),
    }
    frame = jpeg_of(*parts[where]) if where in parts else jpeg_of(presets, true, data) + decoy
    return dicom_of(frame + b"\xff\xd9", SYNTAXES[kind])


DECOYS = (
    "in metadata",
    "before it",
    "behind it",
    "behind the scan",
    "as a progressive one",
    "before a second start",
    "as a number of lines",
    "behind a marker without length",
    "behind the end",
)


def scans_and_a_decoy(side_px: int) -> bytes:
    frame = jpeg_of(
        tables(),
        frame_header(0xC2, side_px),
        scan([1], 0, 0),
        scan([1], 1, 63) * 200_000,
        frame_header(0xC0, side_px),
    )
    return dicom_of(frame, uid.JPEGBaseline8Bit, side_px, BitsStored=8, HighBit=7)


def scans_of_one_component(kind: int) -> bytes:
    """A frame of the size that the file says, with scans without end."""
    data = scan([1], int(kind == 0xC3), LAST[kind]) * 200_000
    presets = tables() if kind != 0xF7 else b""
    frame = jpeg_of(presets, frame_header(kind, SIDE_PX, bits=BITS[kind]), data)
    return dicom_of(frame, SYNTAXES[kind], SIDE_PX)


def jpeg_ls(*before_the_scan: bytes, side_px: int = SIDE_PX) -> bytes:
    head = frame_header(0xF7, side_px, bits=12)
    frame = jpeg_of(head, *before_the_scan, scan([1], 0, 0), bytes(64))
    return dicom_of(frame, uid.JPEGLSLossless, side_px)


DICOM_JPEG: dict[str, Make] = {
    **{
        f"a decoy {where}, {SYNTAXES[kind].name}": partial(decoyed, kind, where)
        for kind in SYNTAXES
        for where in DECOYS
    },
    "progressive scans and a decoy": partial(scans_and_a_decoy, SIDE_PX),
    **{
        f"scans without end, {SYNTAXES[kind].name}": partial(scans_of_one_component, kind)
        for kind in SYNTAXES
    },
    "JPEG-LS without data": jpeg_ls,
    "JPEG-LS with a size of its own": lambda: jpeg_ls(
        segment(0xF8, b"\4\4" + struct.pack(">II", HUGE_PX, HUGE_PX))
    ),
    "JPEG-LS with odd presets": lambda: jpeg_ls(
        segment(0xF8, struct.pack(">B5H", 1, *[65535] * 5))
    ),
    "JPEG-LS with a mapping table": lambda: jpeg_ls(segment(0xF8, b"\2\1\4" + bytes(65_000)) * 900),
    "JPEG-LS with a restart at each line": lambda: jpeg_ls(segment(0xDD, b"\0\1")),
}


# --- JPEG 2000 (ITU-T T.800 annexes A and I) ------------------------------------------------------


def marker(code: int, payload: bytes) -> bytes:
    return struct.pack(">HH", code, len(payload) + 2) + payload


def siz(
    side_px: int,
    *,
    tile_px: int | None = None,
    components: int = 1,
    bits: int = 12,
    step: int = 1,
    offset: int = 0,
) -> bytes:
    tile_px = tile_px or side_px
    far = side_px + offset
    sides = struct.pack(">9I", 0, far, far, offset, offset, tile_px, tile_px, offset, offset)[2:]
    each = bytes([bits - 1, step, step]) * components
    return marker(0xFF51, sides + struct.pack(">H", components) + each)


def cod(
    *,
    levels: int = 5,
    layers: int = 1,
    block: tuple[int, int] = (4, 4),
    style: int = 0,
    precincts: bytes = b"",
) -> bytes:
    """``block`` has the exponents of its sides, less 2; ``precincts`` those of each level."""
    head = struct.pack(">BBHB", int(bool(precincts)), 2, layers, 0)
    return marker(0xFF52, head + bytes([levels, *block, style, 1]) + precincts)


def qcd(levels: int = 5) -> bytes:
    return marker(0xFF5C, b"\x40" + bytes([0x68] * (3 * levels + 1)))


def tile_part(
    data: bytes = bytes(64), *, head: bytes = b"", tile: int = 0, part: int = 0, parts: int = 1
) -> bytes:
    length = 12 + len(head) + 2 + len(data)
    return (
        marker(0xFF90, struct.pack(">HIBB", tile, length, part, parts)) + head + b"\xff\x93" + data
    )


def codestream(*parts: bytes) -> bytes:
    return b"\xff\x4f" + b"".join(parts) + b"\xff\xd9"


def box(kind: bytes, content: bytes, *, length: int | None = None) -> bytes:
    return struct.pack(">I4s", 8 + len(content) if length is None else length, kind) + content


def jp2(*boxes: bytes, side_px: int = SMALL_PX) -> bytes:
    header = box(b"ihdr", struct.pack(">IIHBBBB", side_px, side_px, 1, 11, 7, 0, 0))
    header += box(b"colr", b"\1\0\0" + struct.pack(">I", 17))
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", header) + b"".join(boxes)


def j2k_dicom(*parts: bytes, side_px: int = SIDE_PX) -> bytes:
    return dicom_of(codestream(*parts), uid.JPEG2000Lossless, side_px)


def j2k_in_boxes(*boxes: bytes) -> bytes:
    return dicom_of(jp2(*boxes), uid.JPEG2000Lossless)


def packet(
    bands: list[tuple[int, int]], passes: int, *, first: bool = True, end: bool = False
) -> bytes:
    """A packet header (B.10) by which each code-block of the bands has ``passes`` (37 to 164).

    Each has 8 bytes, or, where each pass has an ``end`` of its own, none.
    """
    bits = ["1"]
    for across, down in bands:
        seen: set[tuple[int, int, int]] = set()
        for block in ((x, y) for y in range(down) for x in range(across)):
            # Both tag trees have nothing but zeros: a bit for each node that is met first.
            path = [(level, *(at >> level for at in block)) for level in range(depth(across, down))]
            new = [node for node in path if node not in seen]
            seen.update(new)
            bits.append("1" * 2 * len(new) if first else "1")
            bits.append("1" * 9 + f"{passes - 37:07b}" + "0")
            bits.append("000" * passes if end else f"{8:0{2 + passes.bit_length()}b}")
    return stuffed("".join(bits))


def depth(across: int, down: int) -> int:
    return (max(across, down) - 1).bit_length() + 1


def stuffed(bits: str) -> bytes:
    """B.10.1: after FF, a byte begins with 0."""
    found, at = bytearray(), 0
    while at < len(bits) or found[-1] == 0xFF:
        size = 7 if found and found[-1] == 0xFF else 8
        found.append(int(bits[at : at + size].ljust(size, "0"), 2))
        at += size
    return bytes(found)


def passes_over_every_sample(side_px: int) -> bytes:
    """88 coding passes over every code-block: what 30 bit-planes take, in 9 bytes of each."""
    data, levels = b"", 5
    for level in range(levels + 1):
        width = -(-side_px >> levels - level)
        low = -(-width // 2)
        bands = [(low, width - low), (width - low, low), (width - low, width - low)]
        bands = [(-(-x // 64), -(-y // 64)) for x, y in (bands if level else [(width, width)])]
        data += packet(bands, 88) + bytes(8 * sum(x * y for x, y in bands))
    planes = marker(0xFF5C, b"\xe0" + bytes([24 << 3]) * (3 * levels + 1))
    return j2k_dicom(siz(side_px), cod(levels=levels), planes, tile_part(data), side_px=side_px)


def segments_without_end(layers: int) -> bytes:
    """One code-block, of which each layer has 164 segments."""
    data = packet([(1, 1)], 164, end=True) + packet([(1, 1)], 164, first=False, end=True) * (
        layers - 1
    )
    head = siz(SMALL_PX), cod(levels=0, layers=layers, style=4), qcd(0)
    return j2k_dicom(*head, tile_part(data), side_px=SMALL_PX)


HUGE_J2K = codestream(siz(HUGE_PX), cod(), qcd(), tile_part())
SMALL_J2K = codestream(siz(SMALL_PX), cod(), qcd(), tile_part())

JPEG_2000: dict[str, Make] = {
    "nothing coded": lambda: j2k_dicom(siz(SIDE_PX), cod(), qcd(), tile_part()),
    "precincts of one pixel": lambda: j2k_dicom(
        siz(SIDE_PX), cod(levels=0, precincts=b"\0"), qcd(0), tile_part()
    ),
    "precincts of two pixels at every level": lambda: j2k_dicom(
        siz(SIDE_PX), cod(levels=5, precincts=b"\x11" * 6), qcd(), tile_part()
    ),
    "precincts of one column": lambda: j2k_dicom(
        siz(SIDE_PX), cod(levels=0, precincts=b"\xf0"), qcd(0), tile_part()
    ),
    "code-blocks of four pixels": lambda: j2k_dicom(
        siz(SIDE_PX), cod(block=(0, 0)), qcd(), tile_part()
    ),
    "high-throughput code-blocks of four pixels": lambda: dicom_of(
        codestream(
            siz(SIDE_PX),
            marker(0xFF50, b"\0\2\0\0\0\0"),
            cod(block=(0, 0), style=0x40),
            qcd(),
            tile_part(),
        ),
        uid.HTJ2KLossless,
        SIDE_PX,
    ),
    "65,535 layers": lambda: j2k_dicom(
        siz(SIDE_PX), cod(layers=65_535, precincts=b"\x77" * 6), qcd(), tile_part()
    ),
    "65,535 layers of few precincts": lambda: j2k_dicom(
        siz(SIDE_PX), cod(layers=65_535, levels=32), qcd(32), tile_part()
    ),
    "tiles of one pixel": lambda: j2k_dicom(
        siz(SMALL_PX, tile_px=1), cod(), qcd(), tile_part(), side_px=SMALL_PX
    ),
    "65,000 tiles": lambda: j2k_dicom(siz(SIDE_PX, tile_px=25), cod(levels=0), qcd(0), tile_part()),
    "as many tiles and layers as are accepted": lambda: j2k_dicom(
        siz(SIDE_PX, tile_px=100),
        cod(layers=20),
        qcd(),
        *(tile_part(tile=tile) for tile in range(4096)),
    ),
    "as many layers and precincts as are accepted": lambda: j2k_dicom(
        siz(SIDE_PX), cod(layers=30, precincts=b"\x66" * 6), qcd(), tile_part()
    ),
    "as many code-blocks as are accepted": lambda: j2k_dicom(
        siz(SIDE_PX, offset=2**20 + 3), cod(block=(3, 3)), qcd(), tile_part()
    ),
    "segments without end": partial(segments_without_end, 60_000),
    "as many segments as are accepted": partial(segments_without_end, 18_000),
    "a coding style of its own in a tile": lambda: j2k_dicom(
        siz(SIDE_PX),
        cod(levels=0),
        qcd(0),
        tile_part(head=cod(levels=0, precincts=b"\0")),
    ),
    "a component's coding style": lambda: j2k_dicom(
        siz(SIDE_PX),
        cod(levels=0),
        qcd(0),
        marker(0xFF53, bytes([0, 1, 0, 4, 4, 0, 1, 0])),
        tile_part(),
    ),
    "a component's coding style in a tile": lambda: j2k_dicom(
        siz(SIDE_PX),
        cod(levels=0),
        qcd(0),
        tile_part(head=marker(0xFF53, bytes([0, 1, 0, 4, 4, 0, 1, 0]))),
    ),
    "changes of progression without end": lambda: j2k_dicom(
        siz(SIDE_PX),
        cod(layers=1000),
        qcd(),
        marker(0xFF5F, struct.pack(">BBHBBB", 0, 0, 1000, 33, 1, 2) * 31),
        tile_part(),
    ),
    "packed packet headers": lambda: j2k_dicom(
        siz(SIDE_PX), cod(), qcd(), marker(0xFF60, b"\0" + bytes(60_000)), tile_part()
    ),
    "tile-parts without end": lambda: j2k_dicom(
        siz(SMALL_PX), cod(), qcd(), tile_part(b"", parts=0) * 400_000, side_px=SMALL_PX
    ),
    "comments without end": lambda: j2k_dicom(
        siz(SMALL_PX), marker(0xFF64, b"") * 400_000, cod(), qcd(), tile_part(), side_px=SMALL_PX
    ),
    "16,384 components": lambda: j2k_dicom(
        siz(SIDE_PX, components=16_384), cod(), qcd(), tile_part()
    ),
    "38 bits": lambda: j2k_dicom(siz(SIDE_PX, bits=38), cod(), qcd(), tile_part()),
    "fewer samples than pixels": lambda: j2k_dicom(
        siz(SIDE_PX, step=255), cod(), qcd(), tile_part()
    ),
    "two sizes": lambda: j2k_dicom(
        siz(SMALL_PX), siz(HUGE_PX), cod(), qcd(), tile_part(), side_px=SMALL_PX
    ),
    "an unknown marker before a second size": lambda: j2k_dicom(
        siz(SMALL_PX), b"\xff\x30", siz(HUGE_PX), cod(), qcd(), tile_part(), side_px=SMALL_PX
    ),
    "a tile as long as 4 GB": lambda: j2k_dicom(
        siz(SMALL_PX), cod(), qcd(), tile_part().replace(b"\0\0\0N", b"\xff" * 4), side_px=SMALL_PX
    ),
    "a small codestream in an earlier box": lambda: j2k_in_boxes(
        box(b"free", SMALL_J2K), box(b"jp2c", HUGE_J2K)
    ),
    "a small codestream in an earlier box with a long length": lambda: j2k_in_boxes(
        struct.pack(">I4sQ", 1, b"free", 16 + len(SMALL_J2K)) + SMALL_J2K, box(b"jp2c", HUGE_J2K)
    ),
    "a small codestream in a nested box": lambda: j2k_in_boxes(
        box(b"jp2h", box(b"jp2c", SMALL_J2K)), box(b"jp2c", HUGE_J2K)
    ),
    "a small codestream in a second box": lambda: j2k_in_boxes(
        box(b"jp2c", HUGE_J2K), box(b"jp2c", SMALL_J2K)
    ),
    "a box without length": lambda: j2k_in_boxes(box(b"free", SMALL_J2K + HUGE_J2K, length=0)),
    "a box shorter than its header": lambda: j2k_in_boxes(
        box(b"free", b"", length=3), box(b"jp2c", HUGE_J2K)
    ),
    "a box whose long length is 0": lambda: j2k_in_boxes(
        struct.pack(">I4sQ", 1, b"free", 0), box(b"jp2c", HUGE_J2K)
    ),
    "boxes without end": lambda: j2k_in_boxes(box(b"free", b"") * 400_000, box(b"jp2c", HUGE_J2K)),
}


# --- RLE (PS3.5 annex G) --------------------------------------------------------------------------


def rle(offsets: list[int], data: bytes, side_px: int = SIDE_PX, count: int | None = None) -> bytes:
    count = len(offsets) if count is None else count
    header = struct.pack("<16I", count, *offsets, *[0] * (15 - len(offsets)))
    return dicom_of(header + data, uid.RLELossless, side_px)


RLE: dict[str, Make] = {
    "runs for more rows than there are": lambda: rle(
        [64, 64], b"\x81\0" * 2_000_000, side_px=SMALL_PX
    ),
    "the same segment for both": lambda: rle([64, 64], b"\x81\0" * 400_000),
    "codes that mean nothing": lambda: rle([64, 65], b"\x80" * MANY_BYTES),
    "15 segments": lambda: rle([64] * 15, b"\x81\0" * 400_000),
    "4 billion segments": lambda: rle([64], b"\x81\0" * 400_000, count=2**32 - 1),
    "segments beyond the end": lambda: rle([2**32 - 1] * 2, b"\x81\0"),
    "segments that end before they begin": lambda: rle([4096, 64], b"\x81\0" * 4096),
    "no data": lambda: rle([64, 64], b""),
}


# --- DICOM elements (PS3.5 section 7) -------------------------------------------------------------

TAGS = {
    "Modality": (0x0008, 0x0060),
    "BodyPartExamined": (0x0018, 0x0015),
    "ViewPosition": (0x0018, 0x5101),
    "PatientAge": (0x0010, 0x1010),
    "PatientBirthDate": (0x0010, 0x0030),
    "StudyDate": (0x0008, 0x0020),
    "PatientOrientation": (0x0020, 0x0020),
    "PhotometricInterpretation": (0x0028, 0x0004),
    "NumberOfFrames": (0x0028, 0x0008),
    "Rows": (0x0028, 0x0010),
    "BitsStored": (0x0028, 0x0101),
    "PixelPaddingValue": (0x0028, 0x0120),
    "WindowCenter": (0x0028, 0x1050),
    "RescaleSlope": (0x0028, 0x1053),
    "VOILUTFunction": (0x0028, 0x1056),
    "PresentationLUTShape": (0x2050, 0x0020),
    "SpecificCharacterSet": (0x0008, 0x0005),
}

LONG = {
    "values": (
        *("Modality", "BodyPartExamined", "ViewPosition", "PatientOrientation", "WindowCenter"),
        *("PhotometricInterpretation", "PresentationLUTShape", "VOILUTFunction", "NumberOfFrames"),
        *("RescaleSlope", "SpecificCharacterSet"),
    ),
    "letters": ("BodyPartExamined", "ViewPosition"),
    "digits": ("PatientAge", "PatientBirthDate", "StudyDate"),
    "numbers of two bytes": ("Rows", "BitsStored", "PixelPaddingValue"),
}
"""Elements that are looked at, by what they have 60 MB of."""

CONTENTS = {
    "values": b"CR\\",
    "letters": b"L",
    "digits": b"1",
    "numbers of two bytes": b"\x40\0",
}


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    if vr in (b"UT", b"SQ", b"OB", b"OW", b"UN"):
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def items(content: bytes, size_bytes: int) -> bytes:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    return item * (size_bytes // len(item))


SHORT = {
    TAGS["Modality"]: element(*TAGS["Modality"], b"CS", b"CR"),
    TAGS["BodyPartExamined"]: element(*TAGS["BodyPartExamined"], b"CS", b"CHEST "),
    (0x0028, 0x0002): element(0x0028, 0x0002, b"US", b"\1\0"),
    TAGS["PhotometricInterpretation"]: element(
        *TAGS["PhotometricInterpretation"], b"CS", b"MONOCHROME2 "
    ),
    TAGS["Rows"]: element(*TAGS["Rows"], b"US", b"\x40\0"),
    (0x0028, 0x0011): element(0x0028, 0x0011, b"US", b"\x40\0"),
    (0x0028, 0x0100): element(0x0028, 0x0100, b"US", b"\x10\0"),
    TAGS["BitsStored"]: element(*TAGS["BitsStored"], b"US", b"\x0c\0"),
    (0x7FE0, 0x0010): element(0x7FE0, 0x0010, b"OW", bytes(2 * SMALL_PX**2)),
}
"""The elements of a picture, by tag."""


def deflated(elements: dict[tuple[int, int], bytes]) -> bytes:
    """A deflated data set with a picture's elements and these; an empty one is left out."""
    body = b"".join(value for _, value in sorted({**SHORT, **elements}.items()))
    return part_10(uid.DeflatedExplicitVRLittleEndian.encode() + b"\0", deflate(body))


def part_10(transfer_syntax: bytes, body: bytes, vr: bytes = b"UI") -> bytes:
    meta = element(0x0002, 0x0010, vr, transfer_syntax)
    length = element(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta)))
    return bytes(128) + b"DICM" + length + meta + body


def deflate(body: bytes) -> bytes:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return deflater.compress(body) + deflater.flush()


def long_element(keyword: str, content: str) -> bytes:
    piece = CONTENTS[content]
    value = piece * (MANY_BYTES // len(piece))
    return deflated({TAGS[keyword]: element(*TAGS[keyword], b"UT", value)})


def long_sequence(group: int, number: int, content: bytes) -> bytes:
    value = items(content, MANY_BYTES)
    sequence = element(group, number, b"SQ", value)
    return deflated({TAGS["BodyPartExamined"]: b"", (group, number): sequence})


def long_table(group: int, number: int, descriptor: bytes) -> bytes:
    """A look-up table of which every part is as long as it can be."""
    content = element(0x0028, 0x3002, b"UT", descriptor)
    content += element(0x0028, 0x3006, b"OW", bytes(MANY_BYTES - len(content) - 20))
    return long_sequence(group, number, content)


ELEMENTS: dict[str, Make] = {
    **{
        f"{keyword} of {content}": partial(long_element, keyword, content)
        for content, keywords in LONG.items()
        for keyword in keywords
    },
    "a transfer syntax of 60 MB": lambda: part_10(b"1" * MANY_BYTES, b"", b"UT"),
    "empty items of regions": lambda: long_sequence(0x0008, 0x2218, b""),
    "regions of many codes": lambda: long_sequence(
        0x0008, 0x2218, element(0x0008, 0x0100, b"UT", b"T\\" * 2**20)
    ),
    "four sequences of as many items as are walked": lambda: deflated(
        {
            tag: element(*tag, b"SQ", items(element(0x0008, 0x0104, b"LO", b"PA"), 24 * 49_000))
            for tag in ((0x0008, 0x2218), (0x0054, 0x0220), (0x0028, 0x3000), (0x0028, 0x3010))
        }
    ),
    "a region of one long code": lambda: long_sequence(
        0x0008, 0x2218, element(0x0008, 0x0100, b"UT", b"T" * (MANY_BYTES // 2))
    ),
    "views of long meanings": lambda: long_sequence(
        0x0054, 0x0220, element(0x0008, 0x0104, b"UT", b"A" * 1000)
    ),
    "a modality table of 60 MB": lambda: long_table(0x0028, 0x3000, struct.pack("<3H", 0, 0, 16)),
    "a VOI table of 60 MB": lambda: long_table(0x0028, 0x3010, struct.pack("<3H", 0, 0, 16)),
    "a descriptor of 30 MB": lambda: long_table(
        0x0028, 0x3010, struct.pack("<3H", 0, 0, 16) * (MANY_BYTES // 12)
    ),
    "a descriptor as long as may be": lambda: long_table(
        0x0028, 0x3010, struct.pack("<3H", 0, 0, 16) * (60_000 // 6)
    ),
    "a private element of 60 MB": lambda: deflated(
        {(0x0009, 0x1000): element(0x0009, 0x1000, b"UN", bytes(MANY_BYTES))}
    ),
    "one element again and again": lambda: deflated(
        {TAGS["Modality"]: SHORT[TAGS["Modality"]] * (MANY_BYTES // 10)}
    ),
    "as many elements as are walked": lambda: deflated(
        {
            (0x0029, 0): b"".join(
                element(0x0029 + 2 * (at >> 16), at & 0xFFFF, b"CS", b"") for at in range(99_900)
            )
        }
    ),
    "a bomb": lambda: part_10(
        uid.DeflatedExplicitVRLittleEndian.encode() + b"\0", deflate(bytes(128 * 2**20))
    ),
}


# --- PNG (W3C, 3rd edition) -----------------------------------------------------------------------


def png_of(width_px: int, height_px: int, data: bytes, before_data: bytes = b"") -> bytes:
    head = images.header(width_px, height_px, images.GREY, 8)
    return b"\x89PNG\r\n\x1a\n" + head + before_data + data + chunk(b"IEND", b"")


PNG: dict[str, Make] = {
    "two headers": lambda: png_of(
        SMALL_PX, SMALL_PX, chunk(b"IDAT", b""), images.header(HUGE_PX, HUGE_PX, images.RGBA, 16)
    ),
    "data of one byte": lambda: png_of(SIDE_PX, SIDE_PX, chunk(b"IDAT", zlib.compress(b"\0"))),
    "data that inflate to much more than the rows": lambda: png_of(
        SMALL_PX, SMALL_PX, chunk(b"IDAT", zlib.compress(bytes(128 * 2**20), 9))
    ),
    "chunks without end": lambda: png_of(SMALL_PX, SMALL_PX, chunk(b"IDAT", b"") * 200_000),
    "a profile and a text that inflate": lambda: png_of(
        SMALL_PX,
        SMALL_PX,
        chunk(b"IDAT", zlib.compress(bytes(SMALL_PX * (SMALL_PX + 1)))),
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(256 * 2**20), 9))
        + chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(256 * 2**20), 9)),
    ),
    "a very wide picture": lambda: png_of(2**31 - 1, 1, chunk(b"IDAT", zlib.compress(b"\0"))),
}


HOSTILE: dict[str, Make] = {
    f"{kind}: {name}": make
    for kind, makers in {
        "JPEG": JPEG,
        "DICOM JPEG": DICOM_JPEG,
        "JPEG 2000": JPEG_2000,
        "RLE": RLE,
        "elements": ELEMENTS,
        "PNG": PNG,
    }.items()
    for name, make in makers.items()
}
"""What makes each, by what it holds."""


BEYOND_THE_WALKS: dict[str, Make] = {
    "JPEG 2000: 88 passes over every sample": partial(passes_over_every_sample, SIDE_PX),
    "JPEG 2000: 88 passes over a small picture": partial(passes_over_every_sample, 3000),
    "JPEG-LS: data that mean nothing": lambda: dicom_of(
        jpeg_of(
            frame_header(0xF7, SMALL_PX, bits=12),
            scan([1], 0, 0),
            np.random.default_rng(0).bytes(10_000).replace(b"\xff", b"\xfe"),
        ),
        uid.JPEGLSLossless,
    ),
}
"""What asks for no more than a picture may, and so is decoded, for seconds."""
