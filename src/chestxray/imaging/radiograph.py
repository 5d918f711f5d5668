"""A decoded radiograph, and how much a file may ask for.

Does not: read files (``reading``), or know what a network wants (``network_input``).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chestxray.errors import TooManyPixelsError, TooSmallError


@dataclass(frozen=True, slots=True)
class Limits:
    """What is accepted, judged before a pixel is decoded.

    The largest chest detectors have 4300 × 4300 = 18 million pixels and a good camera 24 million;
    40 million leave room and keep the dearest decode (RGBA) below about 0.5 GB. 64 MiB hold 32
    million pixels of 16 bit without any compression. Under 32 px there is nothing to see.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 40_000_000
    min_side_px: int = 32

    def check_pixels(self, width_px: int, height_px: int) -> None:
        """Raises TooManyPixelsError."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """A decoded image, upright, with what is known of it.

    ``pixels`` is (H, W) float32 in [0, 1], air dark. It may be smaller than ``width_px`` ×
    ``height_px``, the size of the upright file, because big files are shrunk while decoding.
    ``age_years`` is the patient's; None says that a DICOM file does not give it, and that a JPEG or
    PNG (``format``) cannot.
    """

    pixels: NDArray[np.float32]
    format: str
    width_px: int
    height_px: int
    age_years: float | None = None
    warnings: tuple[str, ...] = ()
