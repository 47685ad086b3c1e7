"""Standardisation and resizing, as part of a model that takes images in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Preprocessed(nn.Module):
    """A model behind the preprocessing that it was trained with.

    Args:
        model: standardised images to logits.
        mean: by channel.
        std: by channel.
        size: (H, W) that the model takes: images of another size are resized, bilinearly and
            differentiably; None for any.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in [0, 1], float32 (N, C, H, W)."""
        if self.size is not None and x.shape[2:] != self.size:
            x = nn.functional.interpolate(
                x, self.size, mode="bilinear", align_corners=False, antialias=True
            )
        logits: Tensor = self.model((x - self.mean) / self.std)
        return logits
