"""A linear model, its examples, and what a probe measures of a function on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tests.attacks.worlds import Function, pose, solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.api import Problem

SHAPE = (1, 4, 4)
CLASSES = 3


def weights() -> Tensor:
    """Of a linear model."""
    return torch.randn(CLASSES, 16, generator=torch.Generator().manual_seed(0))


def linear(x: Tensor) -> Tensor:
    """Logits of the linear model."""
    return (x - 0.5).flatten(1) @ weights().T


def posed(function: Callable[[Tensor], Tensor], count: int = 8, classes: int = CLASSES) -> Problem:
    """Examples in the middle of the box, labelled by the linear model."""
    generator = torch.Generator().manual_seed(1)
    inputs = 0.3 + 0.4 * torch.rand(count, *SHAPE, generator=generator)
    labels = linear(inputs)[:, :classes].argmax(dim=1)
    return pose(Function(function), inputs, labels, classes=classes)


def measured(probe: str, function: Callable[[Tensor], Tensor], **more: Any) -> dict[str, Any]:
    """The columns of a probe."""
    extra: dict[str, Any] = solve(probe, posed(function, **more)).extra
    return extra
