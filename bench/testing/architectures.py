"""What the honest models on digits look like: each takes (N, 1, 8, 8), and is a few lines.

Weights are drawn from torch's global generator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

PIXELS, CLASSES = 64, 10
#: Of the transformer: the side of a patch in pixels, the width of a token, heads and blocks.
PATCH, TOKEN, HEADS, BLOCKS = 2, 32, 4, 2


def linear() -> nn.Module:
    """Logits that are linear in the pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES))


def mlp() -> nn.Module:
    """Two hidden layers."""
    return _perceptron(nn.Identity, nn.ReLU)


def layer_norm() -> nn.Module:
    """Two hidden layers, normalised over their units."""
    return _perceptron(lambda: nn.LayerNorm(64), nn.ReLU)


def _perceptron(norm: Callable[[], nn.Module], activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS, 64), norm(), activation(),
        nn.Linear(64, 64), norm(), activation(),
        nn.Linear(64, CLASSES),
    )  # fmt: skip


def pooled(pool: Callable[[int], nn.Module], activation: Callable[[], nn.Module]) -> nn.Module:
    """Two convolutions, each with an activation and a pooling that halves the image.

    Args:
        pool: from the side of a window to the layer.
        activation: makes one.
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), activation(), pool(2),
        nn.Conv2d(16, 32, 3, padding=1), activation(), pool(2),
        nn.Flatten(), nn.Linear(32 * 2 * 2, CLASSES),
    )  # fmt: skip


class Standardise(nn.Module):
    """Inputs shifted and scaled to mean 0 and deviation 1 over the data set.

    Args:
        mean: of the data set's pixels.
        deviation: their standard deviation.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))

    def forward(self, x: Tensor) -> Tensor:
        """Shape and dtype of `x`."""
        return (x - self.mean) / self.deviation


class Transformer(nn.Module):
    """A small vision transformer (Dosovitskiy et al., ICLR 2021) that reads all its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, TOKEN, PATCH, stride=PATCH)
        self.places = nn.Parameter(0.02 * torch.randn(PIXELS // PATCH**2, TOKEN))
        self.blocks = nn.Sequential(*(AttentionBlock() for _ in range(BLOCKS)))
        tokens = PIXELS // PATCH**2
        self.head = nn.Sequential(
            nn.LayerNorm(TOKEN), nn.Flatten(), nn.Linear(tokens * TOKEN, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        logits: Tensor = self.head(self.blocks(tokens))
        return logits


class AttentionBlock(nn.Module):
    """Self-attention and a hidden layer, each on normalised tokens and added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(TOKEN), nn.LayerNorm(TOKEN)
        self.into, self.out = nn.Linear(TOKEN, 3 * TOKEN), nn.Linear(TOKEN, TOKEN)
        self.hidden = nn.Sequential(
            nn.Linear(TOKEN, 2 * TOKEN), nn.GELU(), nn.Linear(2 * TOKEN, TOKEN)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, tokens, width), shape kept."""
        heads = self.into(self.before(tokens)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*heads)
        tokens = tokens + self.out(attended.transpose(1, 2).flatten(2))
        mixed: Tensor = tokens + self.hidden(self.after(tokens))
        return mixed
