"""The training loop, to be read from top to bottom.

A run is a folder: ``config.json``, ``split.json``, ``left_out.json`` (files that could not be read,
if there were any, and why), ``checkpoint.pt`` (after every epoch),
``metrics.jsonl``, ``tensorboard/``, ``curves.png`` and, once finished, ``weights.safetensors`` with
the EMA weights. A killed run that is called again goes on after its last whole epoch and ends
bit-equal to an undisturbed one (same machine, versions and threads), since everything random is a
function of (seed, epoch, step).

Several processes train as one: each takes its share of every batch, and DistributedDataParallel
makes their gradients one. The curve is a single process's to rounding, but for the statistics of a
BatchNorm that is not frozen, which see a process's own share alone; the first process's are kept.
The first process alone writes, speaks and judges; all read the run's folder, which must be common
to them.

Does not: choose a threshold or calibrate (``calibration``), write a bundle (``export``), or draw
progress bars (it tells a ``Progress`` how far it is), start processes (torchrun does).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from chestxray.dataset import (
    Sample,
    Split,
    check_disjoint,
    read_split,
    split_heldout,
    write_split,
)
from chestxray.errors import ConfigError, DatasetError, RunMismatchError
from chestxray.evaluation.metrics import auroc
from chestxray.learning.augmentation import Augmenter, Batch
from chestxray.learning.config import TrainConfig
from chestxray.learning.curves import draw_curves
from chestxray.learning.draws import Draws
from chestxray.learning.initialise import (
    WEIGHTS_FILE,
    describe_weights,
    initialise,
    read_weights,
)
from chestxray.learning.inputs import (
    NOWHERE,
    Where,
    decode,
    inputs_of,
    read_pictures,
    readable_split,
    reasons,
    targets_of,
)
from chestxray.learning.learner import Learner
from chestxray.learning.networks import NETWORKS, Network
from chestxray.learning.pictures import Levels
from chestxray.learning.processes import ALONE, Processes
from chestxray.learning.sampling import Sampler, strata_of
from chestxray.learning.teaching import Teachers, read_teachers, require_unseen

LEFT_OUT_FILE = "left_out.json"

Progress = Callable[[str, int, int], None]
"""Told (what, done, total) while a run goes on; what it does with it is its own affair."""


def no_progress(what: str, done: int, total: int) -> None:
    """The Progress of who does not want to know."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, as export needs it."""

    folder: Path
    config: TrainConfig
    split: Split
    network: Network
    history: list[dict[str, Any]]
    initialised_from: str
    teachers: tuple[str, ...] = ()
    """The SHA-256 of each teacher's bundle."""
    left_out: tuple[str, ...] = ()
    """``Sample.path`` of the files in ``split`` that could not be read."""


def train(
    config: TrainConfig,
    samples: list[Sample],
    out: Path,
    *,
    init: Path | None = None,
    split: Split | None = None,
    where: Where = NOWHERE,
    processes: Processes = ALONE,
    progress: Progress = no_progress,
    say: Callable[[str], None] = print,
) -> Run:
    """Train as ``config`` says, into ``out``; called again, it resumes.

    ``split`` None holds out ``config.heldout`` of the subjects. Files that cannot be read are left
    out, and listed, before it begins. ``where`` says what is known of lungs and boxes in the
    pictures. If several ``processes`` train together, each calls this with
    the same arguments and gets the same run; a run may go on with another number of them.

    Raises:
        RunMismatchError: ``out`` holds a run of another config, other data, weights or teachers.
        WeightsError: ``init`` does not fit the network.
        LeakError: the run ``init`` or a teacher was trained on subjects that this one holds out.
        BundleError: a teacher cannot be read.
        ConfigError: a teacher is of another finding.
        DatasetError: a side of the split has no readable file of one of the truths.
    """
    if not processes.first:
        progress, say = no_progress, _say_nothing
    device = processes.device
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    split = split or split_heldout(samples, config.heldout, config.seed, config.heldout_of)
    teachers = read_teachers(config.teacher, config.finding)
    require_unseen(teachers, samples, split)
    used, left_out = readable_split(split, config)
    if left_out:
        say(f"left out of {len(samples):,} files, as they cannot be read: {reasons(left_out)}")
    learner = _learner(config, samples, used, init, processes, say)
    if processes.first:  # not before: what cannot start leaves no run behind
        _open_run(out, config, split, left_out, init, teachers.sha256s, where)
    processes.wait()
    history = _resume(out, learner)
    finished = len(history) == config.epochs and (out / WEIGHTS_FILE).is_file()
    processes.wait()  # until all have read what the first is going to change
    if finished:
        return read_run(out, samples)
    if history:
        say(f"resuming after epoch {len(history)} of {config.epochs}")

    heldout = [sample for sample in used.heldout if sample.source not in config.lungs_only]
    heldout_targets = targets_of(heldout)
    heldout_levels = decode(heldout if processes.first else [], config)
    augmenter = Augmenter(read_pictures(used.train, config, device, where), config.augmentation)
    sampler, n_steps = Sampler(used.train, config), learner.steps_per_epoch
    with _tensorboard(out, processes) as log:
        for epoch in range(len(history), config.epochs):
            started = time.monotonic()
            learner.begin(epoch)
            batches = _batches(epoch, learner, augmenter, sampler)
            # Summed where it is computed: reading it at every step would make the GPU wait.
            loss_sum = torch.zeros((), dtype=torch.float64, device=device)
            for step, batch in enumerate(batches):
                loss_sum += learner.step(batch, _targets(batch, teachers, config), epoch, step)
                progress(f"epoch {epoch + 1}/{config.epochs}", step + 1, n_steps)
            train_loss = processes.mean(loss_sum) / n_steps
            if log is None:  # the first process judges and writes
                continue
            logits = network_logits(learner.ema, heldout_levels, config, learner.side_px)
            row = {
                "epoch": epoch + 1,
                "side_px": learner.side_px,
                "learning_rate": learner.learning_rate,
                "train_loss": train_loss,
                "heldout_loss": _binary_cross_entropy(logits, heldout_targets),
                "heldout_auroc": float(auroc(heldout_targets > 0.5, logits)),
                "wall_s": round(time.monotonic() - started, 1),
                "images_per_s": round(n_steps * config.batch_size / (time.monotonic() - started)),
            }
            history.append(row)
            _record(out, log, history)
            _write_checkpoint(out, learner, history)
            draw_curves(history, out / "curves.png")
            say(
                f"epoch {row['epoch']}/{config.epochs} at {row['side_px']} px: train loss "
                f"{row['train_loss']:.4f}, held-out loss {row['heldout_loss']:.4f}, "
                f"AUROC {row['heldout_auroc']:.4f}, {row['wall_s']:.0f} s"
            )
    if processes.first:
        temporary = out / ".weights.tmp"
        save_file(_contiguous(learner.ema.state_dict()), temporary)
        temporary.replace(out / WEIGHTS_FILE)
    processes.wait()
    return read_run(out, samples)


def _learner(
    config: TrainConfig,
    samples: list[Sample],
    split: Split,
    init: Path | None,
    processes: Processes,
    say: Callable[[str], None],
) -> Learner:
    """A learner that has not learnt yet."""
    network = NETWORKS[config.network]()
    if init is not None:
        _require_unseen(init, samples, split.heldout)
        say(f"{init.name}: {initialise(network, read_weights(init))}")
    network = network.to(processes.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub
    _require_children(network, config)
    return Learner(
        network,
        config,
        steps_per_epoch=len(split.train) // config.batch_size,
        n_strata=len(set(strata_of(split.train, config))),
        processes=processes,
    )


def _say_nothing(message: str) -> None:
    """The ``say`` of every process but the first."""


def _batches(
    epoch: int, learner: Learner, augmenter: Augmenter, sampler: Sampler
) -> Iterator[Batch]:
    """This process's share of every batch of an epoch; what is left over at its end is not used."""
    config, processes = learner.config, learner.processes
    order = torch.from_numpy(sampler.order(epoch)).to(processes.device)
    rows = torch.arange(processes.rank, config.batch_size, processes.world, device=processes.device)
    for step in range(learner.steps_per_epoch):
        draws = Draws((config.seed, epoch, step), config.batch_size, processes.device, rows)
        yield augmenter(order[step * config.batch_size + rows], draws, learner.side_px)


def _targets(batch: Batch, teachers: Teachers, config: TrainConfig) -> Tensor:
    """The smoothed truth and, by a share of ``teacher_weight``, what teachers say of the very
    pictures that the network is shown."""
    truth = batch.targets * (1 - config.label_smoothing) + config.label_smoothing / 2
    if not config.teacher:
        return truth
    return torch.lerp(truth, teachers.probability(batch.pixels), config.teacher_weight)


@torch.no_grad()
def network_logits(
    network: Network, levels: Levels, config: TrainConfig, side_px: int
) -> NDArray[np.float64]:
    """Logits (N,) of a network in eval mode for pictures (N, H, W), not augmented, in fp32."""
    network.eval()
    device = next(network.parameters()).device
    logits = [torch.zeros(0, dtype=torch.float64)]
    for start in range(0, len(levels), 64):
        inputs = torch.from_numpy(inputs_of(levels[start : start + 64], config, side_px))
        x = inputs.to(device, memory_format=torch.channels_last)
        logits.append(network(x).logit.double().cpu())
    return torch.cat(logits).numpy()


def _binary_cross_entropy(logits: NDArray[np.float64], targets: NDArray[np.float32]) -> float:
    return float(np.mean(np.logaddexp(0, logits) - targets * logits))


def _require_unseen(init: Path, samples: list[Sample], heldout: list[Sample]) -> None:
    """What a network saw in an earlier run, it has seen: those subjects judge nothing any more."""
    listed = init / "split.json"
    if not listed.is_file():  # a file of weights does not say what it was trained on
        return
    try:
        seen = read_split(listed, samples).train
    except DatasetError:  # a run on other data
        return
    check_disjoint(seen, heldout)


def _require_children(network: nn.Module, config: TrainConfig) -> None:
    known = {name for name, _ in network.named_modules() if name}
    for stage in config.stages:
        for name in stage.frozen:
            if name not in known:
                raise ConfigError(f"stages.frozen: the network has no part {name!r}")


# The folder of a run.


def _open_run(
    out: Path,
    config: TrainConfig,
    split: Split,
    left_out: dict[str, str],
    init: Path | None,
    teachers: tuple[str, ...],
    where: Where,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    told = {
        "config": config.model_dump(mode="json"),
        "initialised_from": describe_weights(init) if init else "random",
        "teachers": list(teachers),
        "where_sha256": where.sha256,
    }
    file = out / "config.json"
    if file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known | {"teachers": told["teachers"]} == told != known:
            raise RunMismatchError(f"{out} holds a run of other teachers; choose another --out")
        if known != told:
            raise RunMismatchError(f"{out} holds a run of another config; choose another --out")
        known = read_split(out / "split.json", [*split.train, *split.heldout])
        if known != split:
            raise RunMismatchError(f"{out} holds a run with another split; choose another --out")
        return
    write_split(split, out / "split.json")
    if left_out:
        listed = json.dumps(left_out, indent=1)
        (out / LEFT_OUT_FILE).write_text(listed + "\n", encoding="utf-8")
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_run_config(folder: Path) -> TrainConfig:
    """What a run was told; raises ConfigError where there is no run in ``folder``."""
    return TrainConfig.model_validate(_told(folder)["config"])


def _told(folder: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"there is no run in {folder}") from exc
    return told


def read_run(folder: Path, samples: list[Sample]) -> Run:
    """Read a finished run.

    Raises:
        ConfigError: there is no run in ``folder``.
        WeightsError: the run is not finished.
        DatasetError: ``samples`` are not the ones that it was trained on.
    """
    told, config = _told(folder), read_run_config(folder)
    network = NETWORKS[config.network]()
    network.load_state_dict(read_weights(folder))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    left_out = folder / LEFT_OUT_FILE
    return Run(
        folder=folder,
        config=config,
        split=read_split(folder / "split.json", samples),
        network=network.eval(),
        history=[json.loads(line) for line in lines],
        initialised_from=told["initialised_from"],
        teachers=tuple(told.get("teachers", ())),  # runs of earlier versions had none
        left_out=tuple(json.loads(left_out.read_text("utf-8"))) if left_out.is_file() else (),
    )


def _write_checkpoint(out: Path, learner: Learner, history: list[dict[str, Any]]) -> None:
    temporary = out / ".checkpoint.tmp"
    torch.save({"learner": learner.state(), "history": history}, temporary)
    temporary.replace(out / "checkpoint.pt")


def _resume(out: Path, learner: Learner) -> list[dict[str, Any]]:
    if not (out / "config.json").is_file():
        raise ConfigError(f"{out} must be one folder for all processes; this one sees no run there")
    checkpoint = out / "checkpoint.pt"
    if not checkpoint.is_file():
        return []
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    learner.load_state(state["learner"])
    history: list[dict[str, Any]] = state["history"]
    return history


def _record(out: Path, log: SummaryWriter, history: list[dict[str, Any]]) -> None:
    # Written whole: what a killed run wrote beyond its last checkpoint is gone with it.
    temporary = out / ".metrics.tmp"
    temporary.write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")
    temporary.replace(out / "metrics.jsonl")
    row = history[-1]
    for name in ("learning_rate", "train_loss", "heldout_loss", "heldout_auroc"):
        log.add_scalar(name, row[name], row["epoch"])


@contextmanager
def _tensorboard(out: Path, processes: Processes) -> Iterator[SummaryWriter | None]:
    """Where the first process writes; None for the others."""
    if not processes.first:
        yield None
        return
    writer = SummaryWriter(str(out / "tensorboard"))
    try:
        yield writer
    finally:
        writer.close()


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
