"""What Auto-PGD raises: losses of AutoAttack (Croce and Hein, ICML 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


class Objective(Protocol):
    """What is to rise."""

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """(M,) of logits (M, classes); labels and targets int64 (M,)."""


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """That of the label."""
    return functional.cross_entropy(logits, labels, reduction="none")


def logits_ratio(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The difference of logits ratio (equation 6); at least 3 classes."""
    top = logits.topk(3, dim=1).values
    own = logits.gather(1, labels[:, None]).squeeze(1)
    best = torch.where(logits.argmax(dim=1) == labels, top[:, 1], top[:, 0])
    return (best - own) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_ratio(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The targeted one (equation 7); at least 4 classes."""
    top = logits.topk(4, dim=1).values
    own, other = (logits.gather(1, which[:, None]).squeeze(1) for which in (labels, targets))
    return (other - own) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)
