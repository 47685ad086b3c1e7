"""The fast adaptive boundary attack (Croce and Hein, ICML 2020), all targets in one batch.

It knows no epsilon: steps onto the linearised border of a target class, drawn back towards the
input whenever they are across. Settings are those of AutoAttack's standard version, without random
starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bench.attacks.blocks.batches import State
from bench.attacks.blocks.keeping import pace, put, some
from bench.attacks.blocks.levels import onto_plane
from bench.attacks.blocks.spending import STEPS
from bench.threat import Norm

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem

#: How far a step goes beyond the border; how far back it is drawn once it is across; and the
#: largest share that the step from the input has in it.
BEYOND, BACK, HOME = 1.05, 0.9, 0.1


@dataclass
class Crossing(State):
    """Where the search is with each row."""

    kinds: Tensor
    """Int64 (M,): which target, by its place."""
    targets: Tensor
    """Int64 (M,): the class to go towards."""
    clock: Tensor
    """Int64 (M,): steps made."""
    x: Tensor
    """(M, C, H, W)."""


class FastBoundary:
    """The smallest perturbation of each row: see `bench.attacks.blocks.batches.Stepwise`.

    Args:
        problem: its rows; no epsilon is needed.
        targets: classes to go towards, int64 (copies, N).
        enough: float64 (N,); a row leaves once it has a perturbation of at most this size.

    Attributes:
        best: float32 (copies, N, C, H, W): the nearest adversarial input, of each target.
        nearest: float64 (copies, N): how far it is; infinite where there is none.
    """

    def __init__(self, problem: Problem, targets: Tensor, enough: Tensor) -> None:
        self.problem, self.targets, self.enough = problem, targets, enough
        self.copies = len(targets)
        self.pace = pace(problem.inputs)
        self.best = problem.inputs.repeat(self.copies, 1, 1, 1, 1)
        self.nearest = torch.full(
            targets.shape, torch.inf, dtype=torch.float64, device=targets.device
        )

    def smallest(self) -> tuple[Tensor, Tensor]:
        """The nearest over all targets, (N, C, H, W), and how far it is, (N,)."""
        nearest, which = self.nearest.min(dim=0)
        return self.best[which, torch.arange(len(which), device=which.device)], nearest

    def enter(self, rows: Tensor) -> Crossing:
        """See `Stepwise`."""
        kinds = torch.arange(self.copies, device=rows.device).repeat(len(rows))
        rows = rows.repeat_interleave(self.copies)
        inputs = self.problem.inputs[rows]
        return Crossing(rows, kinds, self.targets[kinds, rows], torch.zeros_like(rows), inputs)

    def ended(self, state: Crossing) -> Tensor:
        """See `Stepwise`."""
        near = (self.nearest <= self.enough).any(dim=0)
        return (state.clock >= STEPS) | near[state.rows]

    def step(self, state: Crossing) -> None:
        """Onto the border, and back where that was across."""
        inputs = self.problem.inputs[state.rows]
        gap, slope = self._border(state)
        x, start = state.x.flatten(1), inputs.flatten(1)
        gap_home = gap + (slope * (start - x)).sum(dim=1)
        steps = onto_plane(
            self.problem.norm,
            torch.cat([x, start]),
            torch.cat([slope, slope]),
            -torch.cat([gap, gap_home]),
        )
        near, far = steps.chunk(2)
        here, home = (_sizes(self.problem.norm, step) for step in (near, far))
        share = (here / (here + home)).clamp(0, HOME)[:, None]
        moved = (x + BEYOND * near) * (1 - share) + (start + BEYOND * far) * share
        moved = moved.clamp(0, 1).reshape(inputs.shape)
        with torch.no_grad():
            logits = self.problem.model(moved)
        across = logits.argmax(dim=1) != self.problem.labels[state.rows]
        if some(across):
            self._keep(state, inputs, moved, across)
            back = inputs + BACK * (moved - inputs)
            moved = torch.where(across.reshape(-1, *[1] * (inputs.ndim - 1)), back, moved)
        state.x, state.clock = moved, state.clock + 1

    def _border(self, state: Crossing) -> tuple[Tensor, Tensor]:
        """Logit of the target minus that of the label, (M,), and its gradient, (M, K)."""
        labels = self.problem.labels[state.rows]
        with torch.enable_grad():
            x = state.x.detach().requires_grad_()
            logits = self.problem.model(x)
            own, other = (
                logits.gather(1, which[:, None]).squeeze(1) for which in (labels, state.targets)
            )
            gap = other - own
            (gradient,) = torch.autograd.grad(gap.sum(), x)
        return gap.detach(), gradient.flatten(1).nan_to_num(0.0, 0.0, 0.0)

    def _keep(self, state: Crossing, inputs: Tensor, moved: Tensor, across: Tensor) -> None:
        """Keep what is across and nearer; what has ended stays."""
        place = state.kinds * len(self.problem.labels) + state.rows
        if self.pace > 1:
            across = across & ~self.ended(state)
        else:
            place, inputs, moved, across = (each[across] for each in (place, inputs, moved, across))
        distance = self.problem.norm.distance(inputs, moved)
        nearest, best = self.nearest.view(-1), self.best.view(-1, *inputs.shape[1:])
        nearer = across & (distance < nearest[place])
        put(nearest, place, nearer, distance)
        put(best, place, nearer, moved)


def _sizes(norm: Norm, step: Tensor) -> Tensor:
    if norm is Norm.LINF:
        size = step.abs().amax(dim=1)
    elif norm is Norm.L2:
        size = step.square().sum(dim=1).sqrt()
    else:
        size = step.abs().sum(dim=1)
    return size.clamp(min=1e-8)
