"""From samples to batches: images decoded once, augmented reproducibly, normalised as in serving.

Images are decoded and resized as in serving and are kept as 8-bit grey levels, which is exact for
8-bit files of the network's size and within half a grey level for any other. Every augmented image
is a function of (seed, epoch, index), so that workers, threads, interruptions and the number of
processes that train together change nothing.

Does not: drop files that cannot be read (that is an error here: training data should be whole).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from chestxray import imaging
from chestxray.assessment import Choices, Policy
from chestxray.assessment.decoding import read_file
from chestxray.dataset import Sample
from chestxray.errors import ChestXrayError, DatasetError
from chestxray.inference.bundle import Preprocessing
from chestxray.learning.augmentation import Augmenter
from chestxray.learning.config import TrainConfig
from chestxray.learning.processes import ALONE, Processes

PREFETCHED_BATCHES = 4
"""How many a worker makes ahead of the training."""


def decode(samples: Sequence[Sample], config: TrainConfig) -> NDArray[np.uint8]:
    """Decode and stretch all samples once, as (N, side_px, side_px) uint8.

    Raises:
        DatasetError: a file cannot be read as a radiograph, or is none that ``config`` says the
            data hold; the message names it. An age is no reason.
    """
    policy = Policy("balanced", Choices(population="warn"), config.population)
    shrink_to_px = Preprocessing.enough_px(config.side_px)

    def grey_levels(sample: Sample) -> NDArray[np.uint8]:
        try:
            pixels = read_file(sample.file, policy, shrink_to_px).pixels
        except ChestXrayError as exc:
            raise DatasetError(f"{sample.path}: {exc}") from exc
        return to_grey_levels(imaging.resize(pixels, config.side_px))

    with ThreadPoolExecutor(config.threads) as pool:
        return np.stack(list(pool.map(grey_levels, samples)))


def to_grey_levels(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels in [0, 1] → the nearest of 256 grey levels."""
    return np.rint(pixels * 255).astype(np.uint8)


def to_pixels(grey_levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """256 grey levels → pixels in [0, 1], exactly as ``imaging`` reads an 8-bit file."""
    return grey_levels.astype(np.float32) / np.float32(255)


def targets_of(samples: Sequence[Sample]) -> NDArray[np.float32]:
    """1 for the positive, 0 for the negative, (N,) float32."""
    return np.array([s.positive for s in samples], dtype=np.float32)


def data_sha256(samples: Sequence[Sample]) -> str:
    """One SHA-256 for a data set: of the paths and the files of its samples, in any order."""
    listed = sorted(f"{sample.sha256}  {sample.path}" for sample in samples)
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def smoothed(targets: Tensor, label_smoothing: float) -> Tensor:
    """Targets moved towards a half, by a share of ``label_smoothing``."""
    return targets * (1 - label_smoothing) + label_smoothing / 2


Teach = Callable[[NDArray[np.uint8]], float]
"""Grey levels (H, W), augmented → the probability of the finding that teachers give them."""


class AugmentedInputs(Dataset[tuple[Tensor, Tensor]]):
    """``[(epoch, index)]`` → the augmented input (1, S, S) float32 and its target.

    ``augmenter`` None gives the input that serving would compute. With teachers the target is the
    smoothed truth and, by a share of ``teacher_weight``, what they say of the very picture that
    becomes the input; without them it is the truth, which the loss smooths after mixup.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.float32],
        config: TrainConfig,
        side_px: int,
        augmenter: Augmenter | None,
        teach: Teach | None = None,
    ) -> None:
        self.images, self.targets, self.teach = images, targets, teach
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
        target = torch.tensor(self.targets[index])
        if self.teach is not None:
            share = self.config.teacher_weight
            truth = smoothed(target, self.config.label_smoothing)
            target = (1 - share) * truth + share * self.teach(image)
        return torch.from_numpy(array), target


class StagedInputs(Dataset[tuple[Tensor, Tensor]]):
    """``[(epoch, index)]`` → as :class:`AugmentedInputs`, of the size of the epoch's stage."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.float32],
        config: TrainConfig,
        teach: Teach | None,
    ) -> None:
        self.config = config
        self._of_side = {
            side_px: AugmentedInputs(
                images, targets, config, side_px, Augmenter(config.augmentation, side_px), teach
            )
            for side_px in {stage.side_px for stage in config.stages}
        }

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return self._of_side[self.config.stage_of(key[0]).side_px][key]


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


class SharedBatches(Sampler[list[tuple[int, int]]]):
    """The batches of some epochs, one after the other, and of each the share of one process.

    A batch is the same whatever the number of processes; each takes every ``processes.world``-th
    image of it, from the ``processes.rank``-th on. An epoch's incomplete last batch is left out.
    """

    def __init__(
        self, strata: Sequence[str], config: TrainConfig, epochs: range, processes: Processes
    ) -> None:
        self.strata, self.config, self.epochs, self.processes = strata, config, epochs, processes

    def __len__(self) -> int:
        return len(self.epochs) * (len(self.strata) // self.config.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.config.batch_size
        for epoch in self.epochs:
            order = list(EpochSampler(self.strata, self.config.seed, epoch))
            for end in range(size, len(order) + 1, size):
                batch = order[end - size : end]
                yield batch[self.processes.rank :: self.processes.world]


def training_batches(
    images: NDArray[np.uint8],
    targets: NDArray[np.float32],
    strata: Sequence[str],
    config: TrainConfig,
    epochs: range,
    *,
    processes: Processes = ALONE,
    teach: Teach | None = None,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The augmented training batches of ``epochs``, of each this process's share of b images:
    inputs (b, 1, S, S), targets (b,).

    All epochs from one loader, so that its workers start once and while one epoch is judged and
    written down already augment the next.
    """
    return DataLoader(
        StagedInputs(images, targets, config, teach),
        batch_sampler=SharedBatches(strata, config, epochs, processes),
        num_workers=config.workers,
        prefetch_factor=PREFETCHED_BATCHES if config.workers else None,
        pin_memory=torch.cuda.is_available(),
    )
