"""ResNets, written to be read.

He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition" (2016), arXiv 1512.03385, in
torchvision's variant (stride in the 3×3 convolution of a bottleneck) and with torchvision's
parameter names, so that published weights load by name.

Does not: read files (see ``initialise``), know about labels, thresholds or probabilities.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from chestxray.learning.networks.network import Network, standardise


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


def _without_stride(stage: nn.Sequential) -> None:
    """Make a stage compute what its stride left out, too: à trous (Chen et al. 2017, DeepLab, arXiv
    1606.00915). At the places that it computed before, its answers stay what they were."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            if module.stride == (2, 2):
                module.stride = (1, 1)
            elif module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)


def _half_a_cell_back(feature_map: Tensor) -> Tensor:
    """Means of neighbours. A strided stage learns to answer for the middle of its cell, half a cell
    right of and below the place that it looks from; computed at every place, its answers would lie
    half a (now smaller) cell off."""
    padded = functional.pad(feature_map, (1, 0, 1, 0), mode="replicate")
    return functional.avg_pool2d(padded, 2, stride=1)


class ResNet(Network):
    """A residual network for one grey channel and one logit.

    The evidence has ceil(S / 32) cells a side, 7 at S = 224; with ``output_stride`` 16 instead of
    32 it has ceil(S / 16), from the same weights.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        output_stride: Literal[16, 32] = 32,
    ) -> None:
        super().__init__()
        self.output_stride = output_stride
        self.conv1 = _convolution(1, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        widths = [64 * block.expansion * 2**stage for stage in range(4)]
        self.layer1 = _stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = _stage(block, widths[0], 128, depths[1], stride=2)
        self.layer3 = _stage(block, widths[1], 256, depths[2], stride=2)
        self.layer4 = _stage(block, widths[2], 512, depths[3], stride=2)
        if output_stride == 16:
            _without_stride(self.layer4)
        self.fc = nn.Linear(widths[3], 1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self._initialise_head()

    def feature_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, 1, S, S) → the ends of ``layer2`` and of ``layer4``."""
        x = standardise(x)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        early = self.layer2(self.layer1(x))
        last = self.layer4(self.layer3(early))
        return early, last if self.output_stride == 32 else _half_a_cell_back(last)


def resnet18() -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2))


def resnet18_os16() -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2), output_stride=16)


def resnet34() -> ResNet:
    return ResNet(BasicBlock, (3, 4, 6, 3))


def resnet50() -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3))
