"""Every kind of file that is read gives the known picture; every other gives the right error."""

import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from chestxray.errors import (
    AnimatedFileError,
    DamagedFileError,
    EmptyFileError,
    TooManyBytesError,
    TooManyPixelsError,
    TooSmallError,
    TruncatedFileError,
    UnsupportedFormatError,
)
from chestxray.imaging import Limits, read, read_file
from factories import images
from factories.images import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, chunk, raw_png, smooth

G = smooth()
COLOUR = np.stack([G, G[::-1], 255 - G], axis=-1)
LUMA = COLOUR @ [0.299, 0.587, 0.114]
OPAQUE = np.full_like(G, 255)
HALF = np.where(np.arange(80) < 40, 0, 255).astype(np.uint8) * np.ones_like(G)
DEEP = G.astype(np.uint16) * 256 + 77
ALL_GREYS = bytes(np.repeat(np.arange(256, dtype=np.uint8)[::-1], 3))
CLEAR_BELOW_100 = bytes(0 if 255 - index < 100 else 255 for index in range(256))


def stack(*channels):
    return np.stack(channels, axis=-1)


# name: (bytes, true grey in [0, 255], greatest error in levels)
KINDS = {
    "jpeg grey": (images.jpeg(G), G, 3),
    "jpeg grey, progressive": (images.jpeg(G, progressive=True), G, 3),
    "jpeg colour": (images.jpeg(COLOUR, "RGB"), LUMA, 4),
    "jpeg colour, progressive": (images.jpeg(COLOUR, "RGB", progressive=True), LUMA, 4),
    "jpeg colour, subsampled": (images.jpeg(COLOUR, "RGB", subsampling=2), LUMA, 4),
    "jpeg colour, stored as RGB": (images.jpeg(COLOUR, "RGB", keep_rgb=True), LUMA, 4),
    "jpeg grey, restart markers": (images.jpeg(G, restart_marker_blocks=2), G, 3),
    "jpeg CMYK": (images.jpeg(stack(255 - COLOUR[..., 0], *(255 - COLOUR[..., c] for c in (1, 2)),
                                    np.zeros_like(G)), "CMYK"), LUMA, 4),
    "jpeg YCCK": (images.ycck_jpeg(G), G, 3),
    "jpeg, bytes after the end": (images.jpeg(G) + b"scanner was here", G, 3),
    "png grey": (images.png(G), G, 0),
    "png grey, interlaced": (raw_png(G, GREY, 8, interlaced=True), G, 0),
    "png grey, bytes after the end": (images.png(G) + b"scanner was here", G, 0),
    "png 1 bit": (raw_png(G > 100, GREY, 1), (G > 100) * 255, 0),
    "png 2 bit": (raw_png(G // 64, GREY, 2), (G // 64) * 85.0, 0),
    "png 4 bit": (raw_png(G // 16, GREY, 4), (G // 16) * 17.0, 0),
    "png 16 bit": (raw_png(DEEP, GREY, 16), DEEP / 257, 1e-4),
    "png 16 bit, interlaced": (raw_png(DEEP, GREY, 16, interlaced=True), DEEP / 257, 1e-4),
    "png 16 bit, a grey is transparent": (
        raw_png(DEEP, GREY, 16, before_data=chunk(b"tRNS", int(DEEP[0, 0]).to_bytes(2))),
        np.where(DEEP[0, 0] == DEEP, 0, DEEP / 257), 1e-4),
    "png 8 bit, a grey is transparent": (
        raw_png(G, GREY, 8, before_data=chunk(b"tRNS", b"\0\x14")), np.where(G == 20, 0, G), 0),
    "png RGB": (images.png(COLOUR, "RGB"), LUMA, 1),
    "png RGB, 16 bit": (raw_png(COLOUR * np.uint16(257), RGB, 16), LUMA, 1),
    "png RGBA, opaque": (images.png(stack(*np.moveaxis(COLOUR, 2, 0), OPAQUE), "RGBA"), LUMA, 1),
    "png RGBA, half transparent": (
        images.png(stack(*np.moveaxis(COLOUR, 2, 0), HALF), "RGBA"), LUMA * (HALF > 0), 1),
    "png RGBA, 16 bit": (
        raw_png(stack(G, G, G, HALF) * np.uint16(257), RGBA, 16), G * (HALF > 0), 0),
    "png LA": (images.png(stack(G, HALF), "LA"), G * (HALF > 0), 0),
    "png LA, 16 bit": (raw_png(stack(G, HALF) * np.uint16(257), GREY_ALPHA, 16),
                       G * (HALF > 0), 0),
    "png LA, faint": (images.png(stack(G, OPAQUE // 5), "LA"), G / 5.0, 0.01),
    "png palette": (raw_png(255 - G, PALETTE, 8, before_data=chunk(b"PLTE", ALL_GREYS)), G, 0),
    "png palette, 4 bit": (
        raw_png(G // 16, PALETTE, 4, before_data=chunk(b"PLTE", ALL_GREYS[: 16 * 3])),
        255 - G // 16, 0),
    "png palette, transparent entries": (
        raw_png(255 - G, PALETTE, 8,
                before_data=chunk(b"PLTE", ALL_GREYS) + chunk(b"tRNS", CLEAR_BELOW_100)),
        np.where(G < 100, 0, G), 0),
    "png palette, one transparent entry": (
        raw_png(255 - G, PALETTE, 8,
                before_data=chunk(b"PLTE", ALL_GREYS) + chunk(b"tRNS", b"\xff" * 235 + b"\0")),
        np.where(G == 20, 0, G), 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_true_grey(kind):
    data, truth, error = KINDS[kind]
    radiograph = read(data)
    assert radiograph.format == kind.split()[0].rstrip(",").upper()
    assert (radiograph.height_px, radiograph.width_px) == radiograph.pixels.shape == G.shape
    assert radiograph.pixels.dtype == np.float32
    assert radiograph.pixels.min() >= 0
    assert radiograph.pixels.max() <= 1
    assert np.abs(radiograph.pixels * 255 - truth).max() <= error + 1e-4


def test_sixteen_bits_are_kept():
    fine = (np.arange(60 * 80, dtype=np.uint16) + 1000).reshape(60, 80)
    pixels = read(raw_png(fine, GREY, 16)).pixels
    np.testing.assert_array_equal(np.round(pixels.astype(np.float64) * 65535), fine)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, order):
    upright = Image.fromarray(G)
    upright.getexif()[0x0112] = orientation
    truth = np.asarray(ImageOps.exif_transpose(upright))
    block = images.exif(orientation, order)
    turned_jpeg = images.with_segment(images.jpeg(G), 0xE1, b"Exif\0\0" + block)
    turned_png = raw_png(G, GREY, 8, before_data=chunk(b"eXIf", block))
    for data in (turned_jpeg, turned_png):
        radiograph = read(data)
        assert (radiograph.height_px, radiograph.width_px) == truth.shape
        assert radiograph.pixels.flags.c_contiguous
        assert np.abs(radiograph.pixels * 255 - truth).max() <= 3


BROKEN_EXIF = [
    b"",
    b"II",
    b"XX*\0",
    b"II*\0\xff\xff\xff\xff",
    b"MM\0*\0\0\0\x08\xff\xff",
    images.exif(9),
    images.exif(6)[:-8],
]


@pytest.mark.parametrize("block", BROKEN_EXIF)
def test_broken_exif_leaves_the_picture_as_stored(block):
    data = images.with_segment(images.jpeg(G), 0xE1, b"Exif\0\0" + block)
    assert read(data).pixels.shape == G.shape


def test_transparent_pixels_are_mentioned_only_where_there_are_any():
    assert read(KINDS["png RGBA, half transparent"][0]).warnings
    assert not read(KINDS["png RGBA, opaque"][0]).warnings
    assert not read(KINDS["png grey"][0]).warnings


OTHERS = [
    b"hello, world",
    b"%PDF-1.7",
    b"<html>",
    b"II*\0" + bytes(60),
    b"RIFF\0\0\0\0WEBPVP8 ",
    b"BM" + bytes(60),
    bytes(2000),
    images.gif(),
]


@pytest.mark.parametrize("data", OTHERS)
def test_other_formats_are_not_supported(data):
    with pytest.raises(UnsupportedFormatError):
        read(data)


def saved(form: str, **options) -> bytes:
    """A picture as Pillow writes it in another format."""
    stream = BytesIO()
    Image.fromarray(G).save(stream, form, **options)
    return stream.getvalue()


NAMED = {
    "TIFF": lambda: saved("TIFF"),
    "TIFF, big-endian": lambda: b"MM\0*\0\0\0\x08" + bytes(60),
    "TIFF of more than 4 GB": lambda: b"II+\0\x08\0\0\0" + bytes(60),
    "BMP": lambda: saved("BMP"),
    "WebP": lambda: saved("WEBP"),
    "GIF": images.gif,
    "HEIC": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60),
    "HEIC of a newer phone": lambda: b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(60),
    "AVIF": lambda: b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(60),
    "JPEG 2000": lambda: imagecodecs.jpeg2k_encode(G, codecformat="JP2"),
    "JPEG 2000 codestream": lambda: imagecodecs.jpeg2k_encode(G, codecformat="J2K"),
    "JPEG-LS": lambda: imagecodecs.jpegls_encode(G),
    "JPEG-LS with presets": lambda: images.with_segment(
        imagecodecs.jpegls_encode(G), 0xF8, b"\1" + bytes(10)
    ),
    "JPEG XL": lambda: b"\xff\x0a" + bytes(60),
    "PDF": lambda: b"%PDF-1.7\n" + bytes(60),
}


@pytest.mark.parametrize("kind", NAMED)
def test_formats_that_people_have_besides_are_named(kind):
    form = kind.split(",")[0].split(" of ")[0].split(" with ")[0].removesuffix(" codestream")
    with pytest.raises(UnsupportedFormatError, match=f"the file is a {form}: send a JPEG, PNG or"):
        read(NAMED[kind]())


def test_a_text_is_not_taken_for_a_bitmap():
    with pytest.raises(UnsupportedFormatError, match="neither a JPEG nor a PNG nor DICOM"):
        read(b"BMI,age\n" + b"21,45\n" * 20)


def test_an_empty_file_is_empty():
    with pytest.raises(EmptyFileError):
        read(b"")


@pytest.mark.parametrize("data", [images.mpo(), images.apng()], ids=["mpo", "apng"])
def test_several_pictures_in_one_file_are_refused(data):
    with pytest.raises(AnimatedFileError):
        read(data)


PREVIEW = images.jpeg(smooth(30, 40))
AS_LARGE = images.jpeg(smooth(60, 80))
ULTRA_HDR = b'<rdf:Description hdrgm:Version="1.0"/>'
ISO_GAIN_MAP = images.with_segment(AS_LARGE, 0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(8))
APPLE_GAIN_MAP = images.with_segment(
    AS_LARGE, 0xE1, b"http://ns.adobe.com/xap/1.0/\0urn:com:apple:photo:2020:aux:hdrgainmap"
)
PHOTOGRAPHS = {
    "a preview": images.with_second_picture(PREVIEW),
    "a preview, big-endian": images.with_second_picture(PREVIEW, order=">"),
    "two previews": images.with_second_picture(PREVIEW + PREVIEW),
    "a preview behind padding": images.with_second_picture(bytes(5000) + PREVIEW),
    "a preview in colour": images.with_second_picture(
        images.jpeg(np.full((9, 9, 3), 9, "u1"), "RGB")
    ),
    "Ultra HDR": images.with_second_picture(AS_LARGE, xmp=ULTRA_HDR),
    "Ultra HDR in single quotes": images.with_second_picture(
        AS_LARGE, xmp=ULTRA_HDR.replace(b'"', b"'")
    ),
    "a small gain map": images.with_second_picture(PREVIEW, xmp=ULTRA_HDR),
    "ISO 21496-1": images.with_second_picture(ISO_GAIN_MAP),
    "Apple": images.with_second_picture(APPLE_GAIN_MAP),
    "what is no picture": images.with_second_picture(b"\xff\xd8\xff and no more"),
    "nothing": images.with_second_picture(b""),
}


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_of_a_photograph_with_a_preview_or_gain_map_the_first_picture_is_read(kind):
    radiograph = read(PHOTOGRAPHS[kind])
    assert np.array_equal(radiograph.pixels, read(images.jpeg(smooth())).pixels)
    assert radiograph.warnings == ()


@pytest.mark.parametrize("second", [AS_LARGE, PREVIEW + AS_LARGE, images.jpeg(smooth(90, 90))])
def test_of_two_pictures_of_a_size_none_is_chosen(second):
    with pytest.raises(AnimatedFileError):
        read(images.with_second_picture(second))


def test_what_no_index_names_is_ignored_behind_the_picture():
    assert read(images.jpeg(G) + AS_LARGE + bytes(9)).pixels.shape == G.shape


CUT = [
    "jpeg grey",
    "jpeg grey, progressive",
    "jpeg grey, restart markers",
    "jpeg colour, subsampled",
    "jpeg CMYK",
    "png grey",
    "png grey, interlaced",
    "png 16 bit",
    "png palette",
]


@pytest.mark.parametrize("kind", CUT)
def test_a_file_cut_anywhere_is_truncated(kind):
    data = KINDS[kind][0]
    for length in range(1, len(data)):
        with pytest.raises(TruncatedFileError):
            read(data[:length])


def test_a_thumbnail_does_not_end_the_jpeg():
    thumbnail = b"Exif\0\0" + images.exif(1) + images.jpeg(smooth(32, 32), quality=30)
    data = images.with_segment(images.jpeg(G), 0xE1, thumbnail)
    assert read(data).pixels.shape == G.shape
    with pytest.raises(TruncatedFileError):
        read(data[:-2])


@pytest.mark.parametrize(
    "data",
    [
        images.png(G)[:-13] + b"?" + images.png(G)[-12:],  # a wrong checksum
        b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"x") + chunk(b"IEND", b""),
        images.png_of(images.header(80, 60, GREY, 3), [b"\0" * 81] * 60),  # no such depth
        images.png_of(images.header(80, 60, GREY, 8), [b"\0" * 81] * 59),  # a row is missing
        images.png_of(images.header(80, 60, GREY, 8), [b"\x09" * 81] * 60),  # no such filter
        images.png_of(images.header(80, 60, GREY, 8) * 2, [b"\0" * 81] * 60),  # two headers
        images.png_of(images.header(80, 0, GREY, 8), []),
        raw_png(G, PALETTE, 8),  # no palette
        b"\xff\xd8\xff\xd9",
        images.jpeg(G).replace(b"\xff\xc0", b"\xff\xfe"),  # no frame
        images.with_segment(images.jpeg(G), 0x4F, b"no such marker"),
    ],
)
def test_a_broken_file_is_damaged(data):
    with pytest.raises(DamagedFileError):
        read(data)


@pytest.mark.parametrize("code", [0xC3, 0xC9, 0xCA])
def test_jpegs_of_rare_kinds_are_not_supported(code):
    with pytest.raises(UnsupportedFormatError):
        read(images.jpeg(G).replace(b"\xff\xc0", bytes([0xFF, code])))


def test_too_many_bytes_are_refused_from_memory_and_from_disk(tmp_path: Path):
    data = images.png(G)
    path = tmp_path / "named.txt"
    path.write_bytes(data)
    assert read_file(path, Limits(max_bytes=len(data))).pixels.shape == G.shape
    for attempt in (lambda limits: read(data, limits), lambda limits: read_file(path, limits)):
        with pytest.raises(TooManyBytesError):
            attempt(Limits(max_bytes=len(data) - 1))


def test_a_bomb_is_refused_from_its_header_at_no_cost():
    bomb = b"\x89PNG\r\n\x1a\n" + images.header(50_000, 50_000, GREY, 8)
    jpeg = bytearray(images.jpeg(G))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    tracemalloc.start()
    try:
        for data in (bomb, bomb + chunk(b"IDAT", b"") + chunk(b"IEND", b""), bytes(jpeg)):
            with pytest.raises(TooManyPixelsError):
                read(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_limit_on_pixels_is_exact():
    read(images.png(G), Limits(max_pixels=G.size))
    with pytest.raises(TooManyPixelsError):
        read(images.png(G), Limits(max_pixels=G.size - 1))


def test_text_and_profiles_are_never_expanded():
    bomb = zlib.compress(bytes(20_000_000))
    before = chunk(b"zTXt", b"key\0\0" + bomb) + chunk(b"iCCP", b"name\0\0" + bomb)
    data = raw_png(G, GREY, 8, before_data=before)
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(read(data).pixels * 255, G)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_endless_scans_segments_and_chunks_are_refused():
    progressive = images.jpeg(G, progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    with pytest.raises(DamagedFileError):
        read(progressive[:scan] + progressive[scan:-2] * 200 + b"\xff\xd9")
    with pytest.raises(DamagedFileError):
        read(images.jpeg(G)[:2] + b"\xff\xfe\0\2" * 100_000 + images.jpeg(G)[2:])
    with pytest.raises(DamagedFileError):
        read(raw_png(G, GREY, 8, before_data=chunk(b"tEXt", b"") * 100_000))


@pytest.mark.parametrize("data", [images.png(smooth(1, 1)), images.jpeg(smooth(31, 400))])
def test_a_side_under_32_px_is_too_small(data):
    with pytest.raises(TooSmallError):
        read(data)
    assert read(images.png(smooth(32, 32))).pixels.shape == (32, 32)


def test_many_threads_read_at_once():
    cases = [(data, read(data).pixels) for data, _, _ in KINDS.values()] * 4
    with ThreadPoolExecutor(8) as pool:
        for (_, alone), radiograph in zip(
            cases, pool.map(read, [data for data, _ in cases]), strict=True
        ):
            np.testing.assert_array_equal(radiograph.pixels, alone)
