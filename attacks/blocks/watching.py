"""Modules put between a library's attack and the model, to see what the attack does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from bench.attacks.blocks.catch import Catch
from bench.attacks.blocks.keeping import pace
from bench.errors import AttackError

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


class Settled(Exception):  # noqa: N818 - an end, and no error
    """Every example of the batch is settled: nothing is left to ask the model."""


class Recorder(Guard):
    """Remembers, per example, the most confidently wrong input in the ball and the box.

    Libraries return the last iterate, which can be right again although an earlier one was wrong;
    models with misleading gradients do that often. They also go on with what is broken already:
    here an example whose margin is beyond doubt is settled, its logits stay as they were then,
    without a gradient, and the model is asked about the others alone. Not so on a randomised
    defense, where one wrong answer settles nothing.

    Args:
        problem: with an epsilon; its model is asked.
        limit: see `Guard`.

    Attributes:
        catch: what was found.
    """

    def __init__(self, problem: Problem, limit: float = float("inf")) -> None:
        super().__init__(problem.model, limit)
        self.problem = problem
        self.catch = Catch(problem)
        self._left = torch.arange(len(problem.labels), device=problem.labels.device)
        self._logits = problem.inputs.new_zeros(len(problem.labels), problem.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes); batches that are not aligned with the problem's are not recorded.

        Raises:
            Settled: every example is.
        """
        if x.shape != self.problem.inputs.shape:
            return super().forward(x)
        rows, catch = self._left, self.catch
        if len(rows) == 0:
            raise Settled
        whole = len(rows) == len(x)
        part = x if whole else x.index_select(0, rows)
        logits = super().forward(part)
        catch.offer(rows, part.detach(), logits.detach())
        answer = logits if whole else self._logits.index_copy(0, rows, logits)
        if self.calls % pace(x) == 0:
            (stay,) = torch.where(~catch.settled.index_select(0, rows))
            if len(stay) < len(rows):
                self._logits.index_copy_(0, rows, logits.detach())
                self._left = rows.index_select(0, stay)
        return answer
