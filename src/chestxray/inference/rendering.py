"""Pictures of an answer: the heatmap to lay over the radiograph, and what the network saw.

Does not: scale each heatmap to its own maximum. Weak evidence must look weak, so the scale comes
from the manifest and is the same for every radiograph.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chestxray.imaging import resize

LEVELS = 64
"""Colours of the heatmap: steps too fine to see, and a third of the bytes of 256."""

NOT_VALIDATED = "the heatmap is not validated: nothing shows that it points at the finding"
"""What a reader must know of a heatmap whose bundle's ``evidence`` is not ``validated``."""

MAX_ALPHA = 200
"""Of 255: the radiograph stays visible under the strongest evidence."""

# Along the path of matplotlib's "inferno" (van der Walt and Smith 2015, CC0): lightness rises
# evenly and the order survives colour blindness and grey print.
ANCHORS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


def _ramp() -> tuple[bytes, bytes]:
    """The palette (RGB per level) and the alpha per level: no evidence is fully transparent."""
    level = np.linspace(0, 1, LEVELS)
    stops = np.linspace(0, 1, len(ANCHORS))
    colours = np.stack(
        [np.interp(level, stops, channel) for channel in zip(*ANCHORS, strict=True)], 1
    )
    return colours.round().astype(np.uint8).tobytes(), (MAX_ALPHA * level).round().astype(
        np.uint8
    ).tobytes()


PALETTE, ALPHA = _ramp()


def render_heatmap(evidence: NDArray[np.float32], scale: float, side_px: int = 224) -> bytes:
    """Signed evidence (h, w) → PNG of ``side_px`` squared, 64 palette colours with alpha.

    Evidence for the finding, from 0 to ``scale`` and more, runs from transparent to full colour;
    evidence against it is not drawn. Cell centres lie where a resize of the radiograph to h × w
    would put them.
    """
    strength = np.clip(np.asarray(evidence, np.float32) / np.float32(scale), 0, 1)
    # Bicubic overshoots a little beside steep edges.
    level = np.clip(enlarge(strength, side_px), 0, 1) * np.float32(LEVELS - 1)
    image = Image.fromarray((level + np.float32(0.5)).astype(np.uint8))
    image.putpalette(PALETTE)
    return _png(image, transparency=ALPHA)


def enlarge(evidence: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Cells (h, w) → (side_px, side_px), between them as a heatmap is drawn: Pillow's BICUBIC."""
    cells = Image.fromarray(np.asarray(evidence, np.float32))
    return np.asarray(cells.resize((side_px, side_px), Image.Resampling.BICUBIC))


def render_colour_bar() -> bytes:
    """The heatmap's colours, PNG of 1 × ``LEVELS`` px: from no evidence, below, to ``scale``."""
    image = Image.fromarray(np.arange(LEVELS, dtype=np.uint8)[::-1, np.newaxis])
    image.putpalette(PALETTE)
    return _png(image, transparency=ALPHA)


def render_preview(pixels: NDArray[np.float32], side_px: int) -> bytes:
    """Pixels (H, W) in [0, 1] → grey PNG of what the network saw, before normalising."""
    seen = np.clip(resize(pixels, side_px), 0, 1)
    return _png(Image.fromarray((seen * 255).round().astype(np.uint8)))


def _png(image: Image.Image, **options: bytes) -> bytes:
    with io.BytesIO() as buffer:
        image.save(buffer, "PNG", compress_level=4, **options)
        return buffer.getvalue()
