"""Changes that no general library has: what else is in the picture than lungs.

Hospitals differ in what surrounds the lungs: collimation, markers, arms, how much abdomen is seen.
A network that is free to use it does, and tells the truths apart with the lungs blacked out. So
markers and bars are put in at random, and ``swap_surroundings`` makes what surrounds the lungs
independent of the truth.

Does not: decide how often (``augmentation`` does), or find lungs: the middle of a frontal chest
radiograph is where they are.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint8]

SOFT_EDGE = 0.15
"""Width of the blend between lungs and surroundings, as a share of the way from the centre."""


def swap_surroundings(lungs: Levels, surroundings: Levels, random: np.random.Generator) -> Levels:
    """The middle of ``lungs`` in the frame of ``surroundings``, both (H, W) uint8.

    The frame gets the mean and contrast of ``lungs``, and the two are blended over a soft edge, so
    that no seam tells that the picture was made. The truth is that of ``lungs``.
    """
    height, width = lungs.shape
    frame = surroundings.astype(np.float32)
    if frame.shape != lungs.shape:
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    picture = lungs.astype(np.float32)
    frame = (frame - frame.mean()) / max(float(frame.std()), 1) * picture.std() + picture.mean()
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    centre_x, centre_y = random.uniform(-0.05, 0.05), random.uniform(-0.12, 0.04)
    half_width, half_height = random.uniform(0.68, 0.85), random.uniform(0.62, 0.82)
    # A rectangle with round corners: 1 at its edge, less inside.
    distance = (
        np.abs((x - centre_x) / half_width) ** 4 + np.abs((y - centre_y) / half_height) ** 4
    ) ** 0.25
    inside = np.clip((1 - distance) / SOFT_EDGE + 0.5, 0, 1)
    blended: NDArray[np.float32] = frame + (picture - frame) * inside
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def burn_marker(image: Levels, random: np.random.Generator) -> Levels:
    """One to three bright letters near a corner of (H, W) uint8."""
    height, width = image.shape
    text = "".join(random.choice(list("LRAPDMSX127"), random.integers(1, 4)))
    size = float(random.uniform(0.04, 0.1)) * height / 22  # this font is about 22 px high at 1
    thickness = max(1, round(size * random.uniform(1.5, 4)))
    x = random.uniform(0.02, 0.2) if random.random() < 0.5 else random.uniform(0.7, 0.9)
    y = random.uniform(0.08, 0.25) if random.random() < 0.7 else random.uniform(0.8, 0.97)
    level = int(random.integers(190, 256))
    marked: Levels = cv2.putText(
        image.copy(),
        text,
        (round(x * width), round(y * height)),
        cv2.FONT_HERSHEY_SIMPLEX,
        size,
        level,
        thickness,
        cv2.LINE_AA,
    )
    return marked


def blacken_sides(image: Levels, random: np.random.Generator) -> Levels:
    """Black bars up to an eighth wide: left and right, or above and below."""
    changed = image.copy()
    turned = changed.T if random.random() < 0.3 else changed  # a view: both change together
    side_px = turned.shape[1]
    first, last = (random.uniform(0, 0.125, 2) * side_px).round().astype(int)
    turned[:, :first] = 0
    turned[:, side_px - last :] = 0
    return changed
