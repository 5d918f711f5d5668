"""From pixels to the network's input. Training and serving both pass here, and only here.

The picture is stretched to a square: no padding, whose bars would tell the network the aspect
ratio, and no cropping, which would lose the lung's edges.

Does not: augment (``learning`` does, between ``resize`` and ``normalise``), or know ``side_px``,
``mean`` and ``std`` (the manifest does).
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize(pixels: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Stretch (H, W) to (side_px, side_px) in [0, 1], antialiased, by Pillow's BICUBIC.

    Pixels that have this size already are returned as they are, not copied.
    """
    return stretch(pixels, side_px, side_px)


def stretch(pixels: NDArray[np.float32], height_px: int, width_px: int) -> NDArray[np.float32]:
    """As ``resize``, to (height_px, width_px)."""
    if pixels.shape == (height_px, width_px):
        return pixels
    image = Image.fromarray(pixels).resize((width_px, height_px), Image.Resampling.BICUBIC)
    stretched: NDArray[np.float32] = np.asarray(image)
    return np.clip(stretched, 0, 1)  # bicubic overshoots at edges


def shrink(pixels: NDArray[np.float32], least_side_px: int) -> NDArray[np.float32]:
    """(H, W) with each n × n pixels become their mean, n such that both sides keep the least."""
    factor = min(pixels.shape) // least_side_px
    if factor < 2:
        return pixels
    shrunk: NDArray[np.float32] = np.asarray(Image.fromarray(pixels).reduce(factor))
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
