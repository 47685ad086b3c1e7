"""Tiny models and examples with known answers, shared by tests."""

from __future__ import annotations

import functools

import torch
from torch import nn

from bench.api import Examples
from bench.run.evaluation import evaluate

#: `bench.evaluate` without the examination: what the attacks named find, and nothing else.
attack_only = functools.partial(evaluate, examine=False)


def linear_examples(n: int = 20, dim: int = 4, seed: int = 0) -> Examples:
    """Two classes by the sign of `sum(x - 0.5)`, inputs in [0.3, 0.7], shape (n, 1, dim, dim)."""
    generator = torch.Generator().manual_seed(seed)
    inputs = 0.3 + 0.4 * torch.rand(n, 1, dim, dim, generator=generator)
    labels = ((inputs - 0.5).sum(dim=(1, 2, 3)) > 0).long()
    return Examples.of(inputs, labels, ("below", "above"), "sums")


class Sum(nn.Module):
    """Gets every one of `linear_examples` right: logits (-s, s) with s = sum(x - 0.5).

    An example is broken at Linf epsilon exactly when |s| < epsilon * pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, 2)."""
        s = (x - 0.5).flatten(1).sum(dim=1) * self.scale
        return torch.stack([-s, s], dim=1)


def linf_thresholds(examples: Examples) -> torch.Tensor:
    """The Linf norm at which each of `linear_examples` changes its class, float64 (n,)."""
    sums = (examples.inputs.double() - 0.5).flatten(1).sum(dim=1).abs()
    return sums / examples.inputs[0].numel()
