"""Descent on the margin: one loop for every way to look at the model.

A look answers for some inputs how large their margins are and which way they grow; the loop
steps against it, keeps the best iterate of each example, and lets broken examples go.

What the path of a descent says about the gradients that it followed.

The indicators are those of Pintor et al., "Indicators of Attack Failure" (NeurIPS 2022), read on
the logit margin: with the cross-entropy, honest models with large logits look masked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from bench.api.attacks import margins
from bench.attacks.blocks.ball import Ball, unit
from bench.attacks.blocks.keeping import put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from bench.api import Attack, Problem
    from bench.attacks.blocks.ball import Streams


class Sight(NamedTuple):
    """What a look shows."""

    margins: Tensor
    """(M,): what is to fall below 0."""
    gradient: Tensor | None
    """(M, C, H, W), finite: the direction of growth. None when none was asked for."""


class Path(NamedTuple):
    """Where a descent went."""

    margins: Tensor
    """Float64, (steps + 1, M), of the start and after each step; NaN after an example left."""
    flat: Tensor
    """Bool (M,): the gradient at the start was zero, missing, or not finite."""


class Look(Protocol):
    """A way to look at the model."""

    def __call__(self, x: Tensor, rows: Tensor, step: int | None) -> Sight:
        """Margins at `x` and, unless `step` is None, their gradient.

        Args:
            x: (M, C, H, W).
            rows: int64 (M,), which example of the problem each row of `x` belongs to.
            step: which step is to be taken from here, from 0 up; None at the end.
        """


class Search:
    """The best iterate of each example, over all the descents that are run.

    Args:
        problem: with an epsilon; in Linf or L2 where it descends.
        copies: so many of each example, all first ones before all second ones: restarts that are
            made at once. All of them leave when one is broken.
    """

    def __init__(self, problem: Problem, copies: int = 1) -> None:
        self.problem = problem
        self.copies = copies
        self.ball = Ball.of(problem)
        self.best = problem.inputs.clone()
        self.lowest = torch.full(
            problem.labels.shape, math.inf, dtype=torch.float64, device=problem.inputs.device
        )

    @property
    def remaining(self) -> Tensor:
        """The examples that are not broken yet, int64."""
        return torch.where(self.lowest >= 0)[0]

    def lowest_copies(self) -> tuple[Tensor, Tensor]:
        """Of all copies of each example the best iterate, and its margin."""
        lowest, which = self.lowest.reshape(self.copies, -1).min(dim=0)
        best = self.best.reshape(self.copies, -1, *self.best.shape[1:])
        return best[which, torch.arange(len(which), device=which.device)], lowest

    def keep(self, rows: Tensor, x: Tensor, found: Tensor) -> None:
        """Keep the iterates that are better than what these examples have."""
        found = found.double()
        better = found < self.lowest[rows]
        put(self.best, rows, better, x)
        put(self.lowest, rows, better, found)

    def offer(self, rows: Tensor, candidates: Tensor) -> None:
        """Ask the model about candidates for these examples, and keep those that are better."""
        with torch.no_grad():
            logits = self.problem.model(candidates)
        self.keep(rows, candidates, margins(logits, self.problem.labels[rows]))

    def hand_over(self, attack: Attack, model: nn.Module) -> None:
        """Let an attack search on a model, for the examples not broken yet."""
        rows = self.remaining
        if len(rows):
            part = self.problem.part(rows, model=model)
            self.offer(rows, attack.run(part).candidates)

    def descend(
        self, x: Tensor, rows: Tensor, sizes: Sequence[float], look: Look, *, leave: bool = True
    ) -> Path:
        """Step from `x`, each step of its own size.

        Args:
            x: where to start, (M, C, H, W).
            rows: the examples that these are, int64 (M,).
            sizes: of the steps, relative to epsilon.
            look: see `Look`.
            leave: whether an example leaves the batch once it is broken.

        Returns:
            The path, one column for each row of `x`.
        """
        flat = torch.zeros_like(rows, dtype=torch.bool)
        history = torch.full((len(sizes) + 1, len(rows)), math.nan, device=x.device).double()
        places = torch.arange(len(rows), device=x.device)
        for step, size in enumerate([*sizes, None]):
            sight = look(x, rows, None if size is None else step)
            history[step, places] = sight.margins.double()
            self.keep(rows, x, sight.margins)
            if size is None or sight.gradient is None:
                break
            gradient = sight.gradient
            if step == 0:
                flat = (gradient.flatten(1) == 0).all(dim=1)
            if leave:
                held = (self.lowest.reshape(self.copies, -1) >= 0).all(dim=0).repeat(self.copies)
                (stay,) = torch.where(held[rows])
                x, rows, places, gradient = x[stay], rows[stay], places[stay], gradient[stay]
                if len(rows) == 0:
                    break
            ball = self.ball.at(rows)
            x = ball.project(x - size * ball.radius * ball.direction(gradient))
        return Path(history, flat)

    def restart(self, streams: Streams, sizes: Sequence[float], look: Look, times: int) -> None:
        """Descend from random points of the ball, each time with the examples not broken yet."""
        for _ in range(times):
            rows = self.remaining
            if len(rows) == 0:
                break
            x = self.ball.at(rows).start(streams.uniform(rows))
            self.descend(x, rows, sizes, look)


class OwnGradient:
    """Looks through the model's own gradient: a forward and a backward.

    Args:
        model: to logits (M, classes); the one whose gradient is followed.
        labels: int64 (N,), of all examples of the problem.
    """

    def __init__(self, model: nn.Module, labels: Tensor) -> None:
        self.model = model
        self.labels = labels

    def __call__(self, x: Tensor, rows: Tensor, step: int | None) -> Sight:
        """See `Look`."""
        if step is None:
            with torch.no_grad():
                return Sight(margins(self.model(x), self.labels[rows]), None)
        return Sight(*margin_gradient(self.model, x, self.labels[rows]))


class Momentum:
    """Looks through the gradients seen so far, each of L2 size 1 (Dong et al., CVPR 2018).

    Args:
        look: the gradients.
        inputs: of all examples of the problem, (N, C, H, W).
        decay: what is left of an older gradient after each step.
    """

    def __init__(self, look: Look, inputs: Tensor, decay: float) -> None:
        self.look = look
        self.decay = decay
        self.sums = torch.zeros_like(inputs)

    def __call__(self, x: Tensor, rows: Tensor, step: int | None) -> Sight:
        """See `Look`; step 0 forgets."""
        found, gradient = self.look(x, rows, step)
        if gradient is None:
            return Sight(found, None)
        older = self.decay * self.sums[rows] if step else 0
        self.sums[rows] = older + unit(gradient)
        return Sight(found, self.sums[rows])


def margin_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Margins and their gradient, zero where the model has none or one that is not finite.

    Args:
        model: to logits (M, classes); it need not be differentiable.
        x: (M, C, H, W).
        labels: int64 (M,).

    Returns:
        Margins (M,), and the gradient, shape of `x`; both detached.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        found = margins(model(x), labels)
        gradient = None
        if found.requires_grad:
            (gradient,) = torch.autograd.grad(found.sum(), x, allow_unused=True)
    if gradient is None:
        return found.detach(), torch.zeros_like(x.detach())
    usable = gradient.isfinite().flatten(1).all(dim=1)
    return found.detach(), torch.where(
        usable.reshape(-1, *[1] * (x.ndim - 1)), gradient.detach(), 0
    )


def cosine(steps: int, size: float) -> list[float]:
    """Step sizes that fall from `size` towards 0 along half a cosine."""
    return [size * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]


#: Steps at the end over which a finished descent does not improve any more.
LAST = 10


#: Steps at the end on which a descent is watched for getting worse: of those of `margin-pgd` the
#: ones below 0.075 epsilon. Larger steps overshoot on an honest model too, where epsilon is large.
WATCHED = 20


#: The share of the whole range of the loss by which it may still improve there.
INCOMPLETE = 0.05


#: The share of the range of the loss by which a step has to raise it to count: signed steps
#: zigzag around the optimum of an honest model too, by less.
WORSE = 0.02


def trace(path: Path) -> dict[str, Any]:
    """Columns for `Proposal.extra`, one value per example.

    Args:
        path: from the inputs, of N examples that all went to the end.

    Returns:
        Arrays of shape (N,):
        `silent_success`: bool, some iterate was adversarial and the last was not.
        `incomplete`: bool, the running minimum of the margin, scaled to [0, 1] by the range of
        the margin on the path, fell by more than 0.05 over the last 10 steps.
        `worsened`: float, the share of the last 20 steps on which the margin grew by over 2 % of
        its range.
        `zero_gradient`: bool, no gradient at the input, or one that is not finite.
        `trace_margin_first`, `trace_margin_last`, `trace_margin_best`: float.
    """
    history = path.margins
    best = history.cummin(dim=0).values
    spread = history.amax(dim=0) - best[-1]
    late = best[max(0, len(history) - 1 - LAST)] - best[-1]
    watched = history[max(0, len(history) - 1 - WATCHED) :]
    columns = {
        "silent_success": (best[-1] < 0) & (history[-1] >= 0),
        "incomplete": late > INCOMPLETE * spread,
        "worsened": (watched.diff(dim=0) > WORSE * spread).double().mean(dim=0),
        "zero_gradient": path.flat,
        "trace_margin_first": history[0],
        "trace_margin_last": history[-1],
        "trace_margin_best": best[-1],
    }
    return {name: values.cpu().numpy() for name, values in columns.items()}
