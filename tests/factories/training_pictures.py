"""Makes what the learning room trains on, in memory: pictures of which something is known, samples
without files, batches of which nothing is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from chestxray.dataset import Labels, Sample
from chestxray.learning.augmentation import Batch
from chestxray.learning.config import Augmentation
from chestxray.learning.pictures import BOXES_PX, Pictures
from factories.datasets import LABELS

CHANGES = [name for name in Augmentation.model_fields if name.endswith("_p")]
NEVER = Augmentation.model_validate(dict.fromkeys(CHANGES, 0.0))
ALWAYS = Augmentation.model_validate(dict.fromkeys(CHANGES, 1.0))

GENTLE = {
    "affine_p": 0.3,
    "scale": 1.1,
    "borrow_tone_p": 0.1,
    "brightness": 0.1,
    "contrast": 1.2,
    "gamma_p": 0,
    "blur_p": 0.1,
    "sharpen_p": 0,
    "resolution_p": 0,
    "noise_p": 0.1,
    "redact_p": 0,
    "erase_p": 0,
    "jpeg_p": 0.1,
}
"""What a tiny network still learns under within seconds."""
GENTLE_TOML = "[augmentation]\n" + "".join(f"{key} = {value}\n" for key, value in GENTLE.items())


def only(name: str, **extents: float) -> Augmentation:
    """One change, made to every picture."""
    return NEVER.model_copy(update={name: 1.0, **extents})


def pictures_of(
    levels: ArrayLike,
    positive: ArrayLike,
    *,
    lungs: Mapping[int, ArrayLike] | None = None,
    boxes: Mapping[int, ArrayLike] | None = None,
    lungs_only: ArrayLike = (),
) -> Pictures:
    """Pictures (N, K, K) of grey levels; masks of ``lungs`` (K, K) and of ``boxes`` (48, 48) by
    index where they are known, and the indices of those that show lungs only."""
    grey = np.asarray(levels, np.uint8)
    n, side_px, _ = grey.shape
    of_lungs, of_boxes = lungs or {}, boxes or {}
    masks = np.zeros((n, side_px, side_px), np.uint8)
    covered = np.zeros((n, BOXES_PX, BOXES_PX), np.uint8)
    for i, mask in of_lungs.items():
        masks[i] = 255 * np.asarray(mask, np.uint8)
    for i, mask in of_boxes.items():
        covered[i] = 255 * np.asarray(mask, np.uint8)
    return Pictures(
        levels=torch.from_numpy(grey),
        targets=torch.tensor(np.asarray(positive), dtype=torch.float32),
        lungs=torch.from_numpy(masks),
        knows_lungs=_is_in(of_lungs, n),
        boxes=torch.from_numpy(covered),
        knows_boxes=_is_in(of_boxes, n),
        lungs_only=_is_in(lungs_only, n),
        strata=torch.arange(n),
    )


def _is_in(indices: object, n: int) -> Tensor:
    return torch.tensor([i in indices for i in range(n)], dtype=torch.bool)  # type: ignore[operator]


def rectangle(side_px: int, rows: slice, columns: slice) -> np.ndarray:
    """A mask (side_px, side_px), true within."""
    mask = np.zeros((side_px, side_px), bool)
    mask[rows, columns] = True
    return mask


def batch_of(pixels: Tensor, targets: Tensor) -> Batch:
    """A batch of which nothing is known beyond the truth."""
    n, _, side_px, _ = pixels.shape
    nowhere = torch.zeros(n, side_px // 4, side_px // 4)
    nothing = torch.zeros(n, dtype=torch.bool)
    return Batch(
        pixels=pixels,
        targets=targets,
        lungs=nowhere,
        knows_lungs=nothing,
        boxes=nowhere,
        knows_boxes=nothing,
        strata=torch.zeros(n, dtype=torch.int64),
    )


def sample(
    number: int,
    truth: str,
    source: str = "a",
    *,
    group: str = "",
    view: str | None = None,
    labels: Labels = LABELS,
) -> Sample:
    """A sample of no file, a subject of its own."""
    groups = {"source": source} | ({"group": group} if group else {})
    path = f"{truth}/{source}-{number}.png"
    return Sample(
        path=path,
        file=Path(path),
        truth=truth,
        positive=truth == labels.positive,
        subject=f"patient {number}",
        sha256=f"{number:064x}",
        source=source,
        view=view,
        groups=groups,
    )
