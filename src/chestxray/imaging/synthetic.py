"""Draws a phantom that looks like a chest: for reference answers, test bundles and benchmarks.

Only additions, products and comparisons of IEEE floats, on 256 levels of grey, so that every
processor and version of numpy draws the same picture from the same seed.

Does not: resemble any patient, or carry a diagnosis.
"""

import numpy as np
from numpy.typing import NDArray


def synthetic_radiograph(seed: int, side_px: int = 224) -> NDArray[np.float32]:
    """(side_px, side_px) float32 in [0, 1]: bright body, two dark lungs, ribs, spine, heart, noise.

    The same seed gives the same anatomy at every size, under other noise.
    """
    rng = np.random.default_rng(seed)
    wobble = rng.random(8) - 0.5  # one body differs from the next
    steps = (np.arange(side_px) + 0.5) / side_px * 2 - 1
    x, y = steps[np.newaxis, :], steps[:, np.newaxis]  # -1 … 1, right and down

    def blob(at_x: float, at_y: float, width: float, height: float) -> NDArray[np.float64]:
        """1 in the middle of an ellipse, falling smoothly to 0 at its edge."""
        inside = 1 - ((x - at_x) / width) ** 2 - ((y - at_y) / height) ** 2
        return np.clip(inside, 0, 1)

    picture = 0.75 * np.clip(4 * blob(0, 0.2, 0.95 + 0.1 * wobble[0], 1.5), 0, 1)
    lung_height, lung_y = 0.72 + 0.1 * wobble[1], -0.08 + 0.1 * wobble[2]
    lungs = np.clip(
        2 * blob(-0.43 + 0.06 * wobble[3], lung_y, 0.34, lung_height)
        + 2 * blob(0.43 + 0.06 * wobble[4], lung_y, 0.32, lung_height),
        0,
        1,
    )
    ribs_at = (y + 0.35 * x * x + 0.1 * wobble[5]) * 5.5
    ribs = np.clip(1 - 4 * np.abs(ribs_at - np.floor(ribs_at) - 0.5), 0, 1)
    picture -= lungs * (0.55 - 0.12 * ribs)
    picture += 0.3 * blob(0.16 + 0.1 * wobble[6], 0.25, 0.38 + 0.1 * wobble[7], 0.36)
    picture += 0.15 * np.clip(1 - np.abs(x) / 0.09, 0, 1)
    picture += 0.04 * (rng.random((side_px, side_px)) - 0.5)
    levels = np.floor(np.clip(picture, 0, 1) * 255 + 0.5).astype(np.float32)
    return levels / np.float32(255)
