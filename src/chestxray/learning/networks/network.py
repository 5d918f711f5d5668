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

NEGATIVE_LOGIT = -3.0
"""The bias that training begins with: evidence of zero stands for a radiograph without the finding,
so that evidence need say only what is there."""
MIN_STD = 0.1
"""Least standard deviation that an input is divided by: an empty picture must not become noise."""


class NetworkOutput(NamedTuple):
    """What a network says of a batch of B inputs.

    ``logit`` (B,), ``evidence`` (B, H, W) with ``logit = log(mean(exp(evidence))) + bias``, and
    ``features`` (B, C), the mean of the last feature map, which the input check looks at.
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
    def feature_map(self, x: Tensor) -> Tensor:
        """Inputs (B, 1, S, S) → last feature map (B, C, H, W), a column of it for every cell."""

    def head(self, feature_map: Tensor) -> NetworkOutput:
        """The last feature map (B, C, H, W) → logit, evidence and pooled features."""
        weight = self.fc.weight[:, :, None, None]
        evidence = functional.conv2d(feature_map, weight)[:, 0]
        cells = evidence.flatten(1)
        logit = cells.logsumexp(1) - math.log(cells.shape[1]) + self.fc.bias
        return NetworkOutput(logit, evidence, feature_map.mean((2, 3)))

    def forward(self, x: Tensor) -> NetworkOutput:
        return self.head(self.feature_map(x))
