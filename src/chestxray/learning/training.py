"""The training loop, to be read from top to bottom.

A run is a folder: ``config.json``, ``split.json``, ``checkpoint.pt`` (after every epoch),
``metrics.jsonl``, ``tensorboard/``, ``curves.png`` and, once finished, ``weights.safetensors`` with
the EMA weights. A killed run that is called again goes on after its last whole epoch and ends
bit-equal to an undisturbed one (same machine, versions and threads), since everything random is a
function of (seed, epoch, index).

Several processes train as one: each takes its share of every batch (``inputs.SharedBatches``), and
DistributedDataParallel makes their gradients one. The curve is a single process's to rounding, but
for two things that see a process's own share alone: mixup, and the statistics of a BatchNorm that
is not frozen, of which the first process's are kept. The first process alone writes, speaks and
judges; all read the run's folder, which must be common to them.

Does not: choose a threshold or calibrate (``calibration``), write a bundle (``export``), or draw
progress bars (it tells a ``Progress`` how far it is), start processes (torchrun does).
"""

from __future__ import annotations

import copy
import gc
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
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
from chestxray.learning.config import Stage, TrainConfig
from chestxray.learning.curves import draw_curves
from chestxray.learning.initialise import (
    WEIGHTS_FILE,
    describe_weights,
    initialise,
    read_weights,
)
from chestxray.learning.inputs import (
    AugmentedInputs,
    decode,
    smoothed,
    strata_of,
    targets_of,
    training_batches,
)
from chestxray.learning.networks import NETWORKS, Network, NetworkOutput
from chestxray.learning.processes import ALONE, Processes
from chestxray.learning.teaching import read_teachers, require_unseen

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


def train(
    config: TrainConfig,
    samples: list[Sample],
    out: Path,
    *,
    init: Path | None = None,
    split: Split | None = None,
    processes: Processes = ALONE,
    progress: Progress = no_progress,
    say: Callable[[str], None] = print,
) -> Run:
    """Train as ``config`` says, into ``out``; called again, it resumes.

    ``split`` None holds out ``config.heldout`` of the subjects. Where several ``processes`` train
    together, each calls this with the same arguments and gets the same run; a run may go on with
    another number of them.

    Raises:
        RunMismatchError: ``out`` holds a run of another config, other data, weights or teachers.
        WeightsError: ``init`` does not fit the network.
        LeakError: the run ``init`` or a teacher was trained on subjects that this one holds out.
        BundleError: a teacher cannot be read.
        ConfigError: a teacher is of another finding.
    """
    if not processes.first:
        progress, say = no_progress, _say_nothing
    device = processes.device
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    split = split or split_heldout(samples, config.heldout, config.seed)
    teachers = read_teachers(config.teacher, config.finding)
    require_unseen(teachers, samples, split)
    learner = _learner(config, samples, split, init, processes, say)
    if processes.first:  # not before: what cannot start leaves no run behind
        _open_run(out, config, split, init, teachers.sha256s)
    processes.wait()
    history = _resume(out, learner)
    finished = len(history) == config.epochs and (out / WEIGHTS_FILE).is_file()
    processes.wait()  # until all have read what the first is going to change
    if finished:
        return read_run(out, samples)
    if history:
        say(f"resuming after epoch {len(history)} of {config.epochs}")

    images, targets = decode(split.train, config), targets_of(split.train)
    heldout_targets = targets_of(split.heldout)
    heldout_images = images[:0]
    if processes.first:
        heldout_images = decode(split.heldout, config)
    epochs, n_steps = range(len(history), config.epochs), learner.steps_per_epoch
    batches = iter(
        training_batches(
            images,
            targets,
            strata_of(split.train, config.sampling),
            config,
            epochs,
            processes=processes,
            teach=teachers.probability if config.teacher else None,
        )
    )
    with _tensorboard(out, processes) as log:
        for epoch in epochs:
            started = time.monotonic()
            learner.begin(epoch)
            # Summed where it is computed: reading it at every step would make the GPU wait.
            loss_sum = torch.zeros((), dtype=torch.float64, device=device)
            for step, (inputs, truths) in enumerate(islice(batches, n_steps)):
                loss_sum += learner.step(
                    inputs.to(device, non_blocking=True),
                    truths.to(device, non_blocking=True),
                    epoch,
                    step,
                )
                progress(f"epoch {epoch + 1}/{config.epochs}", step + 1, n_steps)
            train_loss = processes.mean(loss_sum) / n_steps
            if log is None:  # the first process judges and writes
                continue
            logits = network_logits(learner.ema, heldout_images, config, learner.side_px)
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
        processes=processes,
    )


def _say_nothing(message: str) -> None:
    """The ``say`` of every process but the first."""


class Learner:
    """A network on its way: optimiser, learning-rate schedule and the EMA of the weights."""

    def __init__(
        self,
        network: Network,
        config: TrainConfig,
        *,
        steps_per_epoch: int,
        processes: Processes = ALONE,
    ) -> None:
        if steps_per_epoch < 1:
            raise ConfigError("there are fewer training images than batch_size")
        if config.batch_size < processes.world:
            raise ConfigError(f"batch_size is less than the {processes.world} processes")
        self.network, self.config, self.steps_per_epoch = network, config, steps_per_epoch
        self.processes = processes
        self._stage: Stage | None = None
        self._forward: Callable[[Tensor], NetworkOutput] = network
        self.ema = copy.deepcopy(network).eval().requires_grad_(False)
        if config.compile:
            network.compile(dynamic=False)
        # Biases and BatchNorm's scales are not what overfits: no weight decay on them.
        decayed = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        averaged = list(
            zip(self.ema.state_dict().values(), network.state_dict().values(), strict=True)
        )
        self._averages = [pair for pair in averaged if pair[0].is_floating_point()]
        self._counts = [pair for pair in averaged if not pair[0].is_floating_point()]
        self.n_updates = 0
        self.learning_rate = 0.0
        self.side_px = config.side_px

    def begin(self, epoch: int) -> None:
        """Put the network into the state of the epoch's stage: what learns, and at what size."""
        stage = self.config.stage_of(epoch)
        self.side_px = stage.side_px
        self.network.train().requires_grad_(True)
        for name in stage.frozen:
            # eval() as well: a "frozen" BatchNorm whose statistics move is not frozen.
            self.network.get_submodule(name).eval().requires_grad_(False)
        if stage is not self._stage:
            self._stage = stage
            self._forward = self._joined()

    def _joined(self) -> Callable[[Tensor], NetworkOutput]:
        """The network such that its gradients become the mean over all processes."""
        if self.processes.alone:
            return self.network
        # Made anew for every stage, since it waits for the gradients of what learnt when it was
        # made. It also gives all the first one's BatchNorm statistics; within a stage each may keep
        # its own, which no one reads. The last one's hooks must have gone by then, and cycles hold
        # it.
        self._forward = self.network
        gc.collect()
        own = [self.processes.device] if self.processes.device.type == "cuda" else None
        return DistributedDataParallel(self.network, device_ids=own, forward_sync_buffers=False)

    def step(self, inputs: Tensor, targets: Tensor, epoch: int, step: int) -> Tensor:
        """Learn from one batch, or this process's share of it, and return its loss on the device.

        The mean over processes is the loss of the whole batch.
        """
        config = self.config
        self.learning_rate = config.learning_rate * self._schedule(epoch, step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate
        inputs, targets = mix_up(inputs, targets, config, epoch, step)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(
            inputs.device.type, torch.bfloat16, enabled=_uses_bf16(config, inputs.device)
        ):
            logit = self._forward(inputs).logit
        loss = self._loss(logit.float(), targets)
        if not self.processes.alone:  # uneven shares: an image counts the same in each of them
            loss = loss * (len(targets) * self.processes.world / config.batch_size)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self._average()
        return loss.detach()

    def _schedule(self, epoch: int, step: int) -> float:
        """Linear warm-up, then a cosine to zero over the whole run."""
        done = epoch + (step + 1) / self.steps_per_epoch
        if done < self.config.warmup_epochs:
            return done / self.config.warmup_epochs
        rest = self.config.epochs - self.config.warmup_epochs
        share = (done - self.config.warmup_epochs) / rest if rest > 0 else 1.0
        return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def _loss(self, logit: Tensor, targets: Tensor) -> Tensor:
        if not self.config.teacher:  # else the truth's part of the targets is smoothed already
            targets = smoothed(targets, self.config.label_smoothing)
        return functional.binary_cross_entropy_with_logits(logit, targets)

    @torch.no_grad()
    def _average(self) -> None:
        self.n_updates += 1
        # A short memory at first, or the random initial head would stay in the mean for long.
        decay = min(self.config.ema_decay, (1 + self.n_updates) / (10 + self.n_updates))
        means, values = map(list, zip(*self._averages, strict=True))
        torch._foreach_lerp_(means, values, 1 - decay)
        for mean, value in self._counts:
            mean.copy_(value)

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "n_updates": self.n_updates,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.n_updates = state["n_updates"]


def mix_up(
    inputs: Tensor, targets: Tensor, config: TrainConfig, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """Mix every input with another of its batch (Zhang et al. 2018, arXiv 1710.09412)."""
    if config.mixup_alpha == 0:
        return inputs, targets
    generator = np.random.default_rng((config.seed, epoch, step, 1))
    share = float(generator.beta(config.mixup_alpha, config.mixup_alpha))
    partner = torch.from_numpy(generator.permutation(len(inputs)))
    partner = partner.to(inputs.device, non_blocking=True)
    return (
        torch.lerp(inputs[partner], inputs, share),
        torch.lerp(targets[partner], targets, share),
    )


def _uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """``auto`` is bf16 where the device computes it natively; emulated, it is 15 times slower."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@torch.no_grad()
def network_logits(
    network: Network, images: NDArray[np.uint8], config: TrainConfig, side_px: int
) -> NDArray[np.float64]:
    """Logits (N,) of a network in eval mode for images (N, H, W), not augmented, in fp32."""
    network.eval()
    device = next(network.parameters()).device
    inputs = AugmentedInputs(images, np.zeros(len(images), np.float32), config, side_px, None)
    logits = []
    for start in range(0, len(images), 64):
        batch = [inputs[0, i][0] for i in range(start, min(start + 64, len(images)))]
        x = torch.stack(batch).to(device, memory_format=torch.channels_last)
        logits.append(network(x).logit.double())
    return torch.cat(logits).cpu().numpy()


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
    out: Path, config: TrainConfig, split: Split, init: Path | None, teachers: tuple[str, ...]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    told = {
        "config": config.model_dump(mode="json"),
        "initialised_from": describe_weights(init) if init else "random",
        "teachers": list(teachers),
    }
    file = out / "config.json"
    if file.is_file():
        known = {"teachers": []} | json.loads(file.read_text(encoding="utf-8"))
        # A run of an earlier version lacks keys that have come since; it had their defaults.
        known["config"] = TrainConfig.model_validate(known["config"]).model_dump(mode="json")
        if known | {"teachers": told["teachers"]} == told != known:
            raise RunMismatchError(f"{out} holds a run of other teachers; choose another --out")
        if known != told:
            raise RunMismatchError(f"{out} holds a run of another config; choose another --out")
        known = read_split(out / "split.json", [*split.train, *split.heldout])
        if known != split:
            raise RunMismatchError(f"{out} holds a run with another split; choose another --out")
        return
    write_split(split, out / "split.json")
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
    return Run(
        folder=folder,
        config=config,
        split=read_split(folder / "split.json", samples),
        network=network.eval(),
        history=[json.loads(line) for line in lines],
        initialised_from=told["initialised_from"],
        teachers=tuple(told.get("teachers", ())),  # runs of earlier versions had none
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
