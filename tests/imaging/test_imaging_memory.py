"""A file says before it is decoded how much memory that may take, and keeps to it."""

import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from pydicom import uid

from chestxray.errors import ChestXrayError, DamagedFileError, TooManyPixelsError
from chestxray.imaging import Limits, open_file
from factories import dicom_files, images
from factories.hostile import png_of, progressive
from factories.images import chunk
from factories.reading_apart import read_apart

SIDE_PX = 3200


def noise(bits: int) -> np.ndarray:
    values = np.random.default_rng(0).integers(2**bits, size=(SIDE_PX, SIDE_PX))
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def png(colour: int, samples: int, bits: int = 8, before_data: bytes = b"") -> bytes:
    sides = images.header(SIDE_PX, SIDE_PX, colour, bits)
    rows = [b"\4" + b"\1" * (SIDE_PX * samples * bits // 8)] * SIDE_PX
    return images.png_of(sides, rows, before_data)


def colour_jpeg(mode: str, **options: object) -> bytes:
    samples = np.stack([noise(8)] * len(mode), axis=-1)
    return images.jpeg(samples, mode, quality=60, **options)


def encoded(transfer_syntax: str, bits: int) -> bytes:
    return dicom_files.compressed(noise(bits), transfer_syntax, bits=bits)


FILES: dict[str, Callable[[], bytes]] = {
    "PNG, grey": partial(png, images.GREY, 1),
    "PNG, grey of 16 bits with transparency": partial(
        png, images.GREY, 1, 16, chunk(b"tRNS", b"\0\1")
    ),
    "PNG, palette with transparency": partial(
        png, images.PALETTE, 1, 8, chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", b"\0\1")
    ),
    "PNG, RGBA": partial(png, images.RGBA, 4),
    "PNG, RGBA of 16 bits": partial(png, images.RGBA, 4, 16),
    "JPEG, grey": lambda: images.jpeg(noise(8)),
    "JPEG, colour": partial(colour_jpeg, "RGB"),
    "JPEG, colour, progressive": partial(colour_jpeg, "RGB", progressive=True),
    "JPEG, CMYK": partial(colour_jpeg, "CMYK"),
    "JPEG, CMYK, progressive": partial(progressive, SIDE_PX, 4, 8, whole=True),
    "DICOM, native": lambda: dicom_files.dicom(noise(12)),
    "DICOM, native, turned": lambda: dicom_files.dicom(noise(12), PatientOrientation=["F", "L"]),
    "DICOM, big endian": lambda: dicom_files.in_syntax(
        dicom_files.data_set(noise(12)), uid.ExplicitVRBigEndian
    ),
    "DICOM, RLE": partial(encoded, uid.RLELossless, 12),
    "DICOM, JPEG": partial(encoded, uid.JPEGExtended12Bit, 12),
    "DICOM, JPEG lossless": partial(encoded, uid.JPEGLosslessSV1, 12),
    "DICOM, JPEG-LS": partial(encoded, uid.JPEGLSLossless, 12),
    "DICOM, JPEG 2000": partial(encoded, uid.JPEG2000Lossless, 12),
    "DICOM, JPEG 2000, high throughput": partial(encoded, uid.HTJ2KLossless, 12),
}


@pytest.mark.parametrize("shrink_to_px", [None, 448])
@pytest.mark.parametrize("kind", FILES)
def test_decoding_takes_no_more_memory_than_is_said_before(kind, shrink_to_px):
    data = FILES[kind]()
    told_mb = open_file(data).memory_bytes / 1e6
    taken = read_apart(data, shrink_to_px)
    assert taken.outcome == "read"
    assert taken.peak_mb < told_mb + len(data) / 1e6  # opening it may copy it
    if shrink_to_px is None:
        assert told_mb < 2.5 * taken.peak_mb


def test_what_says_that_it_is_larger_than_is_read_is_not_believed():
    data = dicom_files.dicom(dicom_files.phantom(12, 64), Rows=65_535, Columns=65_535)
    assert open_file(data).memory_bytes < 500e6


@pytest.mark.parametrize(
    ("make", "side_px"),
    [
        (lambda side_px: deep_png(images.RGBA, side_px), 40),
        (lambda side_px: deep_png(images.RGB, side_px), 48),
        (lambda side_px: progressive(side_px, 4, 2, whole=True), 40),
    ],
    ids=["PNG, RGBA of 16 bits", "PNG, RGB of 16 bits", "JPEG, CMYK, progressive"],
)
def test_fewer_pixels_are_accepted_where_each_takes_more_than_any_radiographs(make, side_px):
    def code(data: bytes, max_pixels: int) -> str:
        try:
            open_file(data, Limits(max_pixels=max_pixels))
        except ChestXrayError as exc:
            return exc.code
        return "opened"

    n_pixels = side_px**2
    assert code(make(side_px), n_pixels) == "too_many_pixels"
    assert code(make(side_px), 2 * n_pixels) == "opened"
    assert code(images.jpeg(np.zeros((side_px, side_px), np.uint8)), n_pixels) == "opened"


def deep_png(colour: int, side_px: int) -> bytes:
    samples = {images.RGB: 3, images.RGBA: 4}[colour]
    rows = [bytes(1 + side_px * samples * 2)] * side_px
    return images.png_of(images.header(side_px, side_px, colour, 16), rows)


def test_a_side_is_no_longer_than_jpeg_and_dicom_have_room_for():
    """Stretched to a square, 32 × 1.2 million pixels would take a gigabyte on the way."""
    with pytest.raises(TooManyPixelsError):
        open_file(png_of(32, 1_200_000, b""))


@pytest.mark.parametrize("side_px", [40, 255, 256, 257, 1024])
@pytest.mark.parametrize("part_bytes", [1, 7, 10_000])
def test_a_png_whose_data_come_in_any_parts_is_whole_up_to_its_last_byte(side_px, part_bytes):
    """A match may end beyond a piece that is inflated, when nothing is left to inflate."""
    rows = bytes(side_px * (side_px + 1))
    deflated = zlib.compress(rows, 9)
    parts = [deflated[at : at + part_bytes] for at in range(0, len(deflated), part_bytes)]
    data = png_of(side_px, side_px, b"".join(chunk(b"IDAT", part) for part in parts))
    assert open_file(data).decode(None).pixels.shape == (side_px, side_px)
    short = png_of(side_px, side_px, chunk(b"IDAT", zlib.compress(rows[:-1], 9)))
    with pytest.raises(DamagedFileError):
        open_file(short)
