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
from chestxray.imaging.radiograph import Limits, Radiograph

_Stored = NDArray[np.uint8] | NDArray[np.uint16]

# Image.open would guess formats and has a pixel limit of its own that warns, so the two plugins
# are asked directly.


def decode_jpeg(data: bytes, limits: Limits, shrink_to_px: int | None = None) -> Radiograph:
    """Decode a JPEG, shrunk by 2, 4 or 8 while both sides keep ``shrink_to_px``.

    Raises:
        UnreadableError, TooManyPixelsError, TooSmallError: see ``unpack_jpeg``.
    """
    coded = unpack_jpeg(data, limits)
    with _damage_reported():
        image = JpegImageFile(BytesIO(coded.content))
        if image.mode != "CMYK":  # luma straight from YCbCr
            image.draft("L", None if shrink_to_px is None else (shrink_to_px, shrink_to_px))
        grey, alpha = _grey_and_alpha(image)
    return _radiograph("JPEG", coded, grey, alpha)


def decode_png(data: bytes, limits: Limits, _shrink_to_px: int | None = None) -> Radiograph:
    """Decode a PNG, which saves nothing by shrinking and keeps its size.

    16-bit grey keeps its 16 bits, 16-bit colour is read as 8-bit.

    Raises:
        UnreadableError, TooManyPixelsError, TooSmallError: see ``unpack_png``.
    """
    coded = unpack_png(data, limits)
    with _damage_reported():
        grey, alpha = _grey_and_alpha(PngImageFile(BytesIO(coded.content)))
    return _radiograph("PNG", coded, grey, alpha)


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
    """The stored values, uint8 or uint16, and the opacity, uint8, where there is any."""
    if image.mode == "I;16":
        grey = np.asarray(image)
        key = image.info.get("transparency")
        return grey, None if key is None else np.where(grey == key, np.uint8(0), np.uint8(255))
    if image.mode == "P" and image.palette is None:
        raise DamagedFileError("the PNG has no palette for its colours")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return np.asarray(image.convert("L")), np.asarray(image.getchannel("A"))
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return np.asarray(image.convert("L")), None


def _radiograph(form: str, coded: Coded, grey: _Stored, alpha: _Stored | None) -> Radiograph:
    pixels = _unit(grey)
    warnings = []
    if alpha is not None and not (alpha == 255).all():
        pixels *= _unit(alpha)
        warnings.append("transparent pixels were taken as black")
    width_px, height_px = coded.width_px, coded.height_px
    if coded.orientation >= 5:
        width_px, height_px = height_px, width_px
    upright = np.ascontiguousarray(_upright(pixels, coded.orientation))
    return Radiograph(upright, form, width_px, height_px, warnings=tuple(warnings))


def _unit(stored: _Stored) -> NDArray[np.float32]:
    return np.divide(stored, np.float32(np.iinfo(stored.dtype).max), dtype=np.float32)


def _upright(pixels: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    if orientation >= 5:
        pixels = pixels.T
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
