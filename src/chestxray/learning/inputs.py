"""From samples to batches: images decoded once, augmented reproducibly, normalised as in serving.

Images pass through ``imaging.read_file`` and ``imaging.resize`` as in serving and are kept as
8-bit grey levels, which is exact for 8-bit files of the network's size and within half a grey
level for any other. Every augmented image is a function of (seed, epoch, index), so that workers,
threads and interruptions change nothing.

Does not: drop files that cannot be read (that is an error here: training data should be whole).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from chestxray import imaging
from chestxray.dataset import Sample
from chestxray.errors import ChestXrayError, DatasetError
from chestxray.learning.augmentation import Augmenter
from chestxray.learning.config import TrainConfig


def decode(samples: Sequence[Sample], side_px: int, threads: int) -> NDArray[np.uint8]:
    """Decode and stretch all samples once, as (N, side_px, side_px) uint8.

    Raises:
        DatasetError: a file cannot be read as a radiograph; the message names it.
    """

    def grey_levels(sample: Sample) -> NDArray[np.uint8]:
        try:
            pixels = imaging.resize(imaging.read_file(sample.file).pixels, side_px)
        except ChestXrayError as exc:
            raise DatasetError(f"{sample.path}: {exc}") from exc
        return to_grey_levels(pixels)

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(grey_levels, samples)))


def to_grey_levels(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels in [0, 1] → the nearest of 256 grey levels."""
    return np.rint(pixels * 255).astype(np.uint8)


def to_pixels(grey_levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """256 grey levels → pixels in [0, 1], exactly as ``imaging`` reads an 8-bit file."""
    return grey_levels.astype(np.float32) / np.float32(255)


def targets_of(samples: Sequence[Sample]) -> NDArray[np.float32]:
    """1 for PNEUMONIA, 0 for NORMAL, (N,) float32."""
    return np.array([s.truth == "PNEUMONIA" for s in samples], dtype=np.float32)


class AugmentedInputs(Dataset[tuple[Tensor, Tensor]]):
    """``[(epoch, index)]`` → the augmented input (1, S, S) float32 and its target.

    ``augmenter`` None gives the input that serving would compute.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.float32],
        config: TrainConfig,
        side_px: int,
        augmenter: Augmenter | None,
    ) -> None:
        self.images, self.targets = images, targets
        self.config, self.side_px, self.augmenter = config, side_px, augmenter

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image = self.images[index]
        if self.augmenter is not None:
            draw = np.random.default_rng((self.config.seed, epoch, index, 1))
            other = self.images[draw.integers(len(self.images))]
            image = self.augmenter(image, self.config.seed, epoch, index, other)
        array = imaging.to_input(
            to_pixels(image), side_px=self.side_px, mean=self.config.mean, std=self.config.std
        )
        return torch.from_numpy(array), torch.tensor(self.targets[index])


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index), ``len(strata)`` times, in an order that follows from (seed, epoch).

    Each stratum (images of an equal entry in ``strata``) gets an equal share, those of a small one
    more than once; within a stratum no image comes again before all others came. What an
    incomplete last batch leaves out takes its turn in another epoch's order.
    """

    def __init__(self, strata: Sequence[str], seed: int, epoch: int) -> None:
        self.strata, self.seed, self.epoch = np.asarray(strata), seed, epoch

    def __len__(self) -> int:
        return len(self.strata)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        names = np.unique(self.strata)
        drawn = []
        for name, share in zip(
            names, np.array_split(np.arange(len(self)), len(names)), strict=True
        ):
            members = np.flatnonzero(self.strata == name)
            rounds = -(-len(share) // len(members))
            turns = np.concatenate([random.permutation(members) for _ in range(rounds)])
            drawn.append(turns[: len(share)])
        order = random.permutation(np.concatenate(drawn))
        return iter([(self.epoch, int(index)) for index in order])


def strata_of(samples: Sequence[Sample], sampling: Literal["plain", "groups"]) -> list[str]:
    """What each sample is drawn as: its group (or its truth, if it has none), or all alike."""
    if sampling == "plain":
        return [""] * len(samples)
    return [sample.group or sample.truth for sample in samples]


def epoch_batches(
    images: NDArray[np.uint8],
    targets: NDArray[np.float32],
    strata: Sequence[str],
    config: TrainConfig,
    epoch: int,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The augmented training batches of one epoch: inputs (B, 1, S, S), targets (B,)."""
    side_px = config.stage_of(epoch).side_px
    augmenter = Augmenter(config.augmentation, side_px)
    return DataLoader(
        AugmentedInputs(images, targets, config, side_px, augmenter),
        batch_size=config.batch_size,
        sampler=EpochSampler(strata, config.seed, epoch),
        num_workers=config.workers,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
    )
