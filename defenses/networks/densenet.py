"""DenseNets for 32×32 inputs, as k-WTA's paper uses them (Huang et al., CVPR 2017)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


class Bottleneck(nn.Module):
    """1×1 and 3×3 convolutions, an activation before each; what they add leads the channels."""

    def __init__(self, channels: int, growth: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.activation1 = activation()
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.activation2 = activation()
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, growth + channels, H, W)."""
        new = self.conv1(self.activation1(self.bn1(x)))
        new = self.conv2(self.activation2(self.bn2(new)))
        return torch.cat([new, x], dim=1)


def densenet(
    blocks: tuple[int, int, int, int] = (6, 12, 24, 16),
    growth: int = 32,
    *,
    shape: tuple[int, int, int],
    classes: int,
    activation: Callable[[], nn.Module],
) -> nn.Sequential:
    """A stem, four dense blocks with transitions between them, pooling and a linear layer.

    The stem is a convolution alone, and the last normalisation is followed by ReLU whatever the
    activation. Names in the `state_dict` are those of the paper's code.

    Args:
        blocks: bottlenecks of each dense block; the default is DenseNet-121.
        growth: channels that a bottleneck adds; the stem has twice as many.
        shape: (C, 32, 32) of one input in [0, 1].
        classes: the number of logits.
        activation: called for each place: two in a bottleneck, one in a transition, 119 in
            DenseNet-121.
    """
    channels = 2 * growth
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
    for number, count in enumerate(blocks, start=1):
        if number > 1:
            layers[f"trans{number - 1}"] = _transition(channels, activation)
            channels //= 2
        layers[f"dense{number}"] = nn.Sequential(
            *(Bottleneck(channels + place * growth, growth, activation) for place in range(count))
        )
        channels += count * growth
    layers["bn"] = nn.BatchNorm2d(channels)
    layers["relu"] = nn.ReLU()
    layers["pool"] = nn.AvgPool2d(4)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


def _transition(channels: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """From (N, channels, H, W) to (N, channels / 2, H / 2, W / 2)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["bn"] = nn.BatchNorm2d(channels)
    layers["activation"] = activation()
    layers["conv"] = nn.Conv2d(channels, channels // 2, 1, bias=False)
    layers["pool"] = nn.AvgPool2d(2)
    return nn.Sequential(layers)
