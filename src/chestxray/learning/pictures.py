"""The pictures of a training run as tensors on the device that trains, and what is known of them.

With the grey levels goes what is known of where: lungs from masks, the finding from readers' boxes.

Does not: read files (``inputs``) or change pictures (``augmentation``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Levels = NDArray[np.uint8]

BLACK = 12
"""Grey levels up to this are the blacked-out surroundings of lungs, JPEG's ringing included."""
BOXES_PX = 48
"""How many cells a side maps of boxes have, which are finer than any evidence."""


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """N pictures of K × K pixels and what is known of them.

    ``levels`` (N, K, K) uint8; ``targets`` (N,) float32, 1 for the positive; ``lungs`` (N, K, K)
    uint8, 255 within the lungs, and ``knows_lungs`` (N,) bool; ``boxes`` (N, 48, 48) uint8, 255
    where a cell lies wholly in a box, and ``knows_boxes`` (N,) bool; ``lungs_only`` (N,) bool: all
    else is blacked out; ``strata`` (N,) int64, which stratum each is drawn with.
    """

    levels: Tensor
    targets: Tensor
    lungs: Tensor
    knows_lungs: Tensor
    boxes: Tensor
    knows_boxes: Tensor
    lungs_only: Tensor
    strata: Tensor

    def __len__(self) -> int:
        return len(self.levels)


def bare_pictures(levels: Levels) -> Pictures:
    """Pictures (N, K, K) of which nothing else is known, all of them negative."""
    n, side_px, _ = levels.shape
    nothing = torch.zeros(n, dtype=torch.bool)
    return Pictures(
        levels=torch.from_numpy(levels),
        targets=torch.zeros(n),
        lungs=torch.zeros((n, side_px, side_px), dtype=torch.uint8),
        knows_lungs=nothing,
        boxes=torch.zeros((n, BOXES_PX, BOXES_PX), dtype=torch.uint8),
        knows_boxes=nothing,
        lungs_only=nothing,
        strata=torch.zeros(n, dtype=torch.int64),
    )


def kept_px(side_px: int) -> int:
    """The size that training pictures are kept at for inputs of ``side_px``."""
    return side_px * 6 // 5
