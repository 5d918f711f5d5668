"""What every network here is: evidence per cell of the picture, and one logit that is its mean.

Global average pooling followed by one linear layer is linear in the last feature map ``A``, so the
linear layer can be applied to every cell first and averaged afterwards. The per-cell result is the
``evidence``; it equals Grad-CAM at the last feature map up to its ReLU and a constant factor
(Selvaraju et al. 2017, arXiv 1610.02391: the gradient of the logit with respect to channel k is
the constant w_k / (H·W)). No hooks, no backward pass.

What evidence of zero means is free, as long as the bias makes up for it. ``refer_to`` makes it "as
in a radiograph without the finding" for every cell.

Does not: say how a picture becomes a feature map (``resnet`` and ``vision_transformer`` do).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_STD = 0.1
"""Least standard deviation that an input is divided by: an empty picture must not become noise."""


class NetworkOutput(NamedTuple):
    """What a network says of a batch of B inputs.

    ``logit`` (B,), ``evidence`` (B, H, W) with ``logit = evidence.mean((1, 2)) + bias``, and
    ``features`` (B, C), the pooled last feature map that the input check looks at.
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
    reference: Tensor
    """What is subtracted from the evidence of every cell, (H, W), or () for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(()), persistent=False)

    def refer_to(self, reference: Tensor) -> None:
        """Give evidence relative to a map (H, W), such as that of negatives; logits stay."""
        with torch.no_grad():
            self.fc.bias.add_(reference.mean())
            self.reference = torch.add(self.reference, reference)

    @abstractmethod
    def feature_map(self, x: Tensor) -> Tensor:
        """Inputs (B, 1, S, S) → last feature map (B, C, H, W), a column of it for every cell."""

    def head(self, feature_map: Tensor) -> NetworkOutput:
        """The last feature map (B, C, H, W) → logit, evidence and pooled features."""
        weight = self.fc.weight[:, :, None, None]
        evidence = functional.conv2d(feature_map, weight)[:, 0] - self.reference
        logit = evidence.mean((1, 2)) + self.fc.bias
        return NetworkOutput(logit, evidence, feature_map.mean((2, 3)))

    def forward(self, x: Tensor) -> NetworkOutput:
        return self.head(self.feature_map(x))
