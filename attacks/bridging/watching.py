"""Modules put between a library's attack and the model, to see what the attack does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from attacks.bridging import radius
from bench.errors import AttackError
from bench.threat import TOLERANCE

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem


class Guard(nn.Module):
    """The model, with an end to its patience.

    Some of Foolbox's loops end only when the model lets them: HopSkipJump halves its step until
    every example of the batch is adversarial, which a model of random or NaN logits never grants.

    Args:
        model: float32 (N, C, H, W) to logits (N, classes).
        limit: forwards per example after which the attack is stopped.
    """

    def __init__(self, model: nn.Module, limit: float) -> None:
        super().__init__()
        self.model = model
        self.limit = limit
        self.calls = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes).

        Raises:
            AttackError: the limit is reached.
        """
        self.calls += 1
        if self.calls > self.limit:
            raise AttackError(
                f"the attack does not end on this model: stopped after {self.limit:.0f} forwards "
                "per example, far beyond its cost"
            )
        logits: Tensor = self.model(x)
        return logits


class Recorder(Guard):
    """Remembers, per example, the most confidently wrong input in the ball and the box.

    Foolbox returns the last iterate, which can be right again although an earlier one was wrong;
    models with misleading gradients do that often.

    Args:
        problem: with an epsilon; its model is asked.
        limit: see `Guard`.

    Attributes:
        found: bool (N,), where some input was adversarial.
        best: the inputs of the problem, replaced by the adversarial one with the largest margin.
    """

    def __init__(self, problem: Problem, limit: float) -> None:
        super().__init__(problem.model, limit)
        self.problem = problem
        self.found = torch.zeros_like(problem.labels, dtype=torch.bool)
        self.best = problem.inputs.clone()
        self._margin = torch.full_like(problem.labels, -1.0, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes); batches that are not aligned with the problem's are not recorded."""
        logits = super().forward(x)
        if x.shape == self.problem.inputs.shape:
            self._record(x.detach(), logits.detach())
        return logits

    def _record(self, x: Tensor, logits: Tensor) -> None:
        problem = self.problem
        top, predicted = logits.max(dim=1)
        margin = top - logits.gather(1, problem.labels[:, None]).squeeze(1)
        better = (predicted != problem.labels) & (margin > self._margin)
        (rows,) = torch.where(better)
        if len(rows) == 0:
            return
        inputs, candidates = problem.inputs[rows], x[rows]
        flat = candidates.flatten(1)
        inside = ((flat >= 0) & (flat <= 1)).all(dim=1)
        inside &= problem.norm.distance(inputs, candidates) <= radius(problem) + TOLERANCE
        rows = rows[inside]
        self.found[rows] = True
        self.best[rows] = x[rows]
        self._margin[rows] = margin[rows]
