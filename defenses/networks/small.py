"""Networks for 8×8 and 28×28 inputs.

`cnn` is fast on a CPU, and under 1 MB on disk; the others are those that k-WTA's paper trains on
MNIST (Xiao, Zhong, Zheng, ICLR 2020).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    Activation = Callable[[], nn.Module]

#: Channels of the small network's convolutions, and its hidden units.
WIDTH, CNN_HIDDEN = 16, 64

#: Channels of the four convolutions of the paper's smallest CNN, and its hidden units.
CHANNELS, HIDDEN = (32, 32, 64, 64), 20_000

#: Channels of the two convolutions of the small network with max-pooling.
LENET_CHANNELS = (12, 24)

#: Hidden units where the image is pooled: 7×7 becomes 3×3, and the weights 1.4 MB instead of 252.
POOLED_HIDDEN = 500


def cnn(*, shape: tuple[int, int, int], classes: int, activation: Activation) -> nn.Sequential:
    """Two 3×3 convolutions and two linear layers, an activation after each but the last.

    Max-pooling halves the image after the second convolution, and where it is larger than 8×8
    after the first one too.

    Args:
        shape: (C, H, W) of one input.
        classes: the number of logits.
        activation: called for each of the three places.
    """
    channels, height, width = shape
    pools = 2 if height > 8 else 1
    pooled = (height // 2**pools) * (width // 2**pools)
    return nn.Sequential(
        nn.Conv2d(channels, WIDTH, 3, padding=1),
        activation(),
        nn.MaxPool2d(2) if pools == 2 else nn.Identity(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        activation(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(WIDTH * pooled, CNN_HIDDEN),
        activation(),
        nn.Linear(CNN_HIDDEN, classes),
    )


def mnist_cnn(
    *,
    shape: tuple[int, int, int],
    classes: int,
    activation: Activation,
    pooled: bool = False,
) -> nn.Sequential:
    """Four 3×3 convolutions, two of them of stride 2, and two linear layers; five activations.

    Args:
        shape: (C, 28, 28) of one input.
        classes: the number of logits.
        activation: called for each of the five places.
        pooled: ours, not the paper's: 3×3 average pooling of stride 2 before the linear layers,
            500 hidden units instead of 20,000, and weights drawn as in He et al. (ICCV 2015), as
            with torch's own the pooled network does not begin to learn within hundreds of steps.
    """
    layers: list[nn.Module] = []
    into = shape[0]
    for channels, stride in zip(CHANNELS, (1, 2, 1, 2), strict=True):
        layers += [nn.Conv2d(into, channels, 3, stride=stride, padding=1), activation()]
        into = channels
    side, hidden = (3, POOLED_HIDDEN) if pooled else (7, HIDDEN)
    if pooled:
        layers.append(nn.AvgPool2d(3, stride=2))
    layers += [nn.Flatten(), nn.Linear(side * side * into, hidden), activation()]
    model = nn.Sequential(*layers, nn.Linear(hidden, classes))
    if pooled:
        for layer in model:
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
    return model


def mnist_lenet(
    *, shape: tuple[int, int, int], classes: int, activation: Activation
) -> nn.Sequential:
    """Two 5×5 convolutions, max-pooling after each, and a linear layer: 78 kB on disk.

    After LeNet (LeCun et al., Proceedings of the IEEE 1998), as most tutorials have it. On a
    constant background the inputs of a pooling window are equal.

    Args:
        shape: (C, 28, 28) of one input.
        classes: the number of logits.
        activation: called for each of the two places.
    """
    first, second = LENET_CHANNELS
    return nn.Sequential(
        nn.Conv2d(shape[0], first, 5, padding=2),
        activation(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5, padding=2),
        activation(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(7 * 7 * second, classes),
    )


def mnist_dnn(
    *,
    shape: tuple[int, int, int],
    classes: int,
    activation: Activation,
    hidden: int = 1000,
) -> nn.Sequential:
    """Three linear layers; two activations.

    Weights are drawn as in the paper's code: normal with variance 1 / inputs, biases zero.

    Args:
        shape: (C, 28, 28) of one input.
        classes: the number of logits.
        activation: called for each of the two places.
        hidden: units of both hidden layers; the paper's range from 1,000 to 10,000.
    """
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), hidden),
        activation(),
        nn.Linear(hidden, hidden),
        activation(),
        nn.Linear(hidden, classes),
    )
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
    return model
