"""The one place that knows Albumentations: an image and its seed in, another image out.

Albumentations 2.0.8 is the last MIT release and no longer maintained, so that everything about it
stays behind ``Augmenter``; kornia or plain OpenCV could take its place here.

Does not: decide how strong to be (``config``), nor mix images or labels (``training``).
"""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network on import

import albumentations as A  # noqa: N812 - its documented alias
import cv2
import numpy as np
from numpy.typing import NDArray

from chestxray.learning.artefacts import blacken_sides, burn_marker, swap_surroundings
from chestxray.learning.config import Augmentation

cv2.setNumThreads(0)  # the loader's workers are the parallelism


class Augmenter:
    """Changes an image the way acquisition and patients differ, reproducibly.

    The changes go from the patient (what surrounds the lungs, flip, position, size) over the
    exposure (tone, gamma) and the detector (blur, sharpening, noise) to the file (bars, markers,
    JPEG), erasing last.
    """

    def __init__(self, config: Augmentation, side_px: int) -> None:
        self._config = c = config
        self._place = A.Compose(
            [
                A.HorizontalFlip(p=c.flip_p),
                A.Affine(
                    scale=(0.9, 1.15),
                    translate_percent=(-0.06, 0.06),
                    rotate=(-c.rotate_deg, c.rotate_deg),
                    shear=(-4, 4),
                    border_mode=cv2.BORDER_CONSTANT,
                    p=c.affine_p,
                ),
                A.RandomResizedCrop(
                    (side_px, side_px),
                    scale=(c.crop_scale_min, 1.0),
                    ratio=(0.7, 1.43),
                    interpolation=cv2.INTER_AREA,
                    p=c.crop_p,
                ),
                A.Resize(side_px, side_px, interpolation=cv2.INTER_AREA),
            ]
        )
        self._expose = A.Compose(
            [
                A.RandomBrightnessContrast(
                    brightness_limit=c.brightness,
                    contrast_limit=c.contrast,
                    brightness_by_max=True,
                    p=c.tone_p,
                ),
                A.RandomGamma(gamma_limit=(50, 200), p=c.gamma_p),
                A.OneOf(
                    [
                        A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 2.2)),
                        A.Downscale(
                            scale_range=(0.25, 0.8),
                            interpolation_pair={
                                "downscale": cv2.INTER_AREA,
                                "upscale": cv2.INTER_LINEAR,
                            },
                        ),
                        A.UnsharpMask(blur_limit=(3, 7), alpha=(0.2, 0.8), threshold=0),
                        A.CLAHE(clip_limit=(1.0, 4.0)),
                    ],
                    p=c.sharpness_p,
                ),
                A.GaussNoise(std_range=(0.005, 0.08), p=c.noise_p),
            ]
        )
        self._store = A.Compose(
            [
                A.ImageCompression(quality_range=(15, 95), p=c.jpeg_p),
                A.CoarseDropout(
                    num_holes_range=(1, 4),
                    hole_height_range=(0.08, 0.3),
                    hole_width_range=(0.08, 0.3),
                    fill="random_uniform",
                    p=c.erase_p,
                ),
            ]
        )

    def __call__(
        self,
        image: NDArray[np.uint8],
        seed: int,
        epoch: int,
        index: int,
        surroundings: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """(H, W) uint8 → (side_px, side_px) uint8, a function of its arguments alone.

        ``surroundings`` is another radiograph, whose frame may take the place of this one's.
        """
        c = self._config
        random = np.random.default_rng((seed, epoch, index))
        for part in (self._place, self._expose, self._store):
            part.set_random_seed(int(random.integers(2**32)))
        swapped, barred, marked = random.random(3) < (c.swap_p, c.bars_p, c.marker_p)
        if swapped and surroundings is not None:
            image = swap_surroundings(image, surroundings, random)
        image = _apply(self._expose, _apply(self._place, image))
        if barred:
            image = blacken_sides(image, random)
        if marked:
            image = burn_marker(image, random)
        return _apply(self._store, image)


def _apply(part: A.Compose, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    changed: NDArray[np.uint8] = part(image=image[:, :, None])["image"][:, :, 0]
    return changed
