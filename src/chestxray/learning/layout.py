"""Fits what tells a whole, upright, frontal chest from other pictures, without other pictures.

Nobody has a fair sample of what is no frontal chest. So it is made of frontal chests: turned, cut
to a part, or folded, one lung over the other, as a lateral view has them. A linear classifier of
the features of these and of whole ones also refuses much that it has never seen: lateral chests,
hands, knees, photographs (``benchmarks/input_check.py``).

Does not: say how near to the training's a picture is (``inference.input_check`` does that too).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from chestxray.inference.bundle import Layout
from chestxray.inference.input_check import rounded
from chestxray.learning.pictures import Levels

REGULARISATION = 1e-3
"""scikit-learn's C: features are many, and correlate."""

Features = NDArray[np.float32]


def not_whole(levels: Levels, seed: int) -> Levels:
    """Pictures (N, S, S) uint8 of frontal chests → as many that show none, of each kind alike."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(levels), generator=generator)
    made = torch.empty(levels.shape, dtype=torch.uint8)
    for number, kind in enumerate(_KINDS):
        rows = order[number :: len(_KINDS)]
        if len(rows):
            pictures = torch.from_numpy(levels[rows.numpy()])[:, None].float()
            made[rows] = kind(pictures, generator).round().clamp(0, 255).byte()[:, 0]
    return made.numpy()


def fit_layout(whole: Features, other: Features, heldout: Features, acceptance: float) -> Layout:
    """Fit to features (N, F) of whole frontal chests and of others, such that the share
    ``acceptance`` of ``heldout`` whole ones, of other subjects, is accepted."""
    features = np.concatenate([whole, other])
    is_whole = np.repeat([True, False], [len(whole), len(other)])
    scaler = StandardScaler().fit(features)
    classifier = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=500)
    classifier.fit(scaler.transform(features), is_whole)
    weights = rounded(classifier.coef_[0] / scaler.scale_)
    margin = heldout.astype(np.float64) @ weights
    least = np.quantile(margin, 1 - acceptance, method="lower")
    return Layout(weights=weights.tolist(), bias=-float(least))


# Pictures (N, 1, S, S) of whole frontal chests → of none; what is drawn is drawn once for all.

_Kind = Callable[[Tensor, torch.Generator], Tensor]


def _turned(quarters: int) -> _Kind:
    return lambda pictures, _: pictures.rot90(quarters, (2, 3))


def _window(top: float, bottom: float, left: float, right: float) -> _Kind:
    """A part, enlarged: from ``top`` to ``bottom`` and ``left`` to ``right``, in shares of a side,
    give or take a twentieth."""

    def cut(pictures: Tensor, generator: torch.Generator) -> Tensor:
        side_px = pictures.shape[-1]
        moved = (_uniform(generator, -0.05, 0.05) + share for share in (top, bottom, left, right))
        y0, y1, x0, x1 = (round(side_px * min(max(share, 0), 1)) for share in moved)
        return _stretched(pictures[:, :, y0:y1, x0:x1], side_px, side_px)

    return cut


def _half(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """The left half, somewhat more or less of it, with the edge of the picture cut off."""
    side_px = pictures.shape[-1]
    begin, end = (round(side_px * _uniform(generator, *of)) for of in ((0, 0.12), (0.46, 0.58)))
    return _stretched(pictures[:, :, :, begin:end], side_px, side_px)


def _one_lung(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """One lung between dark margins, tilted; of half of the pictures the left, else the right."""
    side = torch.arange(len(pictures)) % 2 == 0
    seen = torch.where(side[:, None, None, None], pictures, pictures.flip(3))
    half = _half(seen, generator)
    half = torch.where(side[:, None, None, None], half, half.flip(3))
    return _tilted(_between_margins(half, generator), 15, generator)


def _folded(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """One lung over the other, the spine at one side, between dark margins, tilted."""
    share = _uniform(generator, 0.3, 0.7)
    one, other = (_half(seen, generator) for seen in (pictures, pictures.flip(3)))
    folded = share * one + (1 - share) * other
    side = (torch.arange(len(pictures)) % 2 == 0)[:, None, None, None]
    folded = torch.where(side, folded, folded.flip(3))
    return _tilted(_between_margins(folded, generator), 20, generator)


_KINDS: tuple[_Kind, ...] = (
    _turned(1),
    _turned(2),
    _turned(3),
    _window(0, 1, 0, 0.53),
    _window(0, 1, 0.47, 1),
    _window(0, 0.48, 0, 1),
    _window(0.52, 1, 0, 1),
    _window(0.26, 0.74, 0.26, 0.74),
    _window(0, 0.5, 0, 0.5),
    _window(0, 0.5, 0.5, 1),
    _window(0.5, 1, 0, 0.5),
    _window(0.5, 1, 0.5, 1),
    *(_one_lung,) * 4,
    *(_folded,) * 4,
)


def _between_margins(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Squeezed from the sides, with the picture's darkest level beside it."""
    side_px = pictures.shape[-1]
    left, right = (round(side_px * _uniform(generator, 0, 0.22)) for _ in range(2))
    framed = pictures.amin((2, 3), keepdim=True).expand_as(pictures).clone()
    framed[..., left : side_px - right] = _stretched(pictures, side_px, side_px - left - right)
    return framed


def _tilted(pictures: Tensor, most_deg: float, generator: torch.Generator) -> Tensor:
    """Each turned by up to ``most_deg`` degrees, either way."""
    drawn = torch.rand(len(pictures), generator=generator)
    angle = (drawn * 2 - 1) * math.radians(most_deg)
    zero = torch.zeros_like(angle)
    rows = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], 1)
    grid = functional.affine_grid(rows.view(-1, 2, 3), list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _stretched(pictures: Tensor, height_px: int, width_px: int) -> Tensor:
    size = (height_px, width_px)
    return functional.interpolate(pictures, size, mode="bilinear", antialias=True)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()
