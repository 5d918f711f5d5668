"""What a step of the shipped recipe takes, at 128 px, and the augmentation that feeds it.

    .venv/bin/python benchmarks/training.py

The learning room's own functions under ``configs/resnet18.toml``, on synthetic radiographs. A step
is forward, backward, AdamW and the mean of the weights, on all cores.

By itself, and not in ``bench.py``, it also compares, on a GPU where there is one: the whole loop,
augmentation and loading in, with bare steps on a batch that lies on the device; and two processes
that train together with one, the cores being dealt out among them.

Does not: learn anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count

import numpy as np
import page as pages
import torch
from machine import CORES, REPOSITORY
from measurement import Row, in_turns, median_of
from radiographs import Radiographs
from table import run

from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.learning.config import Stage, TrainConfig, read_config
from chestxray.learning.inputs import to_grey_levels, training_batches
from chestxray.learning.networks import NETWORKS
from chestxray.learning.processes import ALONE, Processes, together
from chestxray.learning.training import Learner

REPORT = REPOSITORY / "docs" / "reports" / "training.json"
SECONDS = 4.0
"""For each case in a round."""

SIDE_PX = 128
FIRST_LAYERS = ("conv1", "bn1", "layer1")
STEPS_AHEAD = 20
"""Steps that a GPU is given before it is waited for."""
WORKER = "--worker"
"""Before the seconds: this process is one of those that torchrun started."""


def measure(_: Sequence[Radiographs], *, rounds: int, seconds: float) -> list[Row]:
    """A row for augmentation, and one for a step of each of the recipe's stages."""
    recipe = _recipe()
    threads = torch.get_num_threads()
    torch.set_num_threads(CORES)
    images = _images(recipe)
    cases: dict[str, Callable[[], object]] = {
        "augment, one core": _augmentation(_at(recipe), images),
        "step, all layers learn": _steps(_at(recipe), images),
        "step, conv1 to layer1 frozen": _steps(_at(recipe, FIRST_LAYERS), images),
    }
    laps = in_turns(cases, rounds=rounds, seconds=seconds)
    torch.set_num_threads(threads)
    on = _on(recipe)
    return [laps[case].row("training", case, on, each=recipe.batch_size) for case in cases]


def whole_loop(*, rounds: int, seconds: float) -> list[Row]:
    """A row for bare steps on the device, and one for the loop, as a share of them."""
    recipe, device = _recipe(), ALONE.device
    threads = torch.get_num_threads()
    torch.set_num_threads(CORES)
    config = _at(recipe, workers=CORES if device.type == "cuda" else recipe.workers)
    n_steps = STEPS_AHEAD if device.type == "cuda" else 1
    batches = _batches(config, _images(recipe))
    one = [part.to(device) for part in next(batches)]
    bare, fed = (_learner(config, ALONE) for _ in range(2))

    def steps(learner: Learner, batches: Iterator[list[torch.Tensor]]) -> None:
        for _ in range(n_steps):
            inputs, truths = (part.to(device, non_blocking=True) for part in next(batches))
            learner.step(inputs, truths, 0, 0)
        if device.type == "cuda":
            torch.cuda.synchronize()

    cases = {
        "step, batch on the device": lambda: steps(bare, iter([one] * n_steps)),
        "whole loop": lambda: steps(fed, batches),
    }
    laps = in_turns(cases, rounds=rounds, seconds=seconds)
    torch.set_num_threads(threads)
    on, each = f"{_on(recipe)}, {device.type}", n_steps * recipe.batch_size
    steps_row, loop_row = (laps[case].row("training", case, on, each=each) for case in cases)
    note = f"{loop_row.per_s / steps_row.per_s:.2f} × the bare step; workers: {config.workers}"
    return [steps_row, replace(loop_row, note=note)]


def processes_together(*, rounds: int, seconds: float) -> list[Row]:
    """A row for one process on all cores, and one for two that share them, as a share of it."""
    if torch.cuda.device_count() == 1:
        return []  # each process needs a GPU of its own
    found: dict[int, list[Row]] = {1: [], 2: []}
    for _ in range(rounds):
        for world, rows in found.items():
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(world), __file__, WORKER, str(seconds)]
            told = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(Row(**json.loads(told.stdout)))
    one, two = (median_of(rows) for rows in found.values())
    return [one, replace(two, note=f"{two.per_s / one.per_s:.2f} × one process")]


def _worker(seconds: float) -> None:
    """Take steps together for ``seconds``; the first process prints their row."""
    recipe = _recipe()
    with together() as processes:
        threads = max(1, CORES // processes.world)
        torch.set_num_threads(threads)
        learner = _learner(_at(recipe), processes)
        share = len(range(processes.rank, recipe.batch_size, processes.world))
        inputs = torch.randn(share, 1, SIDE_PX, SIDE_PX, device=processes.device)
        truths = (torch.arange(share) % 2).float().to(processes.device)

        def took_s(n_steps: int) -> float:
            started = time.perf_counter()
            loss = torch.zeros(())
            for _ in range(n_steps):
                loss = learner.step(inputs, truths, 0, 0)
            processes.mean(loss)  # when all have it, all have taken the steps
            return time.perf_counter() - started

        took_s(1)
        # As many for all, or one would wait for a step that the others do not take.
        n_steps = max(1, round(seconds / processes.mean(torch.tensor(took_s(1)))))
        wall_s = took_s(n_steps)
    if processes.first:
        n = n_steps * recipe.batch_size
        what = f"step, {processes.world} × {threads} threads, {processes.device.type}"
        print(
            json.dumps(
                {"benchmark": "training", "what": what, "on": _on(recipe), "n": n}
                | {"per_s": n / wall_s, "p50_ms": wall_s / n_steps * 1000}
            )
        )


def _recipe() -> TrainConfig:
    return read_config(REPOSITORY / "configs" / "resnet18.toml")


def _on(recipe: TrainConfig) -> str:
    return f"{recipe.batch_size} images of {SIDE_PX} px"


def _images(recipe: TrainConfig) -> np.ndarray:
    return np.stack(
        [to_grey_levels(synthetic_radiograph(seed)) for seed in range(2 * recipe.batch_size)]
    )


def _at(recipe: TrainConfig, frozen: tuple[str, ...] = (), workers: int = 0) -> TrainConfig:
    """The recipe with one stage at SIDE_PX, without end."""
    stage = Stage(epochs=1_000_000, side_px=SIDE_PX, frozen=frozen)
    return recipe.model_copy(update={"stages": (stage,), "workers": workers})


def _batches(config: TrainConfig, images: np.ndarray) -> Iterator[list[torch.Tensor]]:
    """Batches without end; the targets do not matter."""
    targets = np.arange(len(images), dtype=np.float32) % 2
    strata = [""] * len(images)
    return iter(training_batches(images, targets, strata, config, range(config.epochs)))


def _learner(config: TrainConfig, processes: Processes) -> Learner:
    network = NETWORKS[config.network]().to(processes.device)
    network.to(memory_format=torch.channels_last)
    learner = Learner(network, config, steps_per_epoch=1000, processes=processes)
    learner.begin(0)
    return learner


def _augmentation(config: TrainConfig, images: np.ndarray) -> Callable[[], object]:
    batches = _batches(config, images)
    return lambda: next(batches)


def _steps(config: TrainConfig, images: np.ndarray) -> Callable[[], object]:
    learner = _learner(config, ALONE)
    inputs, truths = (part.to(ALONE.device) for part in next(_batches(config, images)))
    steps = count()
    return lambda: learner.step(inputs, truths, 0, next(steps))


def _measure_all(files: Sequence[Radiographs], *, rounds: int, seconds: float) -> list[Row]:
    return [
        *measure(files, rounds=rounds, seconds=seconds),
        *whole_loop(rounds=rounds, seconds=seconds),
        *processes_together(rounds=rounds, seconds=seconds),
    ]


if __name__ == "__main__":
    if WORKER in sys.argv:
        _worker(float(sys.argv[-1]))
    else:
        from reliability import write_section  # not for those that torchrun started

        begun = time.monotonic()
        measured = [asdict(row) for row in run(_measure_all, __doc__, seconds=SECONDS)]
        write_section(REPORT, "training", {"rows": measured}, took_s=time.monotonic() - begun)
        pages.write()
