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

from chestxray.learning.config import Augmentation

cv2.setNumThreads(0)  # the loader's workers are the parallelism


class Augmenter:
    """Changes an image the way acquisition and patients differ, reproducibly.

    The changes go from the patient (flip, position, size) over the exposure (tone, gamma) and the
    detector (blur, sharpening, noise) to the file (JPEG), erasing last.
    """

    def __init__(self, config: Augmentation, side_px: int) -> None:
        c = config
        self._transform = A.Compose(
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
                    ratio=(0.75, 1.33),
                    interpolation=cv2.INTER_AREA,
                    p=c.crop_p,
                ),
                A.Resize(side_px, side_px, interpolation=cv2.INTER_AREA),
                A.RandomBrightnessContrast(
                    brightness_limit=c.brightness,
                    contrast_limit=c.contrast,
                    brightness_by_max=True,
                    p=c.tone_p,
                ),
                A.RandomGamma(gamma_limit=(60, 170), p=c.gamma_p),
                A.OneOf(
                    [
                        A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.6)),
                        A.Downscale(
                            scale_range=(0.35, 0.8),
                            interpolation_pair={
                                "downscale": cv2.INTER_AREA,
                                "upscale": cv2.INTER_LINEAR,
                            },
                        ),
                        A.UnsharpMask(blur_limit=(3, 7), alpha=(0.2, 0.8), threshold=0),
                        A.CLAHE(clip_limit=(1.0, 3.0)),
                    ],
                    p=c.sharpness_p,
                ),
                A.GaussNoise(std_range=(0.005, 0.06), p=c.noise_p),
                A.ImageCompression(quality_range=(25, 95), p=c.jpeg_p),
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
        self, image: NDArray[np.uint8], seed: int, epoch: int, index: int
    ) -> NDArray[np.uint8]:
        """(H, W) uint8 → (side_px, side_px) uint8, a function of (image, seed, epoch, index)."""
        state = np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0]
        self._transform.set_random_seed(int(state))
        changed: NDArray[np.uint8] = self._transform(image=image[:, :, None])["image"][:, :, 0]
        return changed
