"""A network on its way: what a step does to it.

Does not: choose or change pictures (``sampling``, ``augmentation``), judge, or touch a disk
(``training`` does).
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from chestxray.errors import ConfigError
from chestxray.learning.augmentation import Batch
from chestxray.learning.evidence_loss import evidence_loss
from chestxray.learning.networks import Network, NetworkOutput
from chestxray.learning.processes import ALONE, Processes
from chestxray.learning.strata_alike import StratumMeans

if TYPE_CHECKING:
    from chestxray.learning.config import Stage, TrainConfig


class Learner:
    """A network on its way: optimiser, learning-rate schedule and the EMA of the weights."""

    def __init__(
        self,
        network: Network,
        config: TrainConfig,
        *,
        steps_per_epoch: int,
        n_strata: int = 1,
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
        self._strata = StratumMeans(n_strata, processes)
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

    def step(self, batch: Batch, targets: Tensor, epoch: int, step: int) -> Tensor:
        """Learn from one batch, or this process's share of it, and return its loss on the device.

        ``targets`` (B,) are the probabilities to be learned. The mean over processes is the loss
        of the whole batch.
        """
        config = self.config
        self.learning_rate = config.learning_rate * self._schedule(epoch, step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate
        inputs = (batch.pixels - config.mean) / config.std
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(
            inputs.device.type, torch.bfloat16, enabled=_uses_bf16(config, inputs.device)
        ):
            answer = self._forward(inputs)
        logit, evidence = answer.logit.float(), answer.evidence.float()
        loss = functional.binary_cross_entropy_with_logits(logit, targets)
        loss = loss + evidence_loss(evidence, batch, config.evidence)
        if config.strata_alike > 0:
            loss = loss + config.strata_alike * self._strata.loss(logit, batch)
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
            "strata": self._strata.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.n_updates = state["n_updates"]
        self._strata.load_state(state["strata"])


def _uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """``auto`` is bf16 where the device computes it natively; emulated, it is 15 times slower."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
