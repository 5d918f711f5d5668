"""From pixels to the network's input. Training and serving both pass here, and only here.

The picture is stretched to a square: no padding, whose bars would tell the network the aspect
ratio, and no cropping, which would lose the lung's edges.

Does not: augment (``learning`` does, between ``resize`` and ``normalise``), or know ``side_px``,
``mean`` and ``std`` (the manifest does).
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chestxray.imaging.strips import strips

_AT_ONCE_PIXELS = 2**22


def resize(pixels: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Stretch (H, W) to (side_px, side_px) in [0, 1], antialiased, by Pillow's BICUBIC.

    Pixels that have this size already are returned as they are, not copied.
    """
    return stretch(pixels, side_px, side_px)


def stretch(pixels: NDArray[np.float32], height_px: int, width_px: int) -> NDArray[np.float32]:
    """As ``resize``, to (height_px, width_px)."""
    if pixels.shape == (height_px, width_px):
        return pixels
    if pixels.size > _AT_ONCE_PIXELS:
        pixels = _narrowed(pixels, width_px)
    return np.clip(_resized(pixels, height_px, width_px), 0, 1)  # bicubic overshoots at edges


def _narrowed(pixels: NDArray[np.float32], width_px: int) -> NDArray[np.float32]:
    """The width changed, some rows at a time: Pillow copies what it is given.

    So does Pillow itself begin, but with pictures that are much higher than wide.
    """
    narrowed = np.empty((len(pixels), width_px), np.float32)
    for rows in strips(pixels.shape):
        narrowed[rows] = _resized(pixels[rows], rows.stop - rows.start, width_px)
    return narrowed


def _resized(pixels: NDArray[np.float32], height_px: int, width_px: int) -> NDArray[np.float32]:
    image = Image.fromarray(pixels).resize((width_px, height_px), Image.Resampling.BICUBIC)
    resized: NDArray[np.float32] = np.asarray(image)
    return resized


def shrink(pixels: NDArray[np.float32], least_side_px: int) -> NDArray[np.float32]:
    """(H, W) with each n × n pixels become their mean, n such that both sides keep the least."""
    factor = min(pixels.shape) // least_side_px
    if factor < 2:
        return pixels
    height_px, width_px = (-(-side_px // factor) for side_px in pixels.shape)
    shrunk = np.empty((height_px, width_px), np.float32)
    for rows in strips(shrunk.shape, pixels_each=factor**2):  # Pillow copies what it is given
        whole = pixels[rows.start * factor : rows.stop * factor]
        shrunk[rows] = np.asarray(Image.fromarray(whole).reduce(factor))
    return shrunk


def normalise(pixels: NDArray[np.float32], *, mean: float, std: float) -> NDArray[np.float32]:
    """(S, S) in [0, 1] to (1, S, S) float32, C-contiguous: (x - mean) / std."""
    scaled = (pixels - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(scaled[np.newaxis], dtype=np.float32)


def to_input(
    pixels: NDArray[np.float32], *, side_px: int, mean: float, std: float
) -> NDArray[np.float32]:
    """(H, W) in [0, 1] to the input: (1, side_px, side_px) float32, C-contiguous."""
    return normalise(resize(pixels, side_px), mean=mean, std=std)
