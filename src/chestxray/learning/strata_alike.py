"""Asks that strata of one truth get the same logits on average.

Views, sources and groups of one truth differ in how clear the finding is, and in much that has
nothing to do with it; a network that tells them apart spends its logit on that, and no threshold
serves them all. So every picture is asked to move by as much as its stratum lies off from the
others of its truth.

Does not: make single pictures of a stratum alike, or know what a stratum is (``sampling`` does).
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn import functional

from chestxray.learning.augmentation import Batch
from chestxray.learning.processes import Processes

MEMORY = 0.95
"""Of the running means, a step in which the stratum was drawn."""


class StratumMeans:
    """The running mean logit of every stratum; all pictures of a stratum have one truth."""

    def __init__(self, n_strata: int, processes: Processes) -> None:
        self._processes = processes
        self.means = torch.zeros(n_strata, device=processes.device)
        self.positive = torch.full((n_strata,), -1.0, device=processes.device)  # -1: never drawn

    def loss(self, logit: Tensor, batch: Batch) -> Tensor:
        """The mean squared distance of strata from the mean of their truth's, as drawn."""
        self._update(logit.detach(), batch)
        same = (self.positive[None] == batch.targets[:, None]).float()
        wanted = same @ self.means / same.sum(1)
        off = self.means[batch.strata] - wanted
        return functional.mse_loss(logit, logit.detach() - off)

    def _update(self, logit: Tensor, batch: Batch) -> None:
        sums, counts, positives = (
            torch.zeros_like(self.means).index_add_(0, batch.strata, value)
            for value in (logit, torch.ones_like(logit), batch.targets)
        )
        if not self._processes.alone:
            for total in (sums, counts, positives):
                distributed.all_reduce(total)
        drawn, new = counts > 0, self.positive < 0
        means = sums / counts.clamp_min(1)
        memory = torch.where(new, 0.0, MEMORY)
        self.means = torch.where(drawn, torch.lerp(means, self.means, memory), self.means)
        self.positive = torch.where(drawn, (positives > 0).float(), self.positive)

    def state(self) -> dict[str, Tensor]:
        return {"means": self.means, "positive": self.positive}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.means, self.positive = (
            state[name].to(self.means.device) for name in ("means", "positive")
        )
