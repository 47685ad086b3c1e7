"""A small convolutional network for 8×8 and 28×28 inputs: fast on a CPU, under 1 MB on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 16
HIDDEN = 64


def cnn(
    *, shape: tuple[int, int, int], classes: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
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
        nn.Linear(WIDTH * pooled, HIDDEN),
        activation(),
        nn.Linear(HIDDEN, classes),
    )
