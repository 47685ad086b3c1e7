"""Wide residual networks for 32×32 inputs (Zagoruyko and Komodakis, BMVC 2016)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import Tensor, nn

from bench.defenses.networks.choice import check_depth

if TYPE_CHECKING:
    from collections.abc import Callable


class Block(nn.Module):
    """Two 3×3 convolutions, an activation before each, beside a shortcut.

    The shortcut is the input itself or, where the number of channels changes, a 1×1 convolution
    of what the first activation gives.
    """

    def __init__(
        self, channels: int, width: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
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
    activation: Callable[[], nn.Module],
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

    Raises:
        UsageError: there is no WideResNet of this depth.
    """
    check_depth(depth)
    channels = 16
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
    for number in (1, 2, 3):
        wide = 2**number * 8 * width
        blocks = []
        for place in range((depth - 4) // 6):
            stride = 2 if number > 1 and place == 0 else 1
            blocks.append(Block(channels, wide, stride, activation))
            channels = wide
        layers[f"layer{number}"] = nn.Sequential(*blocks)
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
