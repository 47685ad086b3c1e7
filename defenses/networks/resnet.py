"""ResNets for 32×32 inputs, as k-WTA's paper uses them (He et al., CVPR 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut, with an activation in the middle and at the end."""

    expansion = 1

    def __init__(
        self, channels: int, width: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut(channels, width, stride)
        self.activation2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, width, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(self.activation1(self.bn1(self.conv1(x)))))
        out: Tensor = self.activation2(residual + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut, with three activations."""

    expansion = 4

    def __init__(
        self, channels: int, width: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
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
        self.shortcut = shortcut(channels, wide, stride)
        self.activation3 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, 4 · width, H / stride, W / stride)."""
        residual = self.activation1(self.bn1(self.conv1(x)))
        residual = self.activation2(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        out: Tensor = self.activation3(residual + self.shortcut(x))
        return out


def shortcut(channels: int, wide: int, stride: int) -> nn.Sequential:
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
        channels: of the input.
        classes: the number of logits.
        activation: called for each place.
        width: channels of the first stage; each stage doubles them.
    """

    def __init__(
        self,
        depth: int,
        channels: int,
        classes: int,
        activation: Callable[[], nn.Module],
        width: int = 64,
    ) -> None:
        super().__init__()
        block, counts = DEPTHS[depth]
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        into = width
        stages = []
        for number, count in enumerate(counts):
            inner = width * 2**number
            blocks: list[nn.Module] = []
            for place in range(count):
                stride = 2 if number and place == 0 else 1
                blocks.append(block(into, inner, stride, activation))
                into = inner * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(into, classes)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, 32, 32) in [0, 1] to logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits
