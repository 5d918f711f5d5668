"""What a step of the shipped recipe takes, at 128 px, and the augmentation that feeds it.

    .venv/bin/python benchmarks/training.py

The learning room's own functions under ``configs/resnet18.toml``, on synthetic radiographs. A step
is forward, backward, AdamW and the mean of the weights, on all cores.

By itself, and not in ``bench.py``, it also compares, on a GPU where there is one: the whole loop,
augmentation in, with bare steps on one batch; and two processes that train together with one, the
cores being dealt out among them.

Does not: learn anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from itertools import count

import numpy as np
import page as pages
import torch
from machine import CORES, REPOSITORY
from measurement import Row, in_turns, median_of
from radiographs import Radiographs
from table import run

from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.learning.augmentation import Augmenter, Batch
from chestxray.learning.config import Stage, TrainConfig, read_config
from chestxray.learning.draws import Draws
from chestxray.learning.inputs import to_grey_levels
from chestxray.learning.learner import Learner
from chestxray.learning.networks import NETWORKS
from chestxray.learning.pictures import Pictures, bare_pictures, kept_px
from chestxray.learning.processes import ALONE, Processes, together

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
    augmented = _Augmentation(recipe)
    cases: dict[str, Callable[[], object]] = {
        "augment": augmented,
        "step, all layers learn": _Steps(_learner(_at(recipe), ALONE), augmented),
        "step, conv1 to layer1 frozen": _Steps(
            _learner(_at(recipe, FIRST_LAYERS), ALONE), augmented
        ),
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
    n_steps = STEPS_AHEAD if device.type == "cuda" else 1
    augmented = _Augmentation(recipe)
    bare, fed = (_learner(_at(recipe), ALONE) for _ in range(2))

    def several(step: Callable[[], object]) -> None:
        for _ in range(n_steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    again, anew = _Steps(bare, augmented), _Steps(fed, augmented, anew=True)
    cases = {"step, one batch": lambda: several(again), "whole loop": lambda: several(anew)}
    laps = in_turns(cases, rounds=rounds, seconds=seconds)
    torch.set_num_threads(threads)
    on, each = f"{_on(recipe)}, {device.type}", n_steps * recipe.batch_size
    steps_row, loop_row = (laps[case].row("training", case, on, each=each) for case in cases)
    note = f"{loop_row.per_s / steps_row.per_s:.2f} × the bare step"
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
        whole, share = _Augmentation(recipe)(), slice(processes.rank, None, processes.world)
        parts = ((field.name, getattr(whole, field.name)) for field in fields(whole))
        batch = Batch(**{name: part[share].to(processes.device) for name, part in parts})

        def took_s(n_steps: int) -> float:
            started = time.perf_counter()
            loss = torch.zeros(())
            for _ in range(n_steps):
                loss = learner.step(batch, batch.targets, 0, 0)
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


def _pictures(recipe: TrainConfig) -> Pictures:
    """Of both truths, and a fifth larger than the network's input, as a run has them."""
    side_px, n = kept_px(SIDE_PX), 2 * recipe.batch_size
    levels = np.stack([to_grey_levels(synthetic_radiograph(s, side_px)) for s in range(n)])
    pictures = replace(bare_pictures(levels), targets=torch.arange(n) % 2.0)
    parts = ((field.name, getattr(pictures, field.name)) for field in fields(pictures))
    return Pictures(**{name: part.to(ALONE.device) for name, part in parts})


def _at(recipe: TrainConfig, frozen: tuple[str, ...] = ()) -> TrainConfig:
    """The recipe with one stage at SIDE_PX, without end."""
    stage = Stage(epochs=1_000_000, side_px=SIDE_PX, frozen=frozen)
    return recipe.model_copy(update={"stages": (stage,)})


class _Augmentation:
    """Another batch at every call."""

    def __init__(self, recipe: TrainConfig) -> None:
        self._augmenter = Augmenter(_pictures(recipe), recipe.augmentation)
        self._n, self._steps = recipe.batch_size, count()

    def __call__(self) -> Batch:
        draws = Draws((0, 0, next(self._steps)), self._n, ALONE.device)
        return self._augmenter(torch.arange(self._n, device=ALONE.device), draws, SIDE_PX)


class _Steps:
    """A step at every call, on the same batch or ``anew`` on another."""

    def __init__(self, learner: Learner, augmented: _Augmentation, *, anew: bool = False) -> None:
        self._learner, self._augmented, self._anew = learner, augmented, anew
        self._batch, self._steps = augmented(), count()

    def __call__(self) -> None:
        batch = self._augmented() if self._anew else self._batch
        self._learner.step(batch, batch.targets, 0, next(self._steps))


def _learner(config: TrainConfig, processes: Processes) -> Learner:
    network = NETWORKS[config.network]().to(processes.device)
    network.to(memory_format=torch.channels_last)
    learner = Learner(network, config, steps_per_epoch=1000, processes=processes)
    learner.begin(0)
    return learner


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
