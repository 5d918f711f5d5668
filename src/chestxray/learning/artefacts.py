"""Changes that no general library has: what else is in the picture than lungs, and whose frame.

Hospitals differ in what surrounds the lungs: collimation, markers, arms, how much abdomen is seen.
A network that is free to use it does, and tells the truths apart with the lungs blacked out. So
markers, bars and blanks are put in at random, and lungs are put into other radiographs' frames,
which makes what surrounds them independent of the truth.

All take and give pictures (B, 1, S, S) float32 in [0, 1] and draw what they need.

Does not: decide how often (``augmentation`` does).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from chestxray.learning.draws import Draws

SOFT_EDGE = 0.15
"""Width of the blend between lungs and surroundings, as a share of the way from the centre."""
RECTANGLES = 4
LETTERS = 2
N_TEXTS = 64
TEXT_PX = (16, 48)


def put_into_frame(lungs: Tensor, within: Tensor, frame: Tensor, levels: Tensor) -> Tensor:
    """``lungs`` where ``within`` (B, 1, S, S) in [0, 1] is 1, ``frame`` elsewhere.

    The lungs' mean grey level moves towards that of what they cover by a share of ``levels`` (B,):
    two detectors seldom agree on it.
    """
    area = within.sum((2, 3), keepdim=True).clamp_min(1)
    shift = ((frame - lungs) * within).sum((2, 3), keepdim=True) / area
    return torch.lerp(frame, lungs + levels[:, None, None, None] * shift, within).clamp(0, 1)


def soft(mask: Tensor, rim_px: int) -> Tensor:
    """A mask (B, 1, S, S) with half of ``rim_px`` eroded and the rest blended, so that no seam
    tells that the picture was made."""
    mean = functional.avg_pool2d(mask, rim_px, 1, rim_px // 2, count_include_pad=False)
    return (2 * mean - 1).clamp(0, 1)


def middle(draws: Draws, side_px: int) -> Tensor:
    """About where the lungs of a frontal chest radiograph are, for who has no mask of them: a
    rectangle with round corners and a soft edge, (B, 1, S, S)."""
    x, y = _places(draws, side_px)
    centre_x, centre_y = draws.uniform(-0.05, 0.05, 1, 1), draws.uniform(-0.12, 0.04, 1, 1)
    half_width, half_height = draws.uniform(0.68, 0.85, 1, 1), draws.uniform(0.62, 0.82, 1, 1)
    along_x, along_y = (x - centre_x) / half_width, (y - centre_y) / half_height
    distance = (along_x**4 + along_y**4) ** 0.25
    return ((1 - distance) / SOFT_EDGE + 0.5).clamp(0, 1)[:, None]


def bars(pictures: Tensor, draws: Draws) -> Tensor:
    """Black, seldom white, bars up to a seventh wide at the sides, seldom above and below."""
    x, y = _places(draws, pictures.shape[-1])
    widths = 2 * 0.14 * draws.uniform(0, 1, 4, 1, 1) ** 2
    upright = draws.uniform(0, 1, 1, 1) < 0.7
    barred = (x < widths[:, 0] - 1) | (x > 1 - widths[:, 1])
    lying = (y < widths[:, 2] - 1) | (y > 1 - widths[:, 3])
    barred = barred | (lying & ~upright)
    level = (draws.uniform(0, 1, 1, 1, 1) < 0.2).float()
    return torch.where(barred[:, None], level, pictures)


def erase(pictures: Tensor, draws: Draws) -> Tensor:
    """One to four rectangles of one grey level each (Zhong et al. 2017, arXiv 1708.04896)."""
    return _with_rectangles(pictures, draws, (0.08, 0.28), (0.0, 1.0))


def redact(pictures: Tensor, draws: Draws) -> Tensor:
    """One to four small bright or black boxes, as names are covered with, near the edges."""
    return _with_rectangles(pictures, draws, (0.02, 0.16), (0.7, 1.0), near_edge=True)


def _with_rectangles(
    pictures: Tensor,
    draws: Draws,
    side: tuple[float, float],
    level: tuple[float, float],
    *,
    near_edge: bool = False,
) -> Tensor:
    x, y = _places(draws, pictures.shape[-1])
    n = 1 + (draws.uniform() * RECTANGLES).long()
    for i in range(RECTANGLES):
        centre = draws.uniform(-1, 1, 2, 1, 1)
        if near_edge:
            centre = centre.sign() * centre.abs() ** 0.3
        half = draws.uniform(*side, 2, 1, 1)
        inside = ((x - centre[:, 0]).abs() < half[:, 0]) & ((y - centre[:, 1]).abs() < half[:, 1])
        inside &= (i < n)[:, None, None]
        grey = draws.uniform(*level, 1, 1, 1)
        if near_edge:
            grey = torch.where(draws.uniform(0, 1, 1, 1, 1) < 0.2, 0.0, grey)
        pictures = torch.where(inside[:, None], grey, pictures)
    return pictures


def burn_letters(pictures: Tensor, draws: Draws) -> Tensor:
    """One or two short texts, mostly bright, away from the middle."""
    bank = _texts().to(pictures.device)
    x, y = _places(draws, pictures.shape[-1])
    for _ in range(LETTERS):
        which = draws.choice(torch.arange(N_TEXTS, device=pictures.device))
        centre = draws.uniform(-1, 1, 2, 1, 1)
        centre = centre.sign() * centre.abs() ** 0.3 * 0.9
        height = draws.uniform(0.04, 0.14, 1, 1)
        size = (len(pictures), pictures.shape[-1], pictures.shape[-1])
        across, down = (x - centre[:, 0]) / (3 * height), (y - centre[:, 1]) / height
        grid = torch.stack([across.expand(size), down.expand(size)], -1)
        ink = functional.grid_sample(bank[which], grid, align_corners=False)
        pictures = torch.lerp(pictures, draws.uniform(0.6, 1, 1, 1, 1), ink)
    return pictures


@cache
def _texts() -> Tensor:
    """Texts such as markers have, (N_TEXTS, 1, 16, 48), 1 where there is ink."""
    random = np.random.default_rng(0)
    font = ImageFont.load_default(size=14)
    drawn = []
    for _ in range(N_TEXTS):
        text = "".join(random.choice(list("LRAPDMSXUE1270"), random.integers(1, 6)))
        image = Image.new("L", TEXT_PX[::-1])
        ImageDraw.Draw(image).text((24, 8), text, fill=255, font=font, anchor="mm")
        drawn.append(np.asarray(image, dtype=np.float32) / 255)
    return torch.from_numpy(np.stack(drawn)[:, None])


def _places(draws: Draws, side_px: int) -> tuple[Tensor, Tensor]:
    """Where the pixels of a row and of a column are, from -1 to 1: (1, 1, S) and (1, S, 1)."""
    centres = (torch.arange(side_px, device=draws.device) + 0.5) * (2 / side_px) - 1
    return centres[None, None, :], centres[None, :, None]
