"""From a data set to a radiograph: what it says of itself first, its pixels only then.

Does not: read elements (``data_set``), or judge what they say (``assessment``) or show
(``inference``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pydicom import Dataset

from chestxray.imaging.dicom.acquisition import acquisition_of, check_picture
from chestxray.imaging.dicom.frame import frame_of, memory_bytes_of
from chestxray.imaging.dicom.greyscale import render
from chestxray.imaging.dicom.orientation import upright
from chestxray.imaging.network_input import shrink
from chestxray.imaging.radiograph import Acquisition, Limits, Opened, Radiograph

LOOKED_AT_PX = 896
"""No side is shrunk below this, whatever a network needs: the node's overlay shows the picture."""

NETWORKS_MARGIN = 2
"""How much more is kept here than of a JPEG. Shrinking here averages, and cannot choose where to
stop as finely: on the 6 of the 80 full-size originals that are large enough, 896 px change the
input of 224 px by 0.18 levels of grey on average, and the logit by 0.08."""


def open_data_set(ds: Dataset, limits: Limits) -> Opened:
    """A data set that ``read_data_set`` has read, as an opened file; see ``Opened``.

    Raises:
        TruncatedFileError, DamagedFileError: a sequence that says how it was made is damaged.

    Its ``decode`` raises:
        MultiFrameError, ColourError, NoPixelDataError: before a pixel is decoded.
        UnsupportedTransferSyntaxError, UnsupportedFormatError: nothing here decodes its pixels.
        TruncatedFileError, DamagedFileError, TooCostlyError: they cannot be decoded.
        TooManyPixelsError, TooSmallError: see ``Limits``.
    """
    acquisition = acquisition_of(ds)
    return Opened(
        acquisition, partial(_decode, ds, acquisition, limits), memory_bytes_of(ds, limits)
    )


def _decode(
    ds: Dataset, acquisition: Acquisition, limits: Limits, shrink_to_px: int | None
) -> Radiograph:
    warnings = check_picture(ds)
    frame = frame_of(ds, limits)
    frame = replace(frame, words=upright(ds, frame.words))
    pixels, remarks = render(ds, frame)
    height_px, width_px = pixels.shape
    if shrink_to_px is not None:
        pixels = shrink(pixels, max(LOOKED_AT_PX, NETWORKS_MARGIN * shrink_to_px))
    warnings += [*frame.warnings, *remarks]
    return Radiograph(pixels, "DICOM", width_px, height_px, acquisition, warnings=tuple(warnings))
