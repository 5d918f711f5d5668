"""A decoded radiograph, and how much a file may ask for.

Does not: read files (``reading``), or know what a network wants (``network_input``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from chestxray.errors import TooManyPixelsError, TooSmallError

MOST_SIDE_PX = 65_535
"""What JPEG and DICOM have room for. A longer PNG would be stretched by way of as many rows."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is accepted, judged before a pixel is decoded.

    The largest chest detectors have 4300 × 4300 = 18 million pixels and a good camera 24 million;
    40 million leave room and keep the dearest decodes (progressive CMYK, JPEG 2000) below 0.5 GB.
    64 MiB hold 32 million pixels of 16 bit without any compression. Under 32 px there is nothing
    to see.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 40_000_000
    min_side_px: int = 32

    def check_pixels(self, width_px: int, height_px: int) -> None:
        """Raises TooManyPixelsError."""
        if max(width_px, height_px) > MOST_SIDE_PX:
            raise TooManyPixelsError(f"a side has more than {MOST_SIDE_PX} pixels")
        if width_px * height_px > self.max_pixels:
            raise TooManyPixelsError(
                f"{width_px} × {height_px} pixels are more than the {self.max_pixels} accepted"
            )

    def check_sides(self, width_px: int, height_px: int) -> None:
        """Raises TooSmallError."""
        if min(width_px, height_px) < self.min_side_px:
            raise TooSmallError(
                f"{width_px} × {height_px} pixels are too few: "
                f"each side must have at least {self.min_side_px}"
            )


View = Literal[
    "AP",
    "PA",
    "LATERAL",
    "OBLIQUE",
    "DECUBITUS",
    "LORDOTIC",
    "TANGENTIAL",
    "AXIAL",
    "SAGITTAL",
]
"""The views that are told apart."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What a file says of how it was made; None is what it does not say in words that are known
    (``terms``), and a JPEG or PNG cannot say.

    ``modality`` and ``body_part`` are DICOM's defined terms (``CR``, ``CHEST``). ``age_years`` is
    the patient's age when the image was made. ``attributes`` are those that told modality, body
    part and view.
    """

    modality: str | None = None
    body_part: str | None = None
    view: View | None = None
    age_years: float | None = None
    attributes: tuple[str, str, str] = ("Modality", "BodyPartExamined", "ViewPosition")


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """A decoded image, upright, with what is known of it.

    ``pixels`` is (H, W) float32 in [0, 1], air dark. It may be smaller than ``width_px`` ×
    ``height_px``, the size of the upright file, because big files are shrunk while decoding.
    """

    pixels: NDArray[np.float32]
    format: str
    width_px: int
    height_px: int
    acquisition: Acquisition = Acquisition()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that was recognised, and says how it was made before a pixel of it is decoded.

    ``decode`` makes the radiograph. It takes the length below which no side need be shrunk, in
    pixels; a large picture is decoded faster where its reader may shrink it. None keeps all pixels.
    ``memory_bytes`` is the most that decoding, and making the network's input, takes meanwhile.
    """

    acquisition: Acquisition
    decode: Callable[[int | None], Radiograph]
    memory_bytes: int
