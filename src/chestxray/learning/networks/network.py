"""What every network here is: evidence per cell of the picture, and one logit pooled from it.

A linear layer is applied to every cell of the last feature map ``A``. What it says of a cell is the
``evidence``; the logit is the log of the mean of its exponentials, plus a bias. This log-sum-exp
pooling (Pinheiro and Collobert 2015, arXiv 1411.6228; of radiographs Wang et al. 2017, arXiv
1705.02315) lets one cell speak for all, while the mean would need all cells lifted for a finding
that fills one: softmax(evidence) is what each cell has to do with the logit.

The evidence equals Grad-CAM at the last feature map up to its ReLU and a constant factor (Selvaraju
et al. 2017, arXiv 1610.02391): the gradient of the logit with respect to channel k, averaged over
cells, is w_k / (H·W), since a softmax sums to one. No hooks, no backward pass.

Does not: say how a picture becomes a feature map (``resnet`` and ``vision_transformer`` do).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

LAYOUT_CELLS = 4
"""How many cells a side the features have."""
NEGATIVE_LOGIT = -3.0
"""The bias that training begins with: evidence of zero stands for a radiograph without the finding,
so that evidence need say only what is there."""
MIN_STD = 0.1
"""Least standard deviation that an input is divided by: an empty picture must not become noise."""


class NetworkOutput(NamedTuple):
    """What a network says of a batch of B inputs.

    ``logit`` (B,), ``evidence`` (B, H, W) with ``logit = log(mean(exp(evidence))) + bias``, and
    ``features`` (B, C · 16), an early feature map averaged over each of 4 × 4 cells, channel by
    channel: what is where in the picture, which the input check looks at.
    """

    logit: Tensor
    evidence: Tensor
    features: Tensor


def standardise(x: Tensor) -> Tensor:
    """Inputs (B, 1, S, S) → each with mean 0 and standard deviation 1.

    A grey level of a radiograph has no unit: exposure, detector and window decide it, and hospitals
    differ in them. So the network never sees brightness or contrast of the picture as a whole,
    which alone tell the truths apart in the published data far too well.
    """
    centred = x - x.mean((2, 3), keepdim=True)
    std = centred.square().mean((2, 3), keepdim=True).sqrt()
    return centred / std.clamp_min(MIN_STD)


class Network(nn.Module, ABC):
    """A feature map, and the head on it.

    ``forward`` takes inputs (B, 1, S, S) float32, normalised as the manifest says, and returns a
    :class:`NetworkOutput`. The head's linear layer is called ``fc`` in every network: export looks
    for its bias under that name.
    """

    fc: nn.Linear

    def _initialise_head(self) -> None:
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.constant_(self.fc.bias, NEGATIVE_LOGIT)

    @abstractmethod
    def feature_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, 1, S, S) → an early feature map, from before the network knows what to look
        for, and the last one (B, C, H, W), a column of it for every cell."""

    def head(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """The last feature map (B, C, H, W) → logit (B,) and evidence (B, H, W)."""
        weight = self.fc.weight[:, :, None, None]
        evidence = functional.conv2d(feature_map, weight)[:, 0]
        cells = evidence.flatten(1)
        logit = cells.logsumexp(1) - math.log(cells.shape[1]) + self.fc.bias
        return logit, evidence

    def forward(self, x: Tensor) -> NetworkOutput:
        early, last = self.feature_maps(x)
        return NetworkOutput(*self.head(last), _in_cells(early).flatten(1))


def _in_cells(feature_map: Tensor) -> Tensor:
    """(B, C, H, W) → (B, C, 4, 4), averaged; the exporter pools only where cells divide places."""
    size = [-(-n // LAYOUT_CELLS) * LAYOUT_CELLS for n in feature_map.shape[2:]]
    if size != list(feature_map.shape[2:]):
        feature_map = functional.interpolate(feature_map, size, mode="bilinear")
    return functional.adaptive_avg_pool2d(feature_map, LAYOUT_CELLS)
