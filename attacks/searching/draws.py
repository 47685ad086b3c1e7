"""A look at a randomised model: the mean over draws with fixed seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.attacks.searching.ball import margins
from bench.attacks.searching.descent import Sight, margin_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem


class OverDraws:
    """Mean margin and mean gradient over draws; each draw is a seed, the same for every step.

    Args:
        problem: whose model is looked at.
        draws: how many.
    """

    def __init__(self, problem: Problem, draws: int) -> None:
        self.problem = problem
        self.draws = draws

    def __call__(self, x: Tensor, rows: Tensor, step: int | None) -> Sight:
        """See `Look`. The generators of torch are left as they were found."""
        labels, model = self.problem.labels[rows], self.problem.model
        found = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        gradient = torch.zeros_like(x)
        devices = [x.device.index or 0] if x.device.type == "cuda" else []
        for draw in range(self.draws):
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(self.problem.seed * self.draws + draw)
                if step is None:
                    with torch.no_grad():
                        found += margins(model(x), labels)
                else:
                    drawn, slope = margin_gradient(model, x, labels)
                    found += drawn
                    gradient += slope / self.draws
        return Sight(found / self.draws, None if step is None else gradient)
