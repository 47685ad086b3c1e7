"""Descent over images that a file could hold: of as many levels as the image itself.

A model may answer these by another way than what lies between them, and every other attack asks
about the latter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.api import Attack, Cost, Proposal
from bench.errors import check_positive
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem
    from bench.attacks.blocks.ball import Ball
    from bench.attacks.blocks.descent import Look, Sight

#: The most that a pixel may be off its level, in parts of the distance between two.
OFF = 1e-3


@register_attack("quantised-pgd")
class QuantisedPGD(Attack):
    """PGD on the logit margin whose iterates are rounded to the levels of each image.

    The levels are multiples of 1/k, k the smallest of 1, 2, 3, 4, 7, 8, 15, ... 255, 256 with which
    all pixels of the image are some: 255 of what was stored with 8 bits. The model is asked, and
    its gradient taken, at the rounded point; steps add up between the levels (straight-through,
    Bengio et al., 2013). An image without levels, or with none but its own within epsilon, stays as
    it is.

    Args:
        steps: gradient steps of each descent, which fall from half of epsilon along half a cosine.
        restarts: descents, from random points of the ball after the first.
    """

    summary = "Gradient descent over images of the data's own levels, such as 8 bits"
    version = 1
    lowers = "margin"
    approach = "mixed"
    challenge = "quantised"
    spoken = "PGD over images of the data's own levels"
    stand_in = "restarts=1"
    escalation = (("",),)
    each_row = True
    norms = frozenset({Norm.LINF})

    def __init__(self, *, steps: int = 40, restarts: int = 4) -> None:
        check_positive(steps=steps, restarts=restarts)
        self.steps, self.restarts = steps, restarts

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step of every descent, for an example that does not break."""
        return Cost(self.steps + 1, self.steps) * self.restarts

    def run(self, problem: Problem) -> Proposal:
        """Search.

        Raises:
            AttackError: the problem has no epsilon.
        """
        import torch

        from bench.api.attacks import radii

        (rows,) = torch.where(levels(problem.inputs) * radii(problem) > 1 - OFF)
        candidates = problem.inputs.clone()
        if len(rows):
            candidates[rows] = self._found(problem.part(rows))
        return Proposal(candidates)

    def _found(self, problem: Problem) -> Tensor:
        """The best image for each, all of which have levels."""
        import torch

        from bench.attacks.blocks.ball import Streams
        from bench.attacks.blocks.descent import OwnGradient, Search, cosine

        search = Search(problem)
        rounded = Rounded(search.ball, OwnGradient(problem.model, problem.labels))
        rows = torch.arange(len(problem.inputs), device=problem.inputs.device)
        sizes = cosine(self.steps, 0.5)
        search.descend(problem.inputs, rows, sizes, rounded)
        search.restart(Streams(problem, "quantised"), sizes, rounded, self.restarts - 1)
        return rounded.nearest(search.best, rows)


class Rounded:
    """Looks at the nearest image of the example's own levels.

    Args:
        ball: that it stays in, of all examples, in Linf; each has levels.
        look: at it.
    """

    def __init__(self, ball: Ball, look: Look) -> None:
        self.ball, self.look, self.counts = ball, look, levels(ball.inputs)

    def __call__(self, x: Tensor, rows: Tensor, step: int | None) -> Sight:
        """See `Look`."""
        return self.look(self.nearest(x, rows), rows, step)

    def nearest(self, x: Tensor, rows: Tensor) -> Tensor:
        """The nearest image of the levels within the ball; the example's own pixels are kept.

        Args:
            x: in the ball, (M, C, H, W).
            rows: which example each is, int64 (M,).
        """
        import torch

        ball, count = self.ball.at(rows), self.counts[rows].reshape(-1, *[1] * (x.ndim - 1))
        own, (low, high) = ball.inputs, ball.ends
        place = (x * count).round().clamp((low * count - OFF).ceil(), (high * count + OFF).floor())
        moved = place != (own * count).round()
        return ball.project(torch.where(moved, place / count, own))


def levels(images: Tensor) -> Tensor:
    """The smallest k for each image of whose multiples of 1/k all its pixels are, 0 without one.

    Args:
        images: in [0, 1], (N, C, H, W).

    Returns:
        Shape (N,), dtype of the images: 2^b - 1 or 2^b for b of 1 to 8.
    """
    import torch

    found = torch.zeros(len(images), dtype=images.dtype, device=images.device)
    for count in sorted({2**bits - less for bits in range(1, 9) for less in (0, 1)}, reverse=True):
        scaled = images * count
        fits = ((scaled - scaled.round()).abs() <= OFF).flatten(1).all(dim=1)
        found = torch.where(fits, count, found)
    return found
