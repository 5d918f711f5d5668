"""What can happen to a radiograph on its way to the network, in five severities.

A corruption changes pixels, (H, W) float32 in [0, 1], into others of the same shape and range.
Severities 1 and 2 are what a clinic sees: another window, a screenshot, a patient who lies askew.
3 to 5 go beyond, to show where answers break. Lengths are shares of the picture, or a number of
pixels that is left across it, so that the same radiograph at two resolutions suffers alike; only
JPEG works on the picture's own 8 × 8 blocks, as its standard says.

``inverted`` is complete at every severity, only its gamma grows. ``lungs_blacked_out`` asks whether
an answer comes from the lungs at all: what is hidden are two ellipses at a fixed place, where the
lungs lie in the mean of frontal radiographs, and at severity 5 they cover nearly all of both.

Does not: segment lungs, repeat the training's augmentation (``learning``), or score (``stress``).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from chestxray.imaging import stretch

Pixels = NDArray[np.float32]

SEVERITIES = (1, 2, 3, 4, 5)
CLINIC_SEVERITIES = (1, 2)


@dataclass(frozen=True, slots=True)
class Corruption:
    """``change`` at each of five ``levels``, of which ``text`` says what they mean."""

    change: Callable[[Pixels, float, Generator], NDArray[np.floating]]
    text: str
    levels: tuple[float, float, float, float, float]

    def level_text(self, severity: int) -> str:
        """What ``severity``, 1 to 5, does, in words: "quality 60"."""
        return self.text.format(self.levels[severity - 1])

    def __call__(self, pixels: Pixels, severity: int, generator: Generator) -> Pixels:
        """The corrupted pixels, a new array. Directions and places are the generator's choice."""
        changed = self.change(pixels, self.levels[severity - 1], generator)
        clipped: Pixels = np.clip(changed, 0, 1).astype(np.float32)
        return clipped


def _either_way(factor: float, generator: Generator) -> float:
    return factor if generator.random() < 0.5 else 1 / factor


def _sign(generator: Generator) -> int:
    return 1 if generator.random() < 0.5 else -1


def _contrast(pixels: Pixels, factor: float, generator: Generator) -> NDArray[np.floating]:
    mean = float(pixels.mean())  # about the mean, so that brightness is left to its own corruption
    return mean + (pixels - mean) * _either_way(factor, generator)


def _gamma(pixels: Pixels, gamma: float, generator: Generator) -> NDArray[np.floating]:
    return np.power(pixels, _either_way(gamma, generator))


def _brightness(pixels: Pixels, shift: float, generator: Generator) -> NDArray[np.floating]:
    return pixels + shift * _sign(generator)


def _blur(pixels: Pixels, sigma: float, _: Generator) -> NDArray[np.floating]:
    blurred: NDArray[np.floating] = ndimage.gaussian_filter(
        pixels, sigma * max(pixels.shape), mode="nearest"
    )
    return blurred


def _noise(pixels: Pixels, sigma: float, generator: Generator) -> NDArray[np.floating]:
    # Averaging to 224 × 224 pixels divides white noise by this much, so it is multiplied before.
    fineness = max(1.0, math.sqrt(pixels.size) / 224)
    return pixels + sigma * fineness * generator.standard_normal(pixels.shape, np.float32)


def _jpeg(pixels: Pixels, quality: float, _: Generator) -> NDArray[np.floating]:
    stream = BytesIO()
    levels = np.round(pixels * 255).astype(np.uint8)
    Image.fromarray(levels).save(stream, "JPEG", quality=int(quality))
    return np.asarray(Image.open(stream, formats=("JPEG",)), dtype=np.float32) / 255


def _downscale(pixels: Pixels, side_px: float, _: Generator) -> NDArray[np.floating]:
    shrink = min(1.0, side_px / max(pixels.shape))
    height_px, width_px = (max(1, round(length * shrink)) for length in pixels.shape)
    return stretch(stretch(pixels, height_px, width_px), *pixels.shape)


def _rotation_and_shift(
    pixels: Pixels, degrees: float, generator: Generator
) -> NDArray[np.floating]:
    angle = np.deg2rad(degrees) * _sign(generator)
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    direction = generator.uniform(0, 2 * np.pi)
    shift = 0.005 * degrees * np.array([np.sin(direction), np.cos(direction)]) * pixels.shape
    centre = (np.array(pixels.shape) - 1) / 2
    # Cubic, because a linear interpolation would blur as well; black comes in from outside.
    moved: NDArray[np.floating] = ndimage.affine_transform(
        pixels, back, centre - back @ (centre + shift), order=3, mode="constant", cval=0
    )
    return moved


_LETTERS = tuple(
    np.array([[cell == "#" for cell in row] for row in letter.split()])
    for letter in ("#... #... #... #... ####", "###. #..# ###. #.#. #..#")  # L and R
)


def _marker(pixels: Pixels, height: float, generator: Generator) -> NDArray[np.floating]:
    side_px = min(pixels.shape)
    rows_px = max(5, round(height * side_px))
    columns_px = max(4, round(0.8 * height * side_px))
    letter = _LETTERS[generator.integers(len(_LETTERS))]
    drawn = letter[
        np.ix_(np.arange(rows_px) * 5 // rows_px, np.arange(columns_px) * 4 // columns_px)
    ]
    margin_px = round(0.03 * side_px)
    from_top, from_left = generator.integers(2, size=2)
    y = margin_px if from_top else pixels.shape[0] - margin_px - rows_px
    x = margin_px if from_left else pixels.shape[1] - margin_px - columns_px
    marked = pixels.copy()
    marked[y : y + rows_px, x : x + columns_px][drawn] = 1
    return marked


def _bars(pixels: Pixels, share: float, _: Generator) -> NDArray[np.floating]:
    # As when a picture is padded to a square: nothing of it is lost, it gets narrower.
    height_px, width_px = pixels.shape
    bar_px = max(1, round(share * width_px))
    narrower = stretch(pixels, height_px, width_px - 2 * bar_px)
    return np.pad(narrower, ((0, 0), (bar_px, bar_px)))


def _inverted(pixels: Pixels, gamma: float, generator: Generator) -> NDArray[np.floating]:
    return _gamma(1 - pixels, gamma, generator)


LUNG_CENTRES = ((0.47, 0.29), (0.47, 0.71))
"""(down, right) in shares of the picture; with LUNG_SEMI_AXES, read off the mean of the public
training radiographs, in which the ellipses reach from above the apex to the diaphragm."""
LUNG_SEMI_AXES = (0.36, 0.19)


def _lungs_blacked_out(pixels: Pixels, size: float, _: Generator) -> NDArray[np.floating]:
    height_px, width_px = pixels.shape
    y = ((np.arange(height_px) + 0.5) / height_px)[:, np.newaxis]
    x = ((np.arange(width_px) + 0.5) / width_px)[np.newaxis, :]
    down, right = LUNG_SEMI_AXES
    blacked_out = pixels.copy()
    for centre_y, centre_x in LUNG_CENTRES:
        blacked_out[((y - centre_y) / down) ** 2 + ((x - centre_x) / right) ** 2 <= size**2] = 0
    return blacked_out


CORRUPTIONS: dict[str, Corruption] = {
    "contrast": Corruption(_contrast, "× or ÷ {:g}", (1.15, 1.3, 1.6, 2, 3)),
    "gamma": Corruption(_gamma, "exponent {:g} or its inverse", (1.15, 1.3, 1.6, 2, 3)),
    "brightness": Corruption(_brightness, "± {:g} of the range", (0.05, 0.1, 0.2, 0.3, 0.4)),
    "blur": Corruption(_blur, "σ {:.1%} of the longer side", (0.002, 0.004, 0.008, 0.012, 0.02)),
    "noise": Corruption(_noise, "σ {:g} at 224 px", (0.01, 0.02, 0.05, 0.1, 0.2)),
    "jpeg": Corruption(_jpeg, "quality {:g}", (80, 60, 30, 15, 7)),
    "downscale": Corruption(_downscale, "{:g} px on the longer side", (192, 144, 96, 64, 40)),
    "rotation_and_shift": Corruption(
        _rotation_and_shift, "{:g}°, and a shift of 0.5 % of the side per degree", (2, 4, 8, 12, 20)
    ),
    "marker": Corruption(
        _marker, "letter of {:.0%} of the shorter side", (0.04, 0.08, 0.12, 0.18, 0.25)
    ),
    "bars": Corruption(_bars, "{:.0%} of the width, each", (0.05, 0.1, 0.15, 0.2, 0.25)),
    "inverted": Corruption(_inverted, "gamma {:g} or its inverse", (1, 1.3, 1.6, 2, 3)),
    "lungs_blacked_out": Corruption(
        _lungs_blacked_out, "ellipses at {:.0%} of full length", (0.2, 0.4, 0.6, 0.8, 1)
    ),
}
"""Every corruption by its name in reports. Contrast, gamma and brightness go either way."""

NOT_FROM_A_CLINIC = ("inverted", "lungs_blacked_out")
"""Corruptions that no severity makes harmless: they ask what the network looks at."""


def corrupted(pixels: Pixels, sha256: str, name: str, severity: int) -> Pixels:
    """``pixels`` of the file ``sha256`` under a corruption: the same draw for the same three."""
    key = hashlib.sha256(f"{sha256} {name} {severity}".encode()).digest()
    return CORRUPTIONS[name](pixels, severity, np.random.default_rng(int.from_bytes(key)))
