"""Linear models, whose worst perturbations are known, and inputs for them."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


def generator(seed: int = 7) -> Generator:
    """A seeded generator on the CPU."""
    return Generator().manual_seed(seed)


class Linear(nn.Module):
    """A linear model that notes the mode of every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 3)
        self.modes: list[bool] = []
        nn.init.normal_(self.linear.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 3)."""
        self.modes.append(self.training)
        logits: Tensor = self.linear(x.flatten(1))
        return logits


class TwoClasses(nn.Module):
    """A linear model of two classes that notes what it was asked last in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 12, generator=Generator().manual_seed(0)))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2)."""
        if self.training:
            self.seen.append(x.detach().clone())
        return x.flatten(1) @ self.weight.T

    def uphill(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The sign of the loss's gradient, the same wherever the inputs lie."""
        towards_other = self.weight.detach()[1] - self.weight.detach()[0]
        sign = torch.where(labels == 0, 1.0, -1.0)[:, None] * towards_other.sign()
        return sign.view_as(inputs)


def border_batch() -> tuple[Tensor, Tensor]:
    """Eight inputs (3, 2, 2), some at the border of the box, and labels."""
    inputs = torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    inputs[0], inputs[1] = 0.0, 1.0
    return inputs, torch.arange(8) % 3
