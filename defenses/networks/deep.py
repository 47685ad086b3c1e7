"""Networks for 32×32 inputs.

ResNets (He et al., CVPR 2016) and DenseNets (Huang et al., CVPR 2017) are as k-WTA's paper uses
them; wide residual networks are those of Zagoruyko and Komodakis (BMVC 2016).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    Activation = Callable[[], nn.Module]


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut, with an activation in the middle and at the end."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(channels, width, stride)
        self.activation2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, width, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(self.activation1(self.bn1(self.conv1(x)))))
        out: Tensor = self.activation2(residual + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut, with three activations."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        wide = self.expansion * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.activation2 = activation()
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.shortcut = _shortcut(channels, wide, stride)
        self.activation3 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, 4 · width, H / stride, W / stride)."""
        residual = self.activation1(self.bn1(self.conv1(x)))
        residual = self.activation2(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        out: Tensor = self.activation3(residual + self.shortcut(x))
        return out


def _shortcut(channels: int, wide: int, stride: int) -> nn.Sequential:
    """The input itself, or its 1×1 convolution where the shape changes."""
    if stride == 1 and channels == wide:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(channels, wide, 1, stride=stride, bias=False), nn.BatchNorm2d(wide)
    )


#: Depth to the kind of block and how many each of the four stages has.
DEPTHS: dict[int, tuple[type[Block] | type[Bottleneck], tuple[int, int, int, int]]] = {
    10: (Block, (1, 1, 1, 1)),
    18: (Block, (2, 2, 2, 2)),
    34: (Block, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """A stem, four stages of blocks, average pooling and a linear layer.

    The stem is followed by ReLU whatever the activation. Names in the `state_dict` are those of
    the paper's code, which has the activations without parameters too.

    Args:
        depth: 10, 18, 34 or 50; 10 is ResNet-18 with one block a stage.
        width: channels of the first stage; each stage doubles them.
        shape: (C, 32, 32) of one input in [0, 1].
        classes: the number of logits.
        activation: called for each place.
    """

    def __init__(
        self,
        depth: int = 18,
        width: int = 64,
        *,
        shape: tuple[int, int, int],
        classes: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        block, counts = DEPTHS[depth]
        self.conv1 = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        channels = width
        stages = []
        for number, count in enumerate(counts):
            inner = width * 2**number
            stride = 2 if number else 1
            stages.append(_stage(block, count, channels, inner, stride, activation))
            channels = inner * block.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, 32, 32) in [0, 1] to logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


class WideBlock(nn.Module):
    """Two 3×3 convolutions, an activation before each, beside a shortcut.

    The shortcut is the input itself or, where the number of channels changes, a 1×1 convolution
    of what the first activation gives.
    """

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.activation1 = activation()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.activation2 = activation()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = (
            None if channels == width else nn.Conv2d(channels, width, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, width, H / stride, W / stride)."""
        active = self.activation1(self.bn1(x))
        residual: Tensor = self.conv2(self.activation2(self.bn2(self.conv1(active))))
        return residual + (x if self.shortcut is None else self.shortcut(active))


def wideresnet(
    depth: int = 22,
    width: int = 10,
    *,
    shape: tuple[int, int, int],
    classes: int,
    activation: Activation,
) -> nn.Sequential:
    """A stem, three stages of pre-activation blocks, pooling and a linear layer; no dropout.

    Convolutions have no bias and are drawn from He's normal distribution by fan-out, as in the
    original. In k-WTA's code the sparse variant has biases and the ReLU one has none; here
    neither has, so that a defense differs from its twin in the activation alone.

    Args:
        depth: 10, 16, 22, 28, …: 6n + 4 for n blocks in each stage.
        width: multiplies the channels 16, 32 and 64 of the stages.
        shape: (C, 32, 32) of one input in [0, 1].
        classes: the number of logits.
        activation: called for each place: two in a block and one after the last, 19 at depth 22.
    """
    channels = 16
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
    for number in (1, 2, 3):
        wide = 2**number * 8 * width
        stride = 2 if number > 1 else 1
        count = (depth - 4) // 6
        layers[f"layer{number}"] = _stage(WideBlock, count, channels, wide, stride, activation)
        channels = wide
    layers["bn"] = nn.BatchNorm2d(channels)
    layers["activation"] = activation()
    layers["pool"] = nn.AvgPool2d(8)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = linear = nn.Linear(channels, classes)
    nn.init.zeros_(linear.bias)
    model = nn.Sequential(layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def _stage(
    block: type[Block] | type[Bottleneck] | type[WideBlock],
    count: int,
    channels: int,
    width: int,
    stride: int,
    activation: Activation,
) -> nn.Sequential:
    """So many blocks, of which the first changes channels and size."""
    first = block(channels, width, stride, activation)
    wide = width * block.expansion
    return nn.Sequential(first, *(block(wide, width, 1, activation) for _ in range(count - 1)))


class DenseLayer(nn.Module):
    """1×1 and 3×3 convolutions, an activation before each; what they add leads the channels."""

    def __init__(self, channels: int, growth: int, activation: Activation) -> None:
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
    activation: Activation,
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
            *(DenseLayer(channels + place * growth, growth, activation) for place in range(count))
        )
        channels += count * growth
    layers["bn"] = nn.BatchNorm2d(channels)
    layers["relu"] = nn.ReLU()
    layers["pool"] = nn.AvgPool2d(4)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


def _transition(channels: int, activation: Activation) -> nn.Sequential:
    """From (N, channels, H, W) to (N, channels / 2, H / 2, W / 2)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["bn"] = nn.BatchNorm2d(channels)
    layers["activation"] = activation()
    layers["conv"] = nn.Conv2d(channels, channels // 2, 1, bias=False)
    layers["pool"] = nn.AvgPool2d(2)
    return nn.Sequential(layers)
