"""Models of which the figures are known, and how to read a figure back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.figures.canvas import Subject
from bench.models.counted import CountedModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIGEST = "0123456789abcdef" * 4


def subject(module: nn.Module, name: str = "relu") -> Subject:
    """A module of two classes under the name of a defense."""
    return Subject(name, DIGEST, CountedModel(module, 2, None, "cpu"))


class Thresholds(nn.Module):
    """Of the mean pixel m: ReLUs of m minus each threshold; logits (s, -s) of their sum s.

    With label 0 the sign of the gradient points down, and with label 1 up.
    """

    thresholds: torch.Tensor

    def __init__(self, *thresholds: float) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.register_buffer("thresholds", torch.tensor(thresholds))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, (N, 2)."""
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        s = self.activation(mean - self.thresholds).sum(dim=1)
        return torch.stack([s, -s], dim=1)


def panel(figure: Figure, title: str) -> Axes:
    """The axes of this title."""
    (found,) = [axes for axes in figure.axes if axes.get_title() == title]
    return found


def band(axes: Axes, index: int) -> tuple[dict[float, float], dict[float, float]]:
    """The lower and the upper end of a filled band, by place."""
    vertices: Any = axes.collections[index].get_paths()[0].vertices
    low: dict[float, float] = {}
    high: dict[float, float] = {}
    for x, y in vertices.tolist():
        low[x] = min(y, low.get(x, y))
        high[x] = max(y, high.get(x, y))
    return low, high


def footer(figure: Figure) -> str:
    """The caption below a figure, on one line."""
    return " ".join(figure.get_supxlabel().split())
