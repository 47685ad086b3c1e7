"""Random crop and flip of a whole batch, on its device."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

PADDING = 4


def crop_and_flip(inputs: Tensor, generator: Generator) -> Tensor:
    """Shift each image by up to 4 pixels over zeros, and mirror half of them.

    Args:
        inputs: (N, C, H, W).
        generator: on the CPU.

    Returns:
        Same shape and device.
    """
    n, _, height, width = inputs.shape
    span = 2 * PADDING + 1
    top, left = torch.randint(span, (2, n), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + left[:, None]
    rows = torch.arange(height) + top[:, None]
    image = torch.arange(n)
    device = inputs.device
    # Indices (N, H, W) around the slice of channels give (N, H, W, C).
    moved = pad(inputs, [PADDING] * 4)[
        image[:, None, None].to(device), :, rows[:, :, None].to(device), columns[:, None].to(device)
    ]
    return moved.permute(0, 3, 1, 2)
