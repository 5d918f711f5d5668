"""From stored values to grey levels, as the data set says that they are to be shown.

    stored value → modality (LUT or rescale) → VOI (LUT or window) → presentation → [0, 1], air dark

All of it is computed once for each of the 256 or 65,536 words that can occur, and the picture is
looked up in that table.

Sources: PS3.3 C.7.6.3.1 (Image Pixel), C.7.5.1.1.2 (Pixel Padding), C.11.1 (Modality LUT),
C.11.2 (VOI LUT), C.8.11.3 (Presentation LUT Shape). Does not: choose among several views: the first
is taken, and a VOI LUT before a window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from chestxray.errors import DamagedFileError
from chestxray.imaging.dicom.codecs import Words
from chestxray.imaging.dicom.elements import integer, integers, items, number, stored, text
from chestxray.imaging.dicom.frame import Frame
from chestxray.imaging.strips import strips

_Values = NDArray[np.float64]

_MOST_MISSING = 16  # entries of a look-up table; some writers count one too many

_LEAST_WIDTH = 1e-6  # a window must have one

INVALID_RESCALE = (
    "the rescale slope and intercept are no numbers to rescale by and were not applied"
)
INVALID_WINDOW = "the window is none and was not applied"
EMPTY_LUT = "a look-up table is empty, so what stands beside it was applied"
SHORT_LUT = "a look-up table has fewer entries than it should; its last one stands for those"
UNKNOWN_VOI_FUNCTION = "the VOI LUT function is not known; the window was applied as linear"


def render(ds: Dataset, frame: Frame) -> tuple[NDArray[np.float32], list[str]]:
    """Pixels (rows, columns) in [0, 1] as they are to be shown, and warnings.

    Raises:
        DamagedFileError: a look-up table is not what its descriptor says.
    """
    warnings: list[str] = []
    values = _stored_values(frame)
    padding = _is_padding(ds, values, signed=frame.signed)
    rescaled = _apply_modality(ds, values, warnings, signed=frame.signed)
    shown = _apply_voi(ds, rescaled, warnings)
    if shown is None:
        shown = _full_range(rescaled, frame, padding)
    if _is_inverse(ds):
        shown = 1 - shown
    shown[padding] = 0  # what lies outside the picture is as dark as air
    return _looked_up(frame.words, shown.astype(np.float32)), warnings


def _looked_up(words: Words, table: NDArray[np.float32]) -> NDArray[np.float32]:
    pixels = np.empty(words.shape, np.float32)
    for rows in strips(words.shape):  # NumPy makes indices of 8 bytes of them
        np.take(table, words[rows], out=pixels[rows], mode="clip")  # unbuffered; none is clipped
    return pixels


def _occurs(words: Words, count: int) -> NDArray[np.bool_]:
    """Which of ``count`` words are among the ``words``."""
    occurs = np.zeros(count, np.bool_)
    for rows in strips(words.shape):
        occurs |= np.bincount(words[rows].reshape(-1), minlength=count) > 0
    return occurs


def _stored_values(frame: Frame) -> _Values:
    """The stored value of each word."""
    words = np.arange(2 ** (8 * frame.words.dtype.itemsize))
    values = (words >> frame.shift) & (2**frame.bits - 1)
    if frame.signed:
        values -= (values >> (frame.bits - 1)) << frame.bits
    stored_values: _Values = values.astype(np.float64)
    return stored_values


def _is_padding(ds: Dataset, values: _Values, *, signed: bool) -> NDArray[np.bool_]:
    value = _stored_integer(ds, "PixelPaddingValue", signed=signed)
    if value is None:
        return np.zeros(len(values), np.bool_)
    limit = _stored_integer(ds, "PixelPaddingRangeLimit", signed=signed)
    limit = value if limit is None else limit
    return (values >= min(value, limit)) & (values <= max(value, limit))


def _stored_integer(ds: Dataset, keyword: str, *, signed: bool) -> int | None:
    """An integer in the terms of stored values, be it stated as US where they are SS."""
    value = integer(ds, keyword, signed=signed)
    return value - 2**16 if value is not None and signed and value >= 2**15 else value


def _apply_modality(ds: Dataset, values: _Values, warnings: list[str], *, signed: bool) -> _Values:
    luts = _tables(ds, "ModalityLUTSequence", warnings)
    if luts:
        return _look_up(luts[0], values, warnings, signed=signed)[0]
    if stored(ds, "RescaleSlope") is None and stored(ds, "RescaleIntercept") is None:
        return values
    slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")
    if not slope or intercept is None:
        warnings.append(INVALID_RESCALE)
        return values
    return values * slope + intercept


def _apply_voi(ds: Dataset, values: _Values, warnings: list[str]) -> _Values | None:
    """Grey levels in [0, 1]; None where the data set does not say how to make them."""
    luts = _tables(ds, "VOILUTSequence", warnings)
    if luts:
        levels, bits = _look_up(luts[0], values, warnings, signed=bool(values.min() < 0))
        return np.divide(levels, max(2.0**bits - 1, float(levels.max())))
    if stored(ds, "WindowCenter") is None and stored(ds, "WindowWidth") is None:
        return None
    return _window(ds, values, warnings)


def _window(ds: Dataset, values: _Values, warnings: list[str]) -> _Values | None:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width = number(ds, "WindowCenter"), number(ds, "WindowWidth")
    function = text(ds, "VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        warnings.append(UNKNOWN_VOI_FUNCTION)
        function = "LINEAR"
    if center is None or width is None or width < (1 if function == "LINEAR" else _LEAST_WIDTH):
        warnings.append(INVALID_WINDOW)
        return None
    if function == "SIGMOID":
        levels = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    elif function == "LINEAR_EXACT":
        levels = (values - center) / width + 0.5
    elif width == 1:
        levels = (values > center - 0.5).astype(np.float64)
    else:
        levels = (values - (center - 0.5)) / (width - 1) + 0.5
    shown: _Values = np.clip(levels, 0, 1)
    return shown


def _full_range(values: _Values, frame: Frame, padding: NDArray[np.bool_]) -> _Values:
    """From the least value that occurs to the greatest, padding aside."""
    first, last = int(frame.words.min()), int(frame.words.max())
    between = values[first : last + 1]
    if not padding.any() and (np.diff(between) >= 0).all():
        shown = between[[0, -1]]  # what counting them would give, in a thirtieth of the time
    else:
        shown = values[_occurs(frame.words, len(values)) & ~padding]
    if len(shown) == 0 or shown.min() == shown.max():
        return np.zeros_like(values)
    least, greatest = float(shown.min()), float(shown.max())
    levels: _Values = np.clip((values - least) / (greatest - least), 0, 1)
    return levels


def _is_inverse(ds: Dataset) -> bool:
    """Whether low values are bright. Presentation LUT Shape, where given, has the last word."""
    shape = text(ds, "PresentationLUTShape")
    if shape in ("IDENTITY", "INVERSE"):
        return shape == "INVERSE"
    return text(ds, "PhotometricInterpretation") == "MONOCHROME1"


def _tables(ds: Dataset, keyword: str, warnings: list[str]) -> list[Dataset]:
    """The items of a sequence of look-up tables that hold one.

    What holds none says nothing, and viewers use what stands beside it.
    """
    luts = items(ds, keyword)
    held = [lut for lut in luts if all(stored(lut, of) for of in ("LUTDescriptor", "LUTData"))]
    if len(held) < len(luts):
        warnings.append(EMPTY_LUT)
    return held


def _look_up(
    lut: Dataset, values: _Values, warnings: list[str], *, signed: bool
) -> tuple[_Values, int]:
    """The values through a look-up table, and the bits of its entries; PS3.3 C.11.1.1.1.

    For the last entries, if a few are missing, the last that is there stands, as for all beyond.
    """
    descriptor = integers(
        lut, "LUTDescriptor"
    )  # its first value is unsigned, its second may not be
    element = stored(lut, "LUTData")
    if len(descriptor) != 3 or element is None:
        raise DamagedFileError("a look-up table has a broken descriptor")
    count, first, bits = descriptor[0] % 2**16 or 2**16, descriptor[1], descriptor[2]
    if signed and first >= 2**15:  # it is SS, and the other two are US
        first -= 2**16
    data = element.value or b""
    # Entries of 8 bits may lie in a byte or in a word each.
    order = "<" if element.is_little_endian else ">"
    kind = "u1" if bits == 8 and len(data) < 1.5 * count else f"{order}u2"
    held = min(count, len(data) // np.dtype(kind).itemsize)
    if not 8 <= bits <= 16 or held == 0 or held < count - _MOST_MISSING:
        raise DamagedFileError("a look-up table has fewer entries than its descriptor says")
    if held < count:
        warnings.append(SHORT_LUT)
    at = np.clip(values - first, 0, held - 1).astype(np.intp)
    return np.frombuffer(data, kind, held)[at].astype(np.float64), bits
