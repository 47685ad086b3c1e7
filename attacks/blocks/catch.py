"""The best candidate of each row, whichever search finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.api.attacks import radii
from bench.attacks.blocks.keeping import first_lowest, put
from bench.threat import TOLERANCE

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem

#: A row is settled when its margin is beyond this share of its largest logit: more than rounding
#: or another batch can move it, so that the judge will find it wrong as well.
SOLID = 0.01


class Catch:
    """The most confidently wrong input in the ball and the box, for each row of a problem.

    A randomised defense is never settled: one wrong answer may be right in the next draw.

    Args:
        problem: with an epsilon.

    Attributes:
        best: the inputs of the problem, replaced by the adversarial one with the largest margin.
        settled: bool (N,), where it is so beyond doubt that the search may end.
        broken_by: float32 (N,), the best other logit minus that of the label; -1 where not found.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.radii = radii(problem)
        self.best = problem.inputs.clone()
        self.settled = torch.zeros_like(problem.labels, dtype=torch.bool)
        self.broken_by = torch.full_like(problem.labels, -1.0, dtype=torch.float32)

    @property
    def found(self) -> Tensor:
        """Where some input was adversarial, bool (N,)."""
        return self.broken_by >= 0

    @property
    def left(self) -> Tensor:
        """The rows for which nothing is found yet, int64."""
        return torch.where(~self.found)[0]

    def offer(self, rows: Tensor, x: Tensor, logits: Tensor, among: Tensor | None = None) -> None:
        """Keep what is better than what these rows have; what is settled stays.

        Args:
            rows: int64 (M,); a row may be there several times.
            x: float32 (M, C, H, W).
            logits: what the model says of them, (M, classes).
            among: bool (M,), those that are offered; None for all.
        """
        labels = self.problem.labels.index_select(0, rows)
        highest, said = logits.max(dim=1)
        better = said != labels
        if among is not None:
            better &= among
        if not x.is_cuda:
            (few,) = torch.where(better)
            if len(few) == 0:  # mostly: what is wrong beyond doubt has left
                return
            offered = rows, x, logits, labels, highest, better
            rows, x, logits, labels, highest, better = (
                each.index_select(0, few) for each in offered
            )
        margin = highest - logits.gather(1, labels[:, None]).squeeze(1)
        better &= margin > self.broken_by.index_select(0, rows)
        better &= ~self.settled.index_select(0, rows)
        better &= self._inside(rows, x)
        rows, kept, place = first_lowest(rows, -margin, better, len(self.best))
        put(self.best, rows, kept, x.index_select(0, place))
        put(self.broken_by, rows, kept, margin.index_select(0, place))
        if not self.problem.randomised:
            solid = margin > SOLID * logits.abs().amax(dim=1)
            put(self.settled, rows, kept, solid.index_select(0, place))

    def take(self, row: int, other: int) -> None:
        """Let a row have what was found for another one of its example at a smaller epsilon."""
        self.best[row], self.broken_by[row] = self.best[other], self.broken_by[other]
        self.settled[row] = self.settled[other]

    def _inside(self, rows: Tensor, x: Tensor) -> Tensor:
        flat, problem = x.flatten(1), self.problem
        distance = problem.norm.distance(problem.inputs.index_select(0, rows), x)
        in_box = ((flat >= 0) & (flat <= 1)).all(dim=1)
        return in_box & (distance <= self.radii.index_select(0, rows) + TOLERANCE)
