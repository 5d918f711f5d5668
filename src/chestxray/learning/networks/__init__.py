"""The networks that can be trained, by the name that a configuration calls them.

All take one grey picture and answer with a logit, the evidence for it per cell, and features.

Does not: read weights (``initialise`` does), know about labels, thresholds or probabilities.
"""

from __future__ import annotations

from collections.abc import Callable

from chestxray.learning.networks.network import Network, NetworkOutput, standardise
from chestxray.learning.networks.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet18_os16,
    resnet34,
    resnet50,
)
from chestxray.learning.networks.vision_transformer import VisionTransformer, vit_s16

__all__ = [
    "NETWORKS",
    "BasicBlock",
    "Bottleneck",
    "Network",
    "NetworkOutput",
    "ResNet",
    "VisionTransformer",
    "resnet18",
    "resnet18_os16",
    "resnet34",
    "resnet50",
    "standardise",
    "vit_s16",
]

NETWORKS: dict[str, Callable[[], Network]] = {
    "resnet18": resnet18,
    "resnet18_os16": resnet18_os16,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "vit_s16": vit_s16,
}
