"""What a step of the shipped recipe takes, at 128 px, and the augmentation that feeds it.

    .venv/bin/python benchmarks/training.py

The learning room's own functions under ``configs/resnet18.toml``, on synthetic radiographs. A step
is forward, backward, AdamW and the mean of the weights, on all cores.

Does not: learn anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
import torch
from machine import CORES, REPOSITORY
from measurement import Row, in_turns
from radiographs import Radiographs
from table import run

from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.learning.config import Stage, TrainConfig, read_config
from chestxray.learning.inputs import epoch_batches, to_grey_levels
from chestxray.learning.networks import NETWORKS
from chestxray.learning.training import Learner

SECONDS = 4.0
"""For each case in a round."""

SIDE_PX = 128
FIRST_LAYERS = ("conv1", "bn1", "layer1")


def measure(_: Sequence[Radiographs], *, rounds: int, seconds: float) -> list[Row]:
    """A row for augmentation, and one for a step of each of the recipe's stages."""
    recipe = read_config(REPOSITORY / "configs" / "resnet18.toml")
    threads = torch.get_num_threads()
    torch.set_num_threads(CORES)
    images = np.stack(
        [to_grey_levels(synthetic_radiograph(seed)) for seed in range(2 * recipe.batch_size)]
    )
    cases: dict[str, Callable[[], object]] = {
        "augment, one core": _augmentation(_at(recipe), images),
        "step, all layers learn": _steps(_at(recipe), images),
        "step, conv1 to layer1 frozen": _steps(_at(recipe, FIRST_LAYERS), images),
    }
    laps = in_turns(cases, rounds=rounds, seconds=seconds)
    torch.set_num_threads(threads)
    on = f"{recipe.batch_size} images of {SIDE_PX} px"
    return [laps[case].row("training", case, on, each=recipe.batch_size) for case in cases]


def _at(recipe: TrainConfig, frozen: tuple[str, ...] = ()) -> TrainConfig:
    """The recipe with one stage at SIDE_PX, augmenting in this process."""
    stage = Stage(epochs=1, side_px=SIDE_PX, frozen=frozen)
    return recipe.model_copy(update={"stages": (stage,), "workers": 0})


def _batches(config: TrainConfig, images: np.ndarray) -> object:
    """Batches without end; the targets do not matter."""
    targets = np.arange(len(images), dtype=np.float32) % 2
    while True:
        yield from epoch_batches(images, targets, [""] * len(images), config, epoch=0)


def _augmentation(config: TrainConfig, images: np.ndarray) -> Callable[[], object]:
    batches = _batches(config, images)
    return lambda: next(batches)


def _steps(config: TrainConfig, images: np.ndarray) -> Callable[[], object]:
    network = NETWORKS[config.network]()
    network.to(memory_format=torch.channels_last)
    learner = Learner(network, config, steps_per_epoch=1000)
    learner.begin(0)
    inputs, truths = next(_batches(config, images))
    steps = count()
    return lambda: learner.step(inputs, truths, 0, next(steps))


if __name__ == "__main__":
    run(measure, __doc__, seconds=SECONDS)
