"""From samples to pictures and inputs: decoded once, stretched and normalised as in serving.

Pictures are kept as 8-bit grey levels, which is exact for 8-bit files of that size and within half
a grey level for any other.

Does not: augment (``augmentation``), or drop files in silence. ``readable_split`` says what
cannot be read, and what ``without`` leaves is decoded whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chestxray import imaging
from chestxray.assessment import Choices, Policy
from chestxray.assessment.decoding import read_file
from chestxray.dataset import Sample, Split, counted
from chestxray.dataset.boxes import Box, read_boxes
from chestxray.dataset.lungs import read_lungs
from chestxray.errors import ChestXrayError, DatasetError
from chestxray.inference.bundle import Preprocessing
from chestxray.learning.config import TrainConfig
from chestxray.learning.pictures import BLACK, BOXES_PX, Levels, Pictures, kept_px
from chestxray.learning.sampling import strata_of

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Where:
    """What is known of where in the pictures of a data set, by ``Sample.path``."""

    boxes: Mapping[str, Sequence[Box]] = field(default_factory=dict)
    lungs: Mapping[str, Mask] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """The identity of all of it."""
        digest = hashlib.sha256()
        for path, boxes in sorted(self.boxes.items()):
            digest.update(_encoded(f"{path} {boxes}\n"))
        for path, mask in sorted(self.lungs.items()):
            digest.update(_encoded(path) + np.packbits(mask).tobytes())
        return digest.hexdigest()


NOWHERE = Where()


def read_where(
    samples: Sequence[Sample], config: TrainConfig, boxes: Path | None, lungs: Sequence[Path]
) -> Where:
    """What files of boxes and of lung masks say of ``samples``.

    Raises:
        DatasetError: a file cannot be read or does not fit the samples.
    """
    marked = read_boxes(boxes, samples) if boxes is not None else {}
    if config.box_findings:
        marked = {
            path: [box for box in of_it if box.finding in config.box_findings]
            for path, of_it in marked.items()
        }
    return Where(marked, read_lungs(lungs, samples) if lungs else {})


def readable_split(split: Split, config: TrainConfig) -> tuple[Split, dict[str, str]]:
    """A split without the files that cannot be read, and why those cannot, by ``Sample.path``.

    Who stands on which side is decided before, so that a broken file moves no other.

    Raises:
        DatasetError: a side has no readable file of one of its truths.
    """
    wrong = unreadable([*split.train, *split.heldout], config)
    readable = without(split, wrong)
    for side, kept in ((split.train, readable.train), (split.heldout, readable.heldout)):
        if lost := {sample.truth for sample in side} - {sample.truth for sample in kept}:
            raise DatasetError(
                f"no {min(lost)} can be read on one side of the split; of all: {reasons(wrong)}"
            )
    return readable, wrong


def without(split: Split, paths: Collection[str]) -> Split:
    """The split without the samples of these ``Sample.path``."""
    sides = (split.train, split.heldout)
    return Split(*([sample for sample in side if sample.path not in paths] for side in sides))


def reasons(wrong: Mapping[str, str]) -> str:
    """How many files cannot be read, and why the first few."""
    return counted([f"{path}: {why}" for path, why in wrong.items()])


def unreadable(samples: Sequence[Sample], config: TrainConfig) -> dict[str, str]:
    """Why each of ``samples`` cannot be decoded that cannot, by ``Sample.path``."""
    decode_one = _decoder(config, config.side_px)

    def why(sample: Sample) -> str | None:
        try:
            decode_one(sample)
        except DatasetError as exc:
            return str(exc.__cause__)
        return None

    with ThreadPoolExecutor(config.threads) as pool:
        judged = zip(samples, pool.map(why, samples), strict=True)
        return {sample.path: reason for sample, reason in judged if reason is not None}


def read_pictures(
    samples: Sequence[Sample],
    config: TrainConfig,
    device: torch.device,
    where: Where = NOWHERE,
) -> Pictures:
    """Decode ``samples`` and put them on ``device``, a little larger than the network's input, so
    that what augmentation magnifies stays sharp.

    Raises:
        DatasetError: as :func:`decode`.
    """
    side_px = kept_px(config.side_px)
    levels, sizes = _decoded(samples, config, side_px)
    lungs_only = np.array([sample.source in config.lungs_only for sample in samples], dtype=bool)
    lungs = np.zeros(levels.shape, np.uint8)
    knows_lungs = lungs_only.copy()
    boxes = np.zeros((len(samples), BOXES_PX, BOXES_PX), np.uint8)
    knows_boxes = np.zeros(len(samples), bool)
    for i, sample in enumerate(samples):
        if lungs_only[i]:
            lungs[i] = np.where(levels[i] > BLACK, 255, 0)
        elif (mask := where.lungs.get(sample.path)) is not None:
            lungs[i] = to_grey_levels(imaging.resize(mask.astype(np.float32), side_px))
            knows_lungs[i] = True
        if sample.positive and where.boxes.get(sample.path):
            boxes[i] = _covered(where.boxes[sample.path], *sizes[i])
            knows_boxes[i] = True
    strata = strata_of(samples, config)
    number = {stratum: i for i, stratum in enumerate(sorted(set(strata)))}
    known = (lungs, knows_lungs, boxes, knows_boxes, lungs_only)
    drawn_with = np.array([number[stratum] for stratum in strata])
    arrays = (levels, targets_of(samples), *known, drawn_with)
    return Pictures(*(torch.from_numpy(array).to(device) for array in arrays))


def decode(samples: Sequence[Sample], config: TrainConfig) -> Levels:
    """Decode and stretch all samples as serving does, as (N, side_px, side_px) uint8.

    Raises:
        DatasetError: a file cannot be read as a radiograph, or is none that ``config`` says the
            data hold; the message names it. An age is no reason.
    """
    return _decoded(samples, config, config.side_px)[0]


def _decoded(
    samples: Sequence[Sample], config: TrainConfig, side_px: int
) -> tuple[Levels, list[tuple[int, int]]]:
    """The grey levels, and of each file its (width, height)."""
    if not samples:
        return np.zeros((0, side_px, side_px), np.uint8), []
    with ThreadPoolExecutor(config.threads) as pool:
        levels, sizes = zip(*pool.map(_decoder(config, side_px), samples), strict=True)
    return np.stack(levels), list(sizes)


def _decoder(
    config: TrainConfig, side_px: int
) -> Callable[[Sample], tuple[Levels, tuple[int, int]]]:
    policy = Policy("balanced", Choices(population="warn"), config.population)
    shrink_to_px = Preprocessing.enough_px(side_px)

    def decoded(sample: Sample) -> tuple[Levels, tuple[int, int]]:
        try:
            radiograph = read_file(sample.file, policy, shrink_to_px)
        except (ChestXrayError, OSError) as exc:
            raise DatasetError(f"{sample.path}: {exc}") from exc
        levels = to_grey_levels(imaging.resize(radiograph.pixels, side_px))
        return levels, (radiograph.width_px, radiograph.height_px)

    return decoded


def _covered(boxes: Sequence[Box], width_px: int, height_px: int) -> Levels:
    """How far each of 48 × 48 cells lies in a box: 255, wholly."""
    edges = np.arange(BOXES_PX + 1) / BOXES_PX
    covered = np.zeros((BOXES_PX, BOXES_PX))
    for box in boxes:
        along = [
            np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None) * BOXES_PX
            for start, end in (
                (box.y / height_px, (box.y + box.h) / height_px),
                (box.x / width_px, (box.x + box.w) / width_px),
            )
        ]
        covered = np.maximum(covered, np.outer(*along))
    return np.rint(covered * 255).astype(np.uint8)


def to_grey_levels(pixels: NDArray[np.float32]) -> Levels:
    """Pixels in [0, 1] → the nearest of 256 grey levels."""
    return np.rint(pixels * 255).astype(np.uint8)


def to_pixels(grey_levels: Levels) -> NDArray[np.float32]:
    """256 grey levels → pixels in [0, 1], exactly as ``imaging`` reads an 8-bit file."""
    return grey_levels.astype(np.float32) / np.float32(255)


def targets_of(samples: Sequence[Sample]) -> NDArray[np.float32]:
    """1 for the positive, 0 for the negative, (N,) float32."""
    return np.array([s.positive for s in samples], dtype=np.float32)


def data_sha256(samples: Sequence[Sample]) -> str:
    """One SHA-256 for a data set: of the paths and the files of its samples, in any order."""
    listed = sorted(f"{sample.sha256}  {sample.path}" for sample in samples)
    return hashlib.sha256(_encoded("\n".join(listed))).hexdigest()


def _encoded(names: str) -> bytes:
    """Names as the bytes that they are on the disk, which need not be UTF-8."""
    return names.encode("utf-8", "surrogateescape")


def inputs_of(levels: Levels, config: TrainConfig, side_px: int) -> NDArray[np.float32]:
    """Grey levels (N, H, W) → inputs (N, 1, S, S), as serving makes them."""
    made = [
        imaging.to_input(to_pixels(picture), side_px=side_px, mean=config.mean, std=config.std)
        for picture in levels
    ]
    return np.stack(made) if made else np.zeros((0, 1, side_px, side_px), np.float32)
