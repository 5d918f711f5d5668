"""ResNets with the heatmap as an output, written to be read.

He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition" (2016), arXiv 1512.03385, in
torchvision's variant (stride in the 3×3 convolution of a bottleneck) and with torchvision's
parameter names, so that published weights load by name.

Global average pooling followed by one linear layer is linear in the last feature map ``A``, so the
linear layer can be applied to every cell first and averaged afterwards. The per-cell result is the
``evidence``; it equals Grad-CAM at the end of ``layer4`` up to its ReLU and a constant factor
(Selvaraju et al. 2017, arXiv 1610.02391: the gradient of the logit with respect to channel k is
the constant w_k / (H·W)). No hooks, no backward pass.

Does not: read files (see ``initialise``), know about labels, thresholds or probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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
    which alone tell NORMAL from PNEUMONIA in the published data far too well.
    """
    centred = x - x.mean((2, 3), keepdim=True)
    std = centred.square().mean((2, 3), keepdim=True).sqrt()
    return centred / std.clamp_min(MIN_STD)


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; the block of ResNet-18 and -34."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        out: Tensor = self.relu(x + shortcut)
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions and a shortcut; the block of ResNet-50."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _convolution(channels, channels * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        out: Tensor = self.relu(x + shortcut)
        return out


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        _convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
    )


def _stage(
    block: type[BasicBlock | Bottleneck],
    in_channels: int,
    channels: int,
    depth: int,
    stride: int,
) -> nn.Sequential:
    first = block(in_channels, channels, stride)
    rest = [block(channels * block.expansion, channels, 1) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    """A residual network for one grey channel and one logit.

    ``forward`` takes inputs (B, 1, S, S) float32, normalised as the manifest says, and returns a
    :class:`NetworkOutput`; the evidence has ceil(S / 32) cells a side, 7 at S = 224.
    """

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int]
    ) -> None:
        super().__init__()
        self.conv1 = _convolution(1, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        widths = [64 * block.expansion * 2**stage for stage in range(4)]
        self.layer1 = _stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = _stage(block, widths[0], 128, depths[1], stride=2)
        self.layer3 = _stage(block, widths[1], 256, depths[2], stride=2)
        self.layer4 = _stage(block, widths[2], 512, depths[3], stride=2)
        self.fc = nn.Linear(widths[3], 1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def feature_map(self, x: Tensor) -> Tensor:
        """Inputs (B, 1, S, S) → last feature map (B, C, H, W), the end of ``layer4``."""
        x = standardise(x)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x

    def head(self, feature_map: Tensor) -> NetworkOutput:
        """The last feature map (B, C, H, W) → logit, evidence and pooled features."""
        weight = self.fc.weight[:, :, None, None]
        evidence = functional.conv2d(feature_map, weight)[:, 0]
        logit = evidence.mean((1, 2)) + self.fc.bias
        return NetworkOutput(logit, evidence, feature_map.mean((2, 3)))

    def forward(self, x: Tensor) -> NetworkOutput:
        return self.head(self.feature_map(x))


def resnet18() -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2))


def resnet34() -> ResNet:
    return ResNet(BasicBlock, (3, 4, 6, 3))


def resnet50() -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3))


NETWORKS: dict[str, Callable[[], ResNet]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
}
