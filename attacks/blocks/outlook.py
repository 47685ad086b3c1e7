"""How a search sees a model: its margins, and the kindest gradient that there is.

The model's own gradient, through winner-take-all layers as smooth as it is asked to be, by turns
with those that the defense declares. Of a randomised model everything is a mean over draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from bench.api.attacks import margins, surely_finite
from bench.attacks.blocks.looks import seeded
from bench.defenses.activations.smooth import Smoothness, soften
from bench.errors import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.api import Problem
    from bench.attacks.blocks.smoothing import SmoothBackward

#: From logits (M, classes) and labels, int64 (M,), to what a descent lowers, (M,).
Loss = Callable[["Tensor", "Tensor"], "Tensor"]
#: Answers of a randomised model that a look is the mean of.
DRAWS = 16
#: Sets the draws of one descent apart from those of another.
APART = 100_003


class Way(NamedTuple):
    """How a descent looks at the model: the same for all examples, which begin together."""

    number: int = 0
    """Of the descent or turn."""
    smooth: Smoothness = Smoothness()
    """Of the backward pass."""


class Seen(NamedTuple):
    """What a look at M points sees."""

    margins: Tensor
    """(M,), float64; means over draws where the model is randomised."""
    broken: Tensor
    """Whether the model is wrong, in each draw; bool (M,)."""
    gradient: Tensor | None
    """Of the loss, shape of the points; None where it was not asked for."""
    passes: Tensor
    """Forwards and backwards that each point took, int64 (M,)."""


class View(Protocol):
    """How the chains see the model."""

    draws: int
    """Answers that each look is the mean of."""

    @property
    def misled(self) -> bool:
        """Whether gradients may mislead: points that agree may have been led to the same place."""

    def __call__(self, x: Tensor, rows: Tensor, loss: Loss | None, way: Way) -> Seen:
        """Look at points.

        Args:
            x: (M, C, H, W).
            rows: which example each belongs to, int64 (M,).
            loss: what to differentiate; None for the margins alone.
            way: how.
        """


class Outlook:
    """The look of the adaptive attack.

    Args:
        problem: whose model is looked at.
        backward: what smooths the model's backward pass; None leaves it as it is.
    """

    def __init__(self, problem: Problem, backward: SmoothBackward | None) -> None:
        self.problem, self.backward = problem, backward
        self.draws = DRAWS if problem.randomised else 1
        self.ways: list[nn.Module] = [problem.model, *problem.surrogates.values()]
        self._told: dict[nn.Module, Smoothness] = {}

    @property
    def misled(self) -> bool:
        """Where a layer was found to mislead, and where none was looked for."""
        return self.backward is None or bool(self.backward.layers or self.backward.jumps)

    def __call__(self, x: Tensor, rows: Tensor, loss: Loss | None, way: Way) -> Seen:
        """See `View`."""
        labels = self.problem.labels[rows]
        passes = torch.full_like(rows, self.draws * (1 if loss is None else 2))
        if self.draws == 1:
            found, gradient = self._answer(x, labels, loss, way)
            return Seen(found, found < 0, None if loss is None else gradient, passes)
        drawn = [self._draw(x, labels, loss, way, draw) for draw in range(self.draws)]
        found = torch.stack([found for found, _ in drawn])
        mean, broken = found.mean(dim=0), (found < 0).all(dim=0)
        if loss is None:
            return Seen(mean, broken, None, passes)
        gradient = torch.stack([gradient for _, gradient in drawn]).mean(dim=0)
        return Seen(mean, broken, gradient, passes)

    def _draw(
        self, x: Tensor, labels: Tensor, loss: Loss | None, way: Way, draw: int
    ) -> tuple[Tensor, Tensor]:
        """Margins and, where there is a loss, its gradient; one answer of the model.

        A draw is a seed of torch's generators, the same at each step of a descent.
        """
        with seeded(self.problem.seed + APART * (self.draws * way.number + draw), x.device):
            return self._answer(x, labels, loss, way)

    def _answer(
        self, x: Tensor, labels: Tensor, loss: Loss | None, way: Way
    ) -> tuple[Tensor, Tensor]:
        if loss is None:
            with torch.no_grad():
                return margins(self.problem.model(x), labels).double(), x
        if self.backward is not None:
            self.backward.smooth = way.smooth
        module = self.ways[way.number % len(self.ways)]
        if module is not self.problem.model and self._told.get(module) != way.smooth:
            soften(module, way.smooth)
            self._told[module] = way.smooth
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = module(x)
            lowered = loss(logits, labels)
            gradient = _gradient(lowered.sum(), x)
        if self.backward is not None:
            self.backward.smooth = None
        told = lowered.detach() if loss is margins else margins(logits.detach(), labels)
        found, gradient = told.double(), gradient.detach()
        if not gradient.is_cuda and surely_finite(gradient):
            return found, gradient
        usable = gradient.isfinite().flatten(1).all(dim=1).reshape(-1, *[1] * (x.ndim - 1))
        return found, torch.where(usable, gradient, 0)


def _gradient(loss: Tensor, x: Tensor) -> Tensor:
    """Of a loss; zero where there is none, whatever the backward pass raises for want of it."""
    try:
        if loss.requires_grad:
            (found,) = torch.autograd.grad(loss, x, allow_unused=True)
            if found is not None:
                return found
    except Exception as error:
        if is_out_of_memory(error):
            raise
    return torch.zeros_like(x)
