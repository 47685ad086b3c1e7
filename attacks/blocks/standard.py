"""AutoAttack's standard version (Croce and Hein, ICML 2020) on rows, each with its own epsilon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.api import Proposal
from bench.attacks.blocks.auto_pgd import AutoPGD
from bench.attacks.blocks.ball import Ball
from bench.attacks.blocks.batches import drive
from bench.attacks.blocks.catch import Catch
from bench.attacks.blocks.fab import FastBoundary
from bench.attacks.blocks.objectives import cross_entropy, logits_ratio, targeted_ratio
from bench.attacks.blocks.spending import restarts, targets
from bench.attacks.blocks.square import SquareSearch
from bench.attacks.blocks.suspicions import ZERO_GRADIENT, look_over

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from bench.api import Problem
    from bench.attacks.blocks.objectives import Objective


def likely(logits: Tensor, count: int) -> Tensor:
    """The most likely classes after the first, int64 (count, N)."""
    return logits.sort(dim=1, descending=True, stable=True).indices[:, 1 : count + 1].T


class Standard:
    """The attacks on some rows of a problem; what they find is kept in `catch`.

    Args:
        problem: with an epsilon.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.catch = problem, Catch(problem)
        self.logits, self.flags = look_over(problem)
        self.every = torch.arange(len(problem.labels), device=problem.labels.device)
        self.catch.offer(self.every, problem.inputs, self.logits)

    def proposal(self, attacked: Tensor | None = None) -> Proposal:
        """What was found; the input where nothing was."""
        return Proposal(self.catch.best, flags=tuple(self.flags), attacked=attacked)

    def run(
        self, member: str, rows: Tensor, then: Callable[[Tensor], list[int]] | None = None
    ) -> None:
        """One of the attacks by gradients on these rows, int64 (M,); `then` as for `drive`."""
        norm, classes = self.problem.norm, self.problem.classes
        if member == "apgd-t":
            towards = likely(self.logits, targets(classes, norm))
            self._climb(member, targeted_ratio, rows, towards, then)
        else:
            objective = cross_entropy if member == "apgd-ce" else logits_ratio
            nowhere = torch.zeros(restarts(norm), len(self.logits), dtype=torch.int64)
            self._climb(member, objective, rows, nowhere.to(rows.device), then)

    def square(self, rows: Tensor, queries: int, times: int = 1) -> None:
        """Square, so many times, on what is not broken of these rows."""
        for number in range(times):
            rows = rows[~self.catch.found[rows]]
            if len(rows):
                search = SquareSearch(self.catch, f"square {number}", queries)
                drive(search, rows, self.problem.inputs)

    def boundary(self, rows: Tensor, wanted: Tensor) -> None:
        """FAB-T once for the example of each of these rows, and what it finds for others of it.

        Args:
            rows: int64 (M,).
            wanted: bool (M, N), the rows of that example that are not broken.
        """
        radii, part = self.catch.radii, self.problem.part(rows)
        enough = torch.where(wanted, radii, torch.inf).amin(dim=1)
        towards = likely(self.logits[rows], targets(part.classes))
        search = FastBoundary(part, towards, enough)
        drive(search, torch.arange(len(rows), device=rows.device), part.inputs)
        best, nearest = search.smallest()
        place, others = torch.where(wanted & (nearest[:, None] <= radii))
        if len(others) == 0:
            return
        inputs, best = part.inputs[place], best[place]
        ball = Ball.of(self.problem).at(others)
        # At the border the margin is faint: further out in this direction it is mostly larger.
        further = (radii[others] / nearest[place]).float().reshape(ball.radius.shape)
        for x in (best, ball.project(inputs + further * (best - inputs))):
            with torch.no_grad():
                self.catch.offer(others, x, self.problem.model(x))

    def _climb(
        self,
        member: str,
        objective: Objective,
        rows: Tensor,
        towards: Tensor,
        then: Callable[[Tensor], list[int]] | None,
    ) -> None:
        """The first copy of each row alone, since that breaks most; then all others together."""
        kinds: Sequence[int]
        for kinds in ([0], range(1, len(towards))):
            rows = rows[~self.catch.found[rows]]
            if not kinds or not len(rows):
                break
            search = AutoPGD(self.catch, objective, member, kinds, towards[list(kinds)])
            drive(search, rows, self.problem.inputs, then)
            then = None
            if search.flat and objective is not cross_entropy and ZERO_GRADIENT not in self.flags:
                self.flags.append(ZERO_GRADIENT)
