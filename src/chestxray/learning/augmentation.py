"""Pictures in, a batch of changed ones out, on the device that trains.

Everything is done to a whole batch at once by PyTorch, and drawn from ``Draws``: a batch is a
function of (seed, epoch, step). What is known of where (lungs, boxes) moves with the picture.

The changes go from the patient (whose frame surrounds the lungs, flip, position, size) over the
exposure (another radiograph's tone, contrast, gamma) and the detector (blur, sharpening,
resolution, noise) to the file (bars, letters, blanks, JPEG).

Does not: decide how strong to be (``config``), which pictures make a batch (``sampling``), or mix
their targets (``training``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from chestxray.errors import ConfigError
from chestxray.learning.artefacts import (
    bars,
    burn_letters,
    erase,
    middle,
    put_into_frame,
    redact,
    soft,
)
from chestxray.learning.draws import Draws
from chestxray.learning.pictures import Pictures

if TYPE_CHECKING:
    from chestxray.learning.config import Augmentation


WHERE_EVERY_PX = 4
"""Maps of where are a quarter as large as the picture."""
TONES = 64
"""Grey levels that tell one picture's tone from another's."""
CHUNK = 256
"""How many pictures are looked at together, which bounds the memory."""
FRAME_RIM_PX, VEIL_RIM_PX = 7, 3
MIDDLE = 128 / 255
"""The grey level that JPEG codes as 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B pictures of S × S pixels, augmented.

    ``pixels`` (B, 1, S, S) float32 in [0, 1]; ``targets`` (B,) float32; ``lungs`` and ``boxes``
    (B, S/4, S/4) float32 in [0, 1], with ``knows_lungs`` and ``knows_boxes`` (B,) bool, which is
    false too where no box is left in the picture; ``strata`` (B,) int64.
    """

    pixels: Tensor
    targets: Tensor
    lungs: Tensor
    knows_lungs: Tensor
    boxes: Tensor
    knows_boxes: Tensor
    strata: Tensor


class Augmenter:
    """Augments ``pictures``; they give one another frames, masks and tones, too."""

    def __init__(self, pictures: Pictures, config: Augmentation) -> None:
        self._pictures, self._config = pictures, config
        whole = ~pictures.lungs_only
        positive = pictures.targets > 0.5
        self._boxes_of_lungs = _bounding_boxes(pictures)
        self._tones = _tones(pictures)
        self._whole = whole.nonzero()[:, 0]
        if len(self._whole) == 0:
            raise ConfigError("every picture to learn from is of a source of `lungs_only`")
        # Of negatives alone: a mask of positive lungs has holes where the finding is.
        self._frames = (whole & pictures.knows_lungs & ~positive).nonzero()[:, 0]
        self._veils = [
            (pictures.lungs_only & (positive == of_other)).nonzero()[:, 0]
            for of_other in (True, False)
        ]

    def __call__(self, indices: Tensor, draws: Draws, side_px: int) -> Batch:
        """The pictures at ``indices`` (B,), changed by ``draws`` for B, of ``side_px`` now."""
        pictures, c = self._pictures, self._config
        pixels, lungs, boxes = self._placed(indices, draws, side_px)
        for probability, change in (
            (c.borrow_tone_p, self._borrow_tone),
            (c.tone_p, self._change_tone),
            (c.gamma_p, _change_gamma),
            (c.blur_p, _blur),
            (c.sharpen_p, _sharpen),
            (c.resolution_p, _lower_resolution),
            (c.noise_p, _add_noise),
            (c.bars_p, bars),
            (c.marker_p, burn_letters),
            (c.redact_p, redact),
            (c.erase_p, erase),
            (c.jpeg_p, _compress),
        ):
            rows = draws.happens(probability).nonzero()[:, 0]
            if len(rows):
                pixels[rows] = change(pixels[rows], draws.apart(change.__name__, rows))
        return Batch(
            pixels=pixels,
            targets=pictures.targets[indices],
            lungs=lungs[:, 0],
            knows_lungs=pictures.knows_lungs[indices],
            boxes=boxes[:, 0],
            knows_boxes=pictures.knows_boxes[indices] & (boxes.amax((1, 2, 3)) > 0.5),
            strata=pictures.strata[indices],
        )

    # The patient.

    def _placed(self, indices: Tensor, draws: Draws, side_px: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (B, 1, S, S), lungs and boxes (B, 1, S/4, S/4), in a frame and moved in it."""
        pictures, c = self._pictures, self._config
        in_frame = _grid(_placement(c, draws), side_px)
        frames, pasted, in_own = self._frames_for(indices, draws, in_frame)
        pixels = _sample(pictures.levels[indices], in_own)
        lungs = _sample(pictures.lungs[indices], in_own)
        lungs_only = pictures.lungs_only[indices]

        shown = torch.ones_like(lungs)
        rows = lungs_only.nonzero()[:, 0]
        if len(rows):
            own = draws.apart("lungs only", rows)
            shown[rows] = self._veiled(indices[rows], own, lungs[rows], in_own[rows])
            surroundings = own.uniform(-1, 1, 1, 1, 1).clamp_min(0)  # half of them black
            pixels[rows] = torch.lerp(surroundings, pixels[rows], soft(shown[rows], VEIL_RIM_PX))

        rows = pasted.nonzero()[:, 0]
        if len(rows):
            frame = _sample(pictures.levels[frames[rows]], in_frame[rows])
            lungs[rows] = _sample(pictures.lungs[frames[rows]], in_frame[rows])
            inside = soft(lungs[rows] * shown[rows], FRAME_RIM_PX)
            shift = draws.apart("paste", rows).uniform(0, c.paste_levels)
            pixels[rows] = put_into_frame(pixels[rows], inside, frame, shift)

        rows = (draws.happens(c.swap_p) & ~pasted & ~lungs_only).nonzero()[:, 0]
        if len(rows):
            own = draws.apart("swap", rows)
            frame = _sample(pictures.levels[own.choice(self._whole)], in_frame[rows])
            shift = own.uniform(0, c.paste_levels)
            pixels[rows] = put_into_frame(pixels[rows], middle(own, side_px), frame, shift)

        first = WHERE_EVERY_PX // 2
        coarse = in_own[:, first::WHERE_EVERY_PX, first::WHERE_EVERY_PX]
        boxes = _sample(pictures.boxes[indices], coarse)
        return pixels.clamp(0, 1), functional.avg_pool2d(lungs, WHERE_EVERY_PX), boxes

    def _frames_for(
        self, indices: Tensor, draws: Draws, in_frame: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Whose frame each gets, whether it does (B,), and where its own pixels come from then.

        Lungs are fitted to the frame's by their bounding boxes, with a little freedom.
        """
        pictures, c = self._pictures, self._config
        often = torch.where(pictures.lungs_only[indices], c.paste_lungs_only_p, c.paste_p)
        pasted = draws.happens(often) & pictures.knows_lungs[indices]
        if len(self._frames) == 0:
            return indices, torch.zeros_like(pasted), in_frame
        frames = draws.choice(self._frames)
        fitted = _fit(
            in_frame,
            self._boxes_of_lungs[frames],
            self._boxes_of_lungs[indices],
            draws.uniform(0.95, 1.05, 2),
        )
        return frames, pasted, torch.where(pasted[:, None, None, None], fitted, in_frame)

    def _veiled(self, indices: Tensor, draws: Draws, lungs: Tensor, in_own: Tensor) -> Tensor:
        """The masks of ``lungs``, often cut by that of a picture of the other truth.

        A segmentation leaves out what it does not take for lung, an opacity for instance, so the
        mask tells the truth: with both, it does not.
        """
        if min(map(len, self._veils)) == 0:
            return lungs
        of_positive, of_negative = (draws.choice(veils) for veils in self._veils)
        others = torch.where(self._pictures.targets[indices] > 0.5, of_negative, of_positive)
        own, other = self._boxes_of_lungs[indices], self._boxes_of_lungs[others]
        veil = _sample(self._pictures.lungs[others], _fit(in_own, own, other))
        cut = draws.happens(self._config.veil_p)[:, None, None, None]
        return torch.where(cut, lungs * veil, lungs)

    # The exposure.

    def _borrow_tone(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Some or all of the way to the histogram of another picture, of any truth and source."""
        wanted = self._tones[draws.choice(self._whole)]
        flat = pixels.flatten(1) * (TONES - 1)
        own = _cumulative(flat)
        table = torch.searchsorted(wanted, own).clamp(max=TONES - 1).float() / (TONES - 1)
        below = flat.long().clamp(max=TONES - 2)
        toned = torch.lerp(table.gather(1, below), table.gather(1, below + 1), flat - below)
        share = draws.uniform(0, 1, 1, 1, 1).sqrt()
        return torch.lerp(pixels, toned.view_as(pixels), share)

    def _change_tone(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Contrast about the middle grey, and brightness; what leaves the range is cut off."""
        c = self._config
        factor = draws.factor(c.contrast, 1, 1, 1)
        shift = draws.uniform(-c.brightness, c.brightness, 1, 1, 1)
        return ((pixels - 0.5) * factor + 0.5 + shift).clamp(0, 1)


def _placement(c: Augmentation, draws: Draws) -> Tensor:
    """The affine maps (B, 2, 3) from places in the augmented picture to places in its source.

    None that leaves much of the source out: what is shifted is mostly what scaling made room for.
    """
    moved = draws.happens(c.affine_p)
    angle = draws.uniform(-1, 1) * math.radians(c.rotate_deg) * moved
    scale, aspect = (draws.factor(most) ** moved for most in (c.scale, c.aspect))
    shear = draws.uniform(-0.06, 0.06) * moved
    across, along = scale * aspect, scale / aspect
    mirror = torch.where(draws.happens(c.flip_p), -1.0, 1.0)
    room = (1 - torch.stack([across, along], 1)).abs() + 0.06
    shift = draws.uniform(-0.8, 0.8, 2) * room * moved[:, None]
    rows = (
        torch.stack([mirror * across * angle.cos(), shear - along * angle.sin(), shift[:, 0]], 1),
        torch.stack([mirror * across * angle.sin(), along * angle.cos(), shift[:, 1]], 1),
    )
    return torch.stack(rows, 1)


def _grid(placement: Tensor, side_px: int) -> Tensor:
    size = (len(placement), 1, side_px, side_px)
    grid: Tensor = functional.affine_grid(placement, size, align_corners=False)  # type: ignore[arg-type]
    return grid


def _sample(maps: Tensor, grid: Tensor) -> Tensor:
    """uint8 (B, K, K) at the places of ``grid`` (B, S, S, 2) → float32 (B, 1, S, S) in [0, 1]."""
    return functional.grid_sample(maps[:, None].float() / 255, grid, align_corners=False)


def _fit(grid: Tensor, box: Tensor, other: Tensor, freedom: Tensor | float = 1.0) -> Tensor:
    """Places in a picture whose lungs fill ``box`` (B, 4) → the same in one where they fill
    ``other``, larger by ``freedom`` (B, 2)."""
    scale = (other[:, 2:] - other[:, :2]) / (box[:, 2:] - box[:, :2]) * freedom
    shift = (other[:, 2:] + other[:, :2]) / 2 - (box[:, 2:] + box[:, :2]) / 2 * scale
    return grid * scale[:, None, None] + shift[:, None, None]


def _bounding_boxes(pictures: Pictures) -> Tensor:
    """Left, top, right and bottom of the lungs, from -1 to 1, (N, 4): where all but a hundredth of
    the mask lies on either side, since masks have specks. The whole picture where there is none."""
    sides = []
    for axis in (1, 2):  # summed over rows, then over columns
        profile = torch.cat([masks.float().sum(axis) for masks in _chunks(pictures.lungs)])
        share = profile.cumsum(1) / profile.sum(1, keepdim=True).clamp_min(1)
        first = (share < 0.01).sum(1)
        last = (share < 0.99).sum(1) + 1
        sides.append(torch.stack([first, last], 1) * (2 / profile.shape[1]) - 1)
    (left, right), (top, bottom) = (side.unbind(1) for side in sides)
    boxes = torch.stack([left, top, right, bottom], 1)
    whole = boxes.new_tensor([-1.0, -1.0, 1.0, 1.0])
    empty = ~pictures.knows_lungs | (right <= left) | (bottom <= top)
    return torch.where(empty[:, None], whole, boxes)


def _tones(pictures: Pictures) -> Tensor:
    """The cumulative histograms of all pictures, (N, TONES)."""
    scale = (TONES - 1) / 255
    of_chunks = [_cumulative(levels.flatten(1) * scale) for levels in _chunks(pictures.levels)]
    return torch.cat(of_chunks)


def _chunks(maps: Tensor) -> tuple[Tensor, ...]:
    return torch.split(maps, CHUNK)


def _cumulative(levels: Tensor) -> Tensor:
    """Levels (B, M) in [0, TONES - 1] → their cumulative histogram (B, TONES).

    Black counts no more than the commonest other level: bars are no tone.
    """
    levels = levels.round().long()
    counts = torch.zeros(len(levels), TONES, device=levels.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels, dtype=torch.float32))
    counts[:, 0] = torch.minimum(counts[:, 0], counts[:, 1:].amax(1))
    cumulative = counts.cumsum(1)
    return cumulative / cumulative[:, -1:].clamp_min(1)


# The exposure, the detector and the file.


def _change_gamma(pixels: Tensor, draws: Draws) -> Tensor:
    return pixels.clamp_min(1e-4) ** draws.factor(2, 1, 1, 1)


def _blur(pixels: Tensor, draws: Draws) -> Tensor:
    return _gaussian(pixels, draws.uniform(0.4, 2.0))


def _sharpen(pixels: Tensor, draws: Draws) -> Tensor:
    """Unsharp mask, from edges to local contrast."""
    blurred = _gaussian(pixels, draws.uniform(1.0, 6.0))
    return (pixels + draws.uniform(0.3, 1.5, 1, 1, 1) * (pixels - blurred)).clamp(0, 1)


def _gaussian(pixels: Tensor, sigma_px: Tensor) -> Tensor:
    """Blurred by ``sigma_px`` (B,) each, the kernel cut off at 6 px."""
    offsets = torch.arange(-6.0, 7.0, device=pixels.device)
    weights = torch.exp(-(offsets**2) / 2 / sigma_px[:, None] ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    rows = functional.pad(pixels.transpose(0, 1), (6, 6, 6, 6), mode="replicate")
    rows = functional.conv2d(rows, weights[:, None, None, :], groups=len(pixels))
    return functional.conv2d(rows, weights[:, None, :, None], groups=len(pixels)).transpose(0, 1)


def _lower_resolution(pixels: Tensor, draws: Draws) -> Tensor:
    """Pixels of 1.3 to 3 px, smoothly enlarged."""
    side_px = pixels.shape[-1]
    cell_px = draws.uniform(1.3, 3.0)
    centres = torch.arange(side_px, device=pixels.device) + 0.5
    at = ((centres / cell_px[:, None]).floor() + 0.5) * cell_px[:, None] * (2 / side_px) - 1
    grid = torch.stack(
        [at[:, None, :].expand(-1, side_px, -1), at[:, :, None].expand(-1, -1, side_px)], -1
    )
    blocks = functional.grid_sample(
        _gaussian(pixels, cell_px / 2), grid, padding_mode="border", align_corners=False
    )
    return _gaussian(blocks, cell_px / 3)


def _add_noise(pixels: Tensor, draws: Draws) -> Tensor:
    """Gaussian noise, half of it in grains larger than a pixel."""
    noise = draws.normal(*pixels.shape[1:])
    coarse = 2.5 * functional.avg_pool2d(noise, 3, 1, 1)
    noise = torch.where(draws.happens(0.5)[:, None, None, None], coarse, noise)
    return (pixels + noise * draws.uniform(0.005, 0.07, 1, 1, 1)).clamp(0, 1)


def _compress(pixels: Tensor, draws: Draws) -> Tensor:
    """JPEG of quality 15 to 90."""
    return jpeg(pixels, draws.uniform(15, 90))


def jpeg(pixels: Tensor, quality: Tensor) -> Tensor:
    """What JPEG of ``quality`` (B,) leaves: ITU-T T.81, A.3.3 and the luminance table of annex K,
    scaled as libjpeg does. Rows and columns beyond a multiple of eight stay as they are."""
    quality = quality[:, None, None, None, None]
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    step = (_luminance(pixels.device) * percent / 100).round().clamp(1, 255) / 255
    cosines = _cosines(pixels.device)
    side_px = pixels.shape[-1] // 8 * 8
    n = side_px // 8
    blocks = pixels[:, 0, :side_px, :side_px].reshape(-1, n, 8, n, 8).transpose(2, 3) - MIDDLE
    coefficients = (cosines @ blocks @ cosines.T / step).round() * step
    decoded = cosines.T @ coefficients @ cosines + MIDDLE
    compressed = pixels.clone()
    whole = decoded.transpose(2, 3).reshape(-1, side_px, side_px)
    compressed[:, 0, :side_px, :side_px] = whole.clamp(0, 1)
    return compressed


def _cosines(device: torch.device) -> Tensor:
    """The orthonormal cosine transform of eight samples, (8, 8)."""
    n = torch.arange(8, device=device)
    waves = torch.cos((2 * n[None, :] + 1) * n[:, None] * (math.pi / 16)) / 2
    waves[0] /= math.sqrt(2)
    return waves


def _luminance(device: torch.device) -> Tensor:
    # fmt: off
    table = [
        [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
    ]
    # fmt: on
    return torch.tensor(table, dtype=torch.float32, device=device)
