"""ResNet-18 for 32×32 inputs, as k-WTA's paper uses it (He et al., CVPR 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut, with an activation in the middle and at the end."""

    def __init__(
        self, channels: int, width: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
        self.activation2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, width, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(self.activation1(self.bn1(self.conv1(x)))))
        out: Tensor = self.activation2(residual + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A stem, four stages of two blocks, average pooling and a linear layer.

    The stem is followed by ReLU whatever the activation. Names in the `state_dict` are those of
    the paper's code, which has the activations without parameters too.
    """

    def __init__(self, channels: int, classes: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(64, 64, 1, activation)
        self.layer2 = self._stage(64, 128, 2, activation)
        self.layer3 = self._stage(128, 256, 2, activation)
        self.layer4 = self._stage(256, 512, 2, activation)
        self.linear = nn.Linear(512, classes)

    @staticmethod
    def _stage(
        channels: int, width: int, stride: int, activation: Callable[[], nn.Module]
    ) -> nn.Sequential:
        return nn.Sequential(
            Block(channels, width, stride, activation), Block(width, width, 1, activation)
        )

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, 32, 32) in [0, 1] to logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def resnet18(
    *, shape: tuple[int, int, int], classes: int, activation: Callable[[], nn.Module]
) -> ResNet:
    """ResNet-18 with 16 places for the activation.

    Args:
        shape: (C, 32, 32).
        classes: the number of logits.
        activation: called for each place.
    """
    return ResNet(shape[0], classes, activation)
