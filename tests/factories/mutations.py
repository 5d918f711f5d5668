"""Mutants of image files: what ``image_mutant(seed, index)`` gives is a function of the two alone.

A mutant starts from a file of :func:`corpus` and passes some operators. Half of them know nothing
(bits, blocks, cuts, splices), the others know JPEG's segments, PNG's chunks, DICOM's elements or
the headers of compressed frames, and mend the checksums, so that a mutant gets past the walk to
the decoder.

The corpus is encoded by the Pillow that is installed, so the same seed gives other bytes under
another version: keep a mutant that finds something as a file, not as a seed alone.

Does not: look for coverage (no instrumented decoder), or use radiographs of anybody.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

import chestxray
from chestxray.imaging.synthetic import synthetic_radiograph
from factories import dicom_files, images
from factories.images import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, chunk, raw_png, smooth

Operator = Callable[[Random, bytes], bytes]

JPEG_SIGNATURE, PNG_SIGNATURE = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

INTERESTING = (0, 1, 2, 7, 8, 15, 16, 31, 32, 64, 127, 128, 255, 256, 1023, 4096, 32767, 32768)
INTERESTING += (65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)

GROWN_BYTES = 400_000
"""No operator that multiplies makes a file larger than this."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """Bytes, and how they came to be: the corpus file and the operators in their order."""

    base: str
    operators: tuple[str, ...]
    data: bytes


def image_mutant(seed: int, index: int) -> Mutant:
    """Mutant ``index`` of ``seed``: one to four operators, mostly one."""
    rng = Random(f"image {seed} {index}")
    base = rng.choice(sorted(corpus()))
    data = corpus()[base]
    used = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        operator = rng.choice(_operators_for(rng, data))
        data = operator(rng, data)
        used.append(operator.__name__)
    return Mutant(base, tuple(used), data)


@cache
def corpus() -> dict[str, bytes]:
    """Small files of every kind that is read and of some that are not, by name."""
    grey = smooth(48, 64)
    colour = np.stack([grey, grey[::-1], 255 - grey], axis=-1)
    deep = grey.astype(np.uint16) * 256 + 77
    half = np.where(np.arange(64) < 32, 0, 255).astype(np.uint8) * np.ones_like(grey)
    phantom = np.uint8(np.round(synthetic_radiograph(0, 96) * 255))
    palette = chunk(b"PLTE", bytes(np.repeat(np.arange(256, dtype=np.uint8), 3)))
    transparent = chunk(b"tRNS", bytes(range(256)))
    turned = images.with_segment(images.jpeg(grey), 0xE1, b"Exif\0\0" + images.exif(6))
    made = {
        "jpeg grey": images.jpeg(grey),
        "jpeg grey, progressive": images.jpeg(grey, progressive=True),
        "jpeg grey, restart markers": images.jpeg(grey, restart_marker_blocks=2),
        "jpeg grey, Exif": turned,
        "jpeg phantom": images.jpeg(phantom, quality=85),
        "jpeg colour": images.jpeg(colour, "RGB"),
        "jpeg colour, subsampled": images.jpeg(colour, "RGB", subsampling=2),
        "jpeg colour, progressive": images.jpeg(colour, "RGB", progressive=True, quality=80),
        "jpeg CMYK": images.jpeg(np.dstack([colour, grey]), "CMYK"),
        "jpeg YCCK": images.ycck_jpeg(grey),
        "jpeg of two pictures": images.mpo(),
        "png grey": images.png(grey),
        "png phantom": images.png(phantom),
        "png grey, interlaced": raw_png(grey, GREY, 8, interlaced=True),
        "png 1 bit": raw_png(grey > 100, GREY, 1),
        "png 4 bit, interlaced": raw_png(grey // 16, GREY, 4, interlaced=True),
        "png 16 bit": raw_png(deep, GREY, 16),
        "png 16 bit, interlaced": raw_png(deep, GREY, 16, interlaced=True),
        "png 16 bit, tRNS": raw_png(deep, GREY, 16, before_data=chunk(b"tRNS", b"\x10\x4d")),
        "png RGB": images.png(colour, "RGB"),
        "png RGB, 16 bit": raw_png(colour * np.uint16(257), RGB, 16),
        "png RGBA": images.png(np.dstack([colour, half]), "RGBA"),
        "png RGBA, 16 bit": raw_png(np.dstack([colour, half]) * np.uint16(257), RGBA, 16),
        "png LA": raw_png(np.dstack([grey, half]), GREY_ALPHA, 8),
        "png palette": raw_png(grey, PALETTE, 8, before_data=palette),
        "png palette, tRNS": raw_png(grey, PALETTE, 8, before_data=palette + transparent),
        "png palette, 2 bit": raw_png(grey // 64, PALETTE, 2, before_data=palette),
        "png, animated": images.apng(),
        "gif": images.gif(),
        "bmp": _bmp(grey),
        "text": b"this is a text, whatever its name says\r\n" * 20,
    }
    made |= _dicom_files()
    examples = sorted((Path(chestxray.__file__).parent / "examples").glob("*.jpeg"))
    return made | {f"example {path.stem}": path.read_bytes() for path in examples}


def with_true_checksums(png: bytes) -> bytes:
    """The file with the CRC of every chunk that can be found set right."""
    mended = bytearray(png)
    at = 8
    while at + 12 <= len(mended):
        end = at + 12 + int.from_bytes(mended[at : at + 4])
        if end > len(mended):
            break
        mended[end - 4 : end] = zlib.crc32(mended[at + 4 : end - 4]).to_bytes(4)
        at = end
    return bytes(mended)


def _dicom_files() -> dict[str, bytes]:
    values = dicom_files.phantom(12, 64)
    table = dicom_files.lut(0, np.arange(4096) * 16, 16)
    made = {
        "dicom": dicom_files.dicom(values, WindowCenter="2000", WindowWidth="3000"),
        "dicom, padded": dicom_files.dicom(values, PixelPaddingValue=0, RescaleSlope="2"),
        "dicom, VOI LUT": dicom_files.dicom(values, VOILUTSequence=[table]),
        "dicom, modality LUT": dicom_files.dicom(values, ModalityLUTSequence=[table]),
        "dicom, two frames": dicom_files.dicom(values, NumberOfFrames=2),
        "dicom, colour": dicom_files.dicom(values, SamplesPerPixel=3),
        "dicom, CT": dicom_files.dicom(values, Modality="CT"),
        "dicom, knee": dicom_files.dicom(values, BodyPartExamined="KNEE"),
        "dicom, lateral": dicom_files.dicom(values, ViewPosition="LL"),
    }
    ds = dicom_files.data_set(values, VOILUTSequence=[table])
    for syntax in dicom_files.NATIVE:
        made[f"dicom, {syntax.name}"] = dicom_files.in_syntax(ds, syntax)
    for syntax in dicom_files.NATIVE[:3]:
        made[f"data set, {syntax.name}"] = dicom_files.bare(ds, syntax)
    eight = dicom_files.phantom(8, 64).astype(np.uint8)
    for syntax in dicom_files.COMPRESSED:
        made[f"dicom, {syntax.name}"] = dicom_files.compressed(eight, syntax, bits=8)
    return made


def _bmp(samples: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(samples).save(stream, "BMP")
    return stream.getvalue()


# --- operators that know nothing ------------------------------------------------------------------


def flip_bits(rng: Random, data: bytes) -> bytes:
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if data else 0):
        mutant[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(mutant)


def set_bytes(rng: Random, data: bytes) -> bytes:
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16)) if data else 0):
        mutant[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(mutant)


def set_number(rng: Random, data: bytes) -> bytes:
    number = _number(rng, rng.choice((2, 4)), rng.choice(("big", "little")))
    at = rng.randrange(len(data) + 1)
    return data[:at] + number + data[at + len(number) :]


def delete_block(rng: Random, data: bytes) -> bytes:
    start, end = _block(rng, data)
    return data[:start] + data[end:]


def repeat_block(rng: Random, data: bytes) -> bytes:
    start, end = _block(rng, data)
    times = min(rng.choice((1, 1, 2, 16, 256)), GROWN_BYTES // max(1, end - start))
    return data[:end] + data[start:end] * times + data[end:]


def insert_block(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + _noise(rng) + data[at:]


def fill_block(rng: Random, data: bytes) -> bytes:
    start, end = _block(rng, data)
    return data[:start] + rng.choice((b"\0", b"\xff", b"A")) * (end - start) + data[end:]


def swap_blocks(rng: Random, data: bytes) -> bytes:
    a, b, c, d = sorted(rng.randrange(len(data) + 1) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def splice(rng: Random, data: bytes) -> bytes:
    """The beginning of this file and the end of another."""
    other = corpus()[rng.choice(sorted(corpus()))]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def new_signature(rng: Random, data: bytes) -> bytes:
    return rng.choice((JPEG_SIGNATURE, PNG_SIGNATURE, b"GIF89a", b"BM", b"")) + data[8:]


BLIND: tuple[Operator, ...] = (
    flip_bits,
    set_bytes,
    set_number,
    delete_block,
    repeat_block,
    insert_block,
    fill_block,
    swap_blocks,
    cut,
    splice,
    new_signature,
)


def _block(rng: Random, data: bytes) -> tuple[int, int]:
    """The start and end of a block; short ones are as likely as long ones."""
    start = rng.randrange(len(data) + 1)
    length = int(2 ** rng.uniform(0, max(1, len(data)).bit_length()))
    return start, min(len(data), start + length)


def _noise(rng: Random) -> bytes:
    return rng.randbytes(int(2 ** rng.uniform(0, 10)))


def _number(rng: Random, n_bytes: int, order: str = "big") -> bytes:
    """An interesting number, or the number beside one."""
    value = rng.choice(INTERESTING) + rng.choice((-1, 0, 0, 1))
    number = (value % 256**n_bytes).to_bytes(n_bytes)
    return number if order == "big" else number[::-1]


# --- operators that know JPEG (ITU-T T.81 annex B) ------------------------------------------------


def jpeg_segment_length(rng: Random, data: bytes) -> bytes:
    parts = _segments(data)
    at = rng.randrange(len(parts))
    length = int.from_bytes(parts[at][2:4]) + rng.choice((-2, -1, 1, 2))
    field = rng.choice((_number(rng, 2), (length % 65536).to_bytes(2)))
    return _joined(parts, at, parts[at][:2] + field + parts[at][4:])


def jpeg_frame(rng: Random, data: bytes) -> bytes:
    """Precision, height, width, number of components, or what one component says of itself."""
    start, n_bytes = rng.choice(((4, 1), (5, 2), (5, 2), (7, 2), (7, 2), (9, 1), (10, 1), (11, 1)))
    return _in_segment(rng, data, range(0xC0, 0xC3), start, _number(rng, n_bytes))


def jpeg_frame_kind(rng: Random, data: bytes) -> bytes:
    return _in_segment(rng, data, range(0xC0, 0xC3), 1, bytes([rng.randrange(0xC0, 0xD0)]))


def jpeg_scan_header(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(4, 14)
    return _in_segment(rng, data, (0xDA,), start, bytes([rng.choice((0, 1, 17, 63, 64, 255))]))


def jpeg_table(rng: Random, data: bytes) -> bytes:
    """A byte of a Huffman or quantisation table or of the restart interval."""
    start = rng.randrange(4, 40)
    return _in_segment(rng, data, (0xC4, 0xDB, 0xDD), start, _number(rng, 1))


def jpeg_scans_multiplied(rng: Random, data: bytes) -> bytes:
    parts = _segments(data)
    scans = [at for at, part in enumerate(parts) if part[1:2] == b"\xda"]
    if not scans:
        return data
    at = rng.choice(scans)
    times = min(rng.choice((2, 3, 10, 99, 101, 300)), 1 + GROWN_BYTES // len(parts[at]))
    return _joined(parts, at, parts[at] * times)


def jpeg_segments_moved(rng: Random, data: bytes) -> bytes:
    return b"".join(_moved(rng, _segments(data)))


def jpeg_segment_inserted(rng: Random, data: bytes) -> bytes:
    parts = _segments(data)
    payload = rng.choice(
        (
            b"Exif\0\0" + broken_exif(rng),
            b"MPF\0" + broken_exif(rng),
            b"JFIF\0" + _noise(rng),
            b"Adobe" + rng.randbytes(7),
            b"ICC_PROFILE\0" + _noise(rng),
            _number(rng, 2),
            _noise(rng),
        )
    )
    code = rng.choice((0xE0, 0xE1, 0xE2, 0xEE, 0xFE, 0xDC, 0xDD, rng.randrange(256)))
    segment = struct.pack(">BBH", 0xFF, code, (len(payload) + 2) % 65536) + payload
    parts.insert(rng.randrange(1, len(parts) + 1), segment)
    return b"".join(parts)


def jpeg_exif(rng: Random, data: bytes) -> bytes:
    """Exif at its place, its orientation or its structure broken."""
    return images.with_segment(data, 0xE1, b"Exif\0\0" + broken_exif(rng))


def broken_exif(rng: Random) -> bytes:
    block = images.exif(rng.choice((0, 1, 6, 8, 9, 255, 65535)), rng.choice("<>"))
    return rng.choice((flip_bits, set_number, cut, repeat_block))(rng, block)


JPEG: tuple[Operator, ...] = (
    jpeg_segment_length,
    jpeg_frame,
    jpeg_frame_kind,
    jpeg_scan_header,
    jpeg_table,
    jpeg_scans_multiplied,
    jpeg_segments_moved,
    jpeg_segment_inserted,
    jpeg_exif,
)

_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)


def _segments(data: bytes) -> list[bytes]:
    """The start, each segment (a scan with its data) and what follows; joined, ``data`` again."""
    parts = [data[:2]]
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xD9:
        end = max(at + 4, at + 2 + int.from_bytes(data[at + 2 : at + 4]))
        if data[at + 1] == 0xDA:
            following = _AFTER_SCAN.search(data, end)
            end = following.start() if following else len(data)
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:]]


def _in_segment(
    rng: Random, data: bytes, codes: Sequence[int], start: int, replacement: bytes
) -> bytes:
    """``data`` with ``replacement`` at ``start`` of one of the segments with these codes."""
    parts = _segments(data)
    found = [at for at, part in enumerate(parts[1:-1], 1) if part[1] in codes]
    if not found:
        return data
    at = rng.choice(found)
    part = parts[at]
    return _joined(parts, at, part[:start] + replacement + part[start + len(replacement) :])


def _joined(parts: list[bytes], at: int, replacement: bytes) -> bytes:
    return b"".join([*parts[:at], replacement, *parts[at + 1 :]])


def _moved(rng: Random, parts: list[bytes]) -> list[bytes]:
    """The parts with one of them dropped, doubled or at another place; the first stays."""
    if len(parts) < 2:
        return parts
    at, to = rng.randrange(1, len(parts)), rng.randrange(1, len(parts))
    part = parts[at]
    without = parts[:at] + parts[at + 1 :]
    return rng.choice(
        (without, [*parts[:to], part, *parts[to:]], [*without[:to], part, *without[to:]])
    )


# --- operators that know PNG ----------------------------------------------------------------------


def png_header_field(rng: Random, data: bytes) -> bytes:
    """Width, height, depth, colour type, compression, filter or interlace method."""
    start, n_bytes = rng.choice(((16, 4), (20, 4), (24, 1), (25, 1), (26, 1), (27, 1), (28, 1)))
    value = rng.choice((_number(rng, n_bytes), rng.randrange(17).to_bytes(n_bytes)))
    return with_true_checksums(data[:start] + value + data[start + n_bytes :])


def png_chunk_length(rng: Random, data: bytes) -> bytes:
    parts = _chunks(data)
    at = rng.randrange(len(parts))
    length = int.from_bytes(parts[at][:4]) + rng.choice((-4, -1, 1, 4, 12))
    field = rng.choice((_number(rng, 4), (length % 2**32).to_bytes(4)))
    return with_true_checksums(_joined(parts, at, field + parts[at][4:]))


def png_chunk_payload(rng: Random, data: bytes) -> bytes:
    parts = _chunks(data)
    at = rng.randrange(1, len(parts)) if len(parts) > 1 else 0
    payload = rng.choice(BLIND)(rng, parts[at][8:-4])
    return _joined(parts, at, chunk(parts[at][4:8], payload))


def png_chunks_moved(rng: Random, data: bytes) -> bytes:
    return b"".join(_moved(rng, _chunks(data)))


def png_chunk_inserted(rng: Random, data: bytes) -> bytes:
    parts = _chunks(data)
    bomb = zlib.compress(bytes(1_000_000))
    added = rng.choice(
        (
            chunk(b"tRNS", rng.randbytes(rng.choice((0, 1, 2, 6, 256, 300)))),
            chunk(b"PLTE", rng.randbytes(rng.choice((0, 1, 3, 6, 48, 768, 900)))),
            chunk(b"eXIf", broken_exif(rng)),
            chunk(b"acTL", rng.randbytes(8)),
            chunk(b"fcTL", rng.randbytes(26)),
            chunk(b"iCCP", b"name\0\0" + bomb),
            chunk(b"zTXt", b"key\0\0" + bomb),
            chunk(b"gAMA", _number(rng, 4)),
            chunk(b"sBIT", rng.randbytes(rng.randrange(6))),
            chunk(b"bKGD", rng.randbytes(rng.randrange(7))),
            chunk(b"IDAT", _noise(rng)),
            chunk(b"IDAT", b""),
            chunk(b"IEND", b""),
            chunk(rng.randbytes(4), _noise(rng)),
            data[8:33],  # a second header
        )
    )
    times = rng.choice((1, 1, 1, 2, 50))
    parts.insert(rng.randrange(1, len(parts) + 1), added * min(times, GROWN_BYTES // len(added)))
    return b"".join(parts)


def png_rows(rng: Random, data: bytes) -> bytes:
    """The rows mutated before they are compressed, the data cut into many chunks."""
    rows = b"".join(part[8:-4] for part in _chunks(data) if part[4:8] == b"IDAT")
    try:
        rows = zlib.decompressobj().decompress(rows, GROWN_BYTES)
    except zlib.error:
        return data
    packed = zlib.compress(rng.choice(BLIND)(rng, rows), rng.randrange(10))
    return _with_image_data(rng, data, packed)


def png_enlarged(rng: Random, data: bytes) -> bytes:
    """A picture of one grey with as many pixels as is accepted, or a few more; a small file."""
    width, height = (int(2 ** rng.uniform(0, 13)) for _ in range(2))
    bits_per_pixel = {0: 1, 2: 3, 4: 2, 6: 4}.get(data[25], 1) * data[24] if len(data) > 25 else 8
    row_bytes = 1 + (width * bits_per_pixel + 7) // 8
    if width * height > 45_000_000 or row_bytes * height > 100_000_000:
        return data
    enlarged = with_true_checksums(data[:16] + struct.pack(">II", width, height) + data[24:])
    return _with_image_data(rng, enlarged, zlib.compress(bytes(row_bytes * height), 1))


PNG: tuple[Operator, ...] = (
    png_header_field,
    png_chunk_length,
    png_chunk_payload,
    png_chunk_payload,
    png_chunks_moved,
    png_chunk_inserted,
    png_rows,
    png_rows,
    png_enlarged,
)


def _chunks(data: bytes) -> list[bytes]:
    """The signature, each chunk and what follows; joined, ``data`` again."""
    parts = [data[:8]]
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            break
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:]] if at < len(data) else parts


def _with_image_data(rng: Random, data: bytes, packed: bytes) -> bytes:
    """The PNG with ``packed`` in the place of its IDAT chunks, in one or many pieces."""
    parts = _chunks(data)
    at = next((at for at, part in enumerate(parts) if part[4:8] == b"IDAT"), len(parts))
    kept = [part for part in parts if part[4:8] != b"IDAT"]
    size = rng.choice((len(packed) or 1, max(1, len(packed) // 50)))
    pieces = [chunk(b"IDAT", packed[i : i + size]) for i in range(0, len(packed), size)]
    return b"".join([*kept[:at], *pieces, *kept[at:]])


# --- operators that know DICOM (PS3.5 section 7) --------------------------------------------------


def dicom_length(rng: Random, data: bytes) -> bytes:
    parts = _elements(data)
    at = rng.randrange(len(parts))
    n_bytes = 4 if parts[at][4:6] in LONG_VRS else 2
    start = 8 if n_bytes == 4 else 6
    number = _number(rng, n_bytes, "little")
    return _joined(parts, at, parts[at][:start] + number + parts[at][start + n_bytes :])


def dicom_value(rng: Random, data: bytes) -> bytes:
    """A value mutated, its length set right."""
    parts = _elements(data)
    at = rng.randrange(len(parts))
    long = parts[at][4:6] in LONG_VRS
    head = 12 if long else 8
    value = rng.choice(BLIND)(rng, parts[at][head:])
    length = (
        len(value).to_bytes(4, "little") if long else (len(value) % 65536).to_bytes(2, "little")
    )
    return _joined(parts, at, parts[at][: head - len(length)] + length + value)


def dicom_integer(rng: Random, data: bytes) -> bytes:
    """Rows, columns, bits or another integer set to an interesting one."""
    parts = _elements(data)
    found = [at for at, part in enumerate(parts) if part[4:6] in (b"US", b"SS")]
    if not found:
        return data
    at = rng.choice(found)
    value = rng.choice((_number(rng, 2, "little"), rng.randrange(20).to_bytes(2, "little")))
    return _joined(parts, at, parts[at][:8] + value)


def dicom_number(rng: Random, data: bytes) -> bytes:
    """A window, slope, count or age set to an interesting one."""
    parts = _elements(data)
    found = [at for at, part in enumerate(parts) if part[4:6] in (b"DS", b"IS", b"AS")]
    if not found:
        return data
    at = rng.choice(found)
    value = rng.choice(
        ("0", "-1", "1e-9", "1e300", "-1e300", "nan", "inf", "x", "", "1\\2", "0.5", "080Y")
    )
    padded = value.encode() + b" " * (len(value) % 2)
    return _joined(parts, at, parts[at][:6] + len(padded).to_bytes(2, "little") + padded)


def dicom_tag(rng: Random, data: bytes) -> bytes:
    parts = _elements(data)
    at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    return _joined(parts, at, parts[other][:4] + parts[at][4:])


def dicom_vr(rng: Random, data: bytes) -> bytes:
    parts = _elements(data)
    at = rng.randrange(len(parts))
    vr = rng.choice((*LONG_VRS, b"US", b"DS", b"CS", b"XX", b"\0\0"))
    return _joined(parts, at, parts[at][:4] + vr + parts[at][6:])


def dicom_elements_moved(rng: Random, data: bytes) -> bytes:
    return b"".join(_moved(rng, _elements(data)))


DICOM: tuple[Operator, ...] = (
    dicom_length,
    dicom_value,
    dicom_value,
    dicom_integer,
    dicom_number,
    dicom_tag,
    dicom_vr,
    dicom_elements_moved,
)

LONG_VRS = (b"OB", b"OW", b"SQ", b"UN", b"UT")


def _elements(data: bytes) -> list[bytes]:
    """The preamble, then each element of an explicit little endian file; joined, ``data`` again."""
    parts = [data[:132]]
    at = 132
    while at + 12 <= len(data) and data[at + 4 : at + 6].isupper():
        if data[at + 4 : at + 6] in LONG_VRS:
            end = at + 12 + int.from_bytes(data[at + 8 : at + 12], "little")
        else:
            end = at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")
        end = min(end, len(data))
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:]] if at < len(data) else parts


# --- operators that know the one frame of compressed pixel data (PS3.5 A.4) -----------------------


def frame_jpeg(rng: Random, data: bytes) -> bytes:
    """A JPEG or JPEG-LS frame, mutated as a JPEG file is."""
    before, frame, after = _frame(data)
    return (
        data if frame[:2] != b"\xff\xd8" else before + _item(rng.choice(JPEG)(rng, frame)) + after
    )


def frame_header_doubled(rng: Random, data: bytes) -> bytes:
    """A second header of another size somewhere, bare or within metadata."""
    before, frame, after = _frame(data)
    kind, parts = _parts_of(frame)
    headers = [part for part in parts if part[1:2] in kind.headers]
    if not headers:
        return data
    size = struct.pack(kind.sides, rng.choice((64, 512, 6300, 65500)), rng.choice((64, 65500)))
    header = rng.choice(headers)
    header = header[: kind.sides_at] + size + header[kind.sides_at + len(size) :]
    hidden = kind.metadata + struct.pack(">H", len(header) + 2) + header
    parts.insert(rng.randrange(1, len(parts) + 1), rng.choice((header, hidden)))
    return before + _item(b"".join(parts)) + after


def frame_parts_moved(rng: Random, data: bytes) -> bytes:
    before, frame, after = _frame(data)
    _, parts = _parts_of(frame)
    return before + _item(b"".join(_moved(rng, parts))) + after


def frame_part_repeated(rng: Random, data: bytes) -> bytes:
    before, frame, after = _frame(data)
    _, parts = _parts_of(frame)
    at = rng.randrange(len(parts))
    times = min(rng.choice((2, 10, 100, 5000)), 1 + GROWN_BYTES // (len(parts[at]) or 1))
    return before + _item(_joined(parts, at, parts[at] * times)) + after


def frame_number(rng: Random, data: bytes) -> bytes:
    """A number in one of the headers: a size, a count, a level, an exponent, a length."""
    before, frame, after = _frame(data)
    _, parts = _parts_of(frame)
    at = rng.randrange(len(parts))
    part, n_bytes = parts[at], rng.choice((1, 1, 2, 4))
    start = rng.randrange(2, max(3, min(len(part), 64)))
    number = rng.choice((_number(rng, n_bytes), rng.randrange(40).to_bytes(n_bytes)))
    bent = part[:start] + number + part[start + n_bytes :]
    return before + _item(_joined(parts, at, bent)) + after


def frame_enlarged(rng: Random, data: bytes) -> bytes:
    """The frame and the data set say the same size, of up to the pixels that are accepted."""
    before, frame, after = _frame(data)
    kind, parts = _parts_of(frame)
    rows, columns = (int(2 ** rng.uniform(5, 13)) for _ in range(2))
    sides = {kind.sides_at: struct.pack(kind.sides, *kind.order(rows, columns))}
    if kind is _J2K and rng.random() < 0.7:
        sides[kind.tile_at] = struct.pack(">II", *rng.choices((1, 7, 64, 500, 9000), k=2))
    for at, part in enumerate(parts):
        if part[1:2] in kind.headers:
            for start, new in sides.items():
                part = part[:start] + new + part[start + len(new) :]  # noqa: PLW2901
            parts[at] = part
    for tag, side in ((b"\x28\0\x10\0", rows), (b"\x28\0\x11\0", columns)):
        before = re.sub(
            re.escape(tag + b"US\2\0") + b"..",
            lambda found, side=side: found[0][:-2] + side.to_bytes(2, "little"),
            before,
            flags=re.DOTALL,
        )
    return before + _item(b"".join(parts)) + after


def frame_boxed(rng: Random, data: bytes) -> bytes:
    """A codestream in the boxes of a JP2 file, some of them decoys, some of odd length."""
    before, frame, after = _frame(data)

    def box(kind: bytes, content: bytes) -> bytes:
        size = rng.choice((8 + len(content),) * 6 + (0, 1, 7, 2**31))
        return struct.pack(">I4s", size, kind) + content

    kinds = [b"jp2c", b"jp2h", b"free", b"uuid", b"jp2c"]
    boxes = [box(rng.choice(kinds), frame) for _ in range(rng.choice((1, 1, 2, 3)))]
    start = struct.pack(">I4s4s", 12, b"jP  ", b"\r\n\x87\n")
    return before + _item(start + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + b"".join(boxes)) + after


def data_set_inflated(rng: Random, data: bytes) -> bytes:
    """A deflated data set, mutated as what it inflates to is."""
    at = data.find(b"1.2.840.10008.1.2.1.99\0")
    try:
        body = zlib.decompress(data[at + 23 :], -zlib.MAX_WBITS) if at > 0 else b""
    except zlib.error:
        return data
    if not body:
        return data
    bent = rng.choice(DICOM)(rng, bytes(132) + body)[132:]
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return data[: at + 23] + deflater.compress(bent * rng.choice((1, 1, 1, 2))) + deflater.flush()


_DEFLATED = b"1.2.840.10008.1.2.1.99"

FRAMES: tuple[Operator, ...] = (
    frame_jpeg,
    frame_header_doubled,
    frame_parts_moved,
    frame_part_repeated,
    frame_number,
    frame_number,
    frame_enlarged,
    frame_boxed,
    data_set_inflated,
)


@dataclass(frozen=True)
class _Stream:
    """Where the headers of a compressed frame have what: codes, offsets within a segment."""

    headers: tuple[bytes, ...]
    sides: str
    sides_at: int
    metadata: bytes
    tile_at: int = 0
    columns_first: bool = False

    def order(self, rows: int, columns: int) -> tuple[int, int]:
        return (columns, rows) if self.columns_first else (rows, columns)


_T81 = _Stream((b"\xc0", b"\xc1", b"\xc2", b"\xc3", b"\xf7"), ">HH", 5, b"\xff\xe5")
_J2K = _Stream((b"\x51",), ">II", 6, b"\xff\x64", tile_at=22, columns_first=True)
_RLE = _Stream((), ">HH", 0, b"")


def _frame(data: bytes) -> tuple[bytes, bytes, bytes]:
    """What is before the pixel data's fragments, what they hold, and what is after them.

    A file without such has no frame, and what is put into one follows it.
    """
    head = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
    at = data.find(head)
    if at < 0:
        return data, b"", b""
    start = at = at + len(head)
    items = []
    while data[at : at + 4] == b"\xfe\xff\0\xe0":
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        items.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return data[:start] + b"\xfe\xff\0\xe0\0\0\0\0", b"".join(items[1:]), data[at:]


def _item(frame: bytes) -> bytes:
    return b"\xfe\xff\0\xe0" + len(frame).to_bytes(4, "little") + frame


def _parts_of(frame: bytes) -> tuple[_Stream, list[bytes]]:
    """The start, the segments and the coded data of a frame; joined, the frame again."""
    if frame.startswith(b"\xff\xd8"):
        return _T81, _segments(frame)
    if not frame.startswith(b"\xff\x4f"):
        return _RLE, [frame[:64], frame[64:]]
    parts, at = [frame[:2]], 2
    while at + 4 <= len(frame) and frame[at] == 0xFF and frame[at + 1] != 0xD9:
        if frame[at + 1] == 0x93:
            following = frame.find(b"\xff\x90\0\x0a", at)
            end = following if following >= 0 else len(frame) - 2
        else:
            end = at + 2 + int.from_bytes(frame[at + 2 : at + 4])
        parts.append(frame[at:end])
        at = max(at + 1, end)
    return _J2K, [*parts, frame[at:]]


def _operators_for(rng: Random, data: bytes) -> tuple[Operator, ...]:
    """As often those that know nothing as those that know the format, if it is known."""
    if rng.random() < 0.5:
        return BLIND
    if data.startswith(JPEG_SIGNATURE):
        return JPEG
    if data.startswith(PNG_SIGNATURE):
        # Blind mutants of a PNG would all end at a checksum.
        return (*PNG, *BLIND_BUT_MENDED)
    if data[128:132] == b"DICM":
        return rng.choice((DICOM, DICOM, FRAMES)) if _frame(data)[1] or _DEFLATED in data else DICOM
    return BLIND


def _mended(operator: Operator) -> Operator:
    def mended(rng: Random, data: bytes) -> bytes:
        return with_true_checksums(operator(rng, data))

    mended.__name__ = f"{operator.__name__}, mended"
    return mended


BLIND_BUT_MENDED = tuple(_mended(operator) for operator in (flip_bits, set_bytes, set_number))
