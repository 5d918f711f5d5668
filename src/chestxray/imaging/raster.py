"""Decodes JPEG and PNG with Pillow, and is the only place that knows Pillow's exceptions.

Colour becomes luma (ITU-R 601). A transparent pixel becomes black: transparency in a radiograph
comes from cutting out or turning it, and what lies outside the picture is as dark as air.

Does not: see a file's metadata (the walks have taken it away), or apply colour profiles, which
for grey pictures only say how a screen should show them.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from chestxray.errors import DamagedFileError
from chestxray.imaging.container import Coded
from chestxray.imaging.jpeg_file import unpack_jpeg
from chestxray.imaging.png_file import unpack_png
from chestxray.imaging.radiograph import Acquisition, Limits, Opened, Radiograph
from chestxray.imaging.strips import strips

_Stored = NDArray[np.uint8] | NDArray[np.uint16]

_BESIDES_BYTES = 32 << 20
"""What is converted some rows at a time, and freed memory that malloc keeps."""

# Image.open would guess formats and has a pixel limit of its own that warns, so the two plugins
# are asked directly.


def open_jpeg(data: bytes, limits: Limits) -> Opened:
    """A JPEG; ``decode`` shrinks it by 2, 4 or 8 while both sides keep ``shrink_to_px``.

    Raises:
        UnreadableError, TooManyPixelsError: see ``unpack_jpeg``.

    Its ``decode`` raises TooSmallError, DamagedFileError.
    """
    coded = unpack_jpeg(data, limits)
    return Opened(Acquisition(), partial(_decode_jpeg, coded, limits), _memory_bytes(coded))


def open_png(data: bytes, limits: Limits) -> Opened:
    """A PNG, which saves nothing by shrinking and keeps its size.

    16-bit grey keeps its 16 bits, 16-bit colour is read as 8-bit.

    Raises:
        UnreadableError, TooManyPixelsError: see ``unpack_png``.

    Its ``decode`` raises TooSmallError, DamagedFileError.
    """
    coded = unpack_png(data, limits)
    return Opened(Acquisition(), partial(_decode_png, coded, limits), _memory_bytes(coded))


def _memory_bytes(coded: Coded) -> int:
    """First the decoder's pixels and the stored values, then these and 4 bytes of each pixel."""
    n_pixels = coded.width_px * coded.height_px
    coded_bytes = sum(map(len, coded.parts))
    more = max(coded.decoder_bytes + coded_bytes, 4 * n_pixels)
    return coded.stored_bytes + more + _BESIDES_BYTES


def _decode_jpeg(coded: Coded, limits: Limits, shrink_to_px: int | None) -> Radiograph:
    limits.check_sides(coded.width_px, coded.height_px)
    with _damage_reported():
        grey, alpha = _grey_and_alpha(_jpeg(coded, shrink_to_px))
    return _radiograph("JPEG", coded, grey, alpha)


def _decode_png(coded: Coded, limits: Limits, _shrink_to_px: int | None) -> Radiograph:
    limits.check_sides(coded.width_px, coded.height_px)
    with _damage_reported():
        grey, alpha = _grey_and_alpha(PngImageFile(BytesIO(coded.content)))
    return _radiograph("PNG", coded, grey, alpha)


def _jpeg(coded: Coded, shrink_to_px: int | None) -> Image.Image:
    image = JpegImageFile(BytesIO(coded.content))
    if image.mode != "CMYK":  # luma straight from YCbCr
        image.draft("L", None if shrink_to_px is None else (shrink_to_px, shrink_to_px))
    return image


@contextmanager
def _damage_reported() -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        EOFError,
        ArithmeticError,
        LookupError,
        struct.error,
        zlib.error,
    ) as exc:
        raise DamagedFileError("the picture's data is damaged") from exc


def _grey_and_alpha(image: Image.Image) -> tuple[_Stored, _Stored | None]:
    """The stored values, uint8 or uint16, and the opacity, uint8, where there is any.

    Colour is converted in strips: Pillow has 4 bytes of each pixel, and a copy would have as many.
    """
    if image.mode == "I;16":
        grey = np.asarray(image)
        key = image.info.get("transparency")
        return grey, None if key is None else np.where(grey == key, np.uint8(0), np.uint8(255))
    if image.mode == "P" and image.palette is None:
        raise DamagedFileError("the PNG has no palette for its colours")
    if image.mode == "L" and not image.has_transparency_data:
        return np.asarray(image), None
    shape = image.height, image.width
    grey = np.empty(shape, np.uint8)
    alpha = np.empty(shape, np.uint8) if image.has_transparency_data else None
    for rows in strips(shape):
        strip = image.crop((0, rows.start, image.width, rows.stop))
        if alpha is not None:
            strip = strip.convert("RGBA")
            alpha[rows] = np.asarray(strip.getchannel("A"))
        elif strip.mode == "CMYK":
            strip = strip.convert("RGB")
        grey[rows] = np.asarray(strip.convert("L"))
    return grey, alpha


def _radiograph(form: str, coded: Coded, grey: _Stored, alpha: _Stored | None) -> Radiograph:
    grey = _upright(grey, coded.orientation)  # turned before there are 4 bytes of each pixel
    pixels = np.empty(grey.shape, np.float32)
    np.divide(grey, _greatest(grey), out=pixels)
    warnings = []
    if alpha is not None and alpha.min() < 255:
        alpha = _upright(alpha, coded.orientation)
        for rows in strips(alpha.shape):
            pixels[rows] *= alpha[rows] / _greatest(alpha)
        warnings.append("transparent pixels were taken as black")
    width_px, height_px = coded.width_px, coded.height_px
    if coded.orientation >= 5:
        width_px, height_px = height_px, width_px
    return Radiograph(pixels, form, width_px, height_px, warnings=tuple(warnings))


def _greatest(stored: _Stored) -> np.float32:
    return np.float32(np.iinfo(stored.dtype).max)


def _upright(pixels: _Stored, orientation: int) -> _Stored:
    if orientation >= 5:
        pixels = pixels.T
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
