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
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.radii = radii(problem)
        self.best = problem.inputs.clone()
        # What the best other logit minus that of the label has to exceed, float32 (N,): -1 where
        # nothing was found, infinite where it is settled.
        self._bar = torch.full_like(problem.labels, -1.0, dtype=torch.float32)

    @property
    def found(self) -> Tensor:
        """Where some input was adversarial, bool (N,)."""
        return self._bar >= 0

    @property
    def settled(self) -> Tensor:
        """Where it is so beyond doubt that the search may end, bool (N,)."""
        return self._bar == torch.inf

    @property
    def left(self) -> Tensor:
        """The rows for which nothing is found yet, int64."""
        return torch.where(~self.found)[0]

    def unsettled(self, rows: Tensor) -> Tensor:
        """The places of those of these rows (int64) that are not settled, int64."""
        return torch.where(self._bar.index_select(0, rows) != torch.inf)[0]

    def offer(self, rows: Tensor, x: Tensor, logits: Tensor, among: Tensor | None = None) -> None:
        """Keep what is better than what these rows have; what is settled stays.

        Args:
            rows: int64 (M,); a row may be there several times.
            x: float32 (M, C, H, W).
            logits: what the model says of them, (M, classes).
            among: bool (M,), those that are offered; None for all.
        """
        labels = self.problem.labels.index_select(0, rows)
        wrong = logits.argmax(dim=1) != labels
        if among is not None:
            wrong &= among
        if not x.is_cuda:
            (few,) = torch.where(wrong)
            if len(few) == 0:  # mostly: what is wrong beyond doubt has left
                return
            rows, x, logits, labels = (
                each.index_select(0, few) for each in (rows, x, logits, labels)
            )
        margin = logits.amax(dim=1) - logits.gather(1, labels[:, None]).squeeze(1)
        better = (margin > self._bar.index_select(0, rows)) & self._inside(rows, x)
        if x.is_cuda:
            better &= wrong
        rows, kept, place = first_lowest(rows, -margin, better, len(self.best))
        if not self.problem.randomised:
            solid = margin > SOLID * logits.abs().amax(dim=1)
            margin = torch.where(solid, torch.inf, margin)
        put(self.best, rows, kept, x.index_select(0, place))
        put(self._bar, rows, kept, margin.index_select(0, place))

    def take(self, row: int, other: int) -> None:
        """Let a row have what was found for another one of its example at a smaller epsilon."""
        self.best[row], self._bar[row] = self.best[other], self._bar[other]

    def _inside(self, rows: Tensor, x: Tensor) -> Tensor:
        """Whether points are in the ball, `TOLERANCE` allowed, and in the box; bool (M,)."""
        flat, problem = x.flatten(1), self.problem
        distance = problem.norm.distance(problem.inputs.index_select(0, rows), x)
        in_box = (flat == flat.clamp(0, 1)).all(dim=1)  # False for NaN as well
        return in_box & (distance <= self.radii.index_select(0, rows) + TOLERANCE)
