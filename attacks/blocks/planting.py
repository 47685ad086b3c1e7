"""Planted adversarial examples: a model changed so that each example is known to have one.

An attack that searches them shows how much it finds on this very model (after Zimmermann, Brendel,
Tramèr and Carlini, "Increasing Confidence in Adversarial Robustness Evaluations", NeurIPS 2022).
Nothing is trained: the model's logits are read out anew, as two classes, along a random direction
for each example.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from bench.api.attacks import margins, radii
from bench.attacks.blocks.ball import Ball, Streams
from bench.attacks.blocks.behaviour import probabilities
from bench.threat import Norm

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem

#: Random corners of each ball, and steps from the furthest of them to further ones.
CORNERS, CLIMB = 200, 400
#: Corners of an example that are asked about at once.
AT_ONCE = 20
#: A corner is constant on this many blocks in each direction, on each channel: what moves pixel by
#: pixel hardly moves the logits of a large image.
GRID = 8
#: The share of the blocks whose corner a step changes.
CHANGED = 0.1
#: Of the way from an example to the furthest corner, where class 1 begins.
HEIGHT = 0.95
#: Below it a probability has no logarithm to speak of.
TINY = torch.finfo(torch.float32).tiny
ORDERS = {Norm.LINF: torch.inf, Norm.L2: 2.0, Norm.L1: 1.0}


class Logs(nn.Module):
    """Logarithms of what a model answers, for one that answers with probabilities.

    Far from a border those are all but constant, and so is whatever is read from them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float64 (N, classes)."""
        answers: Tensor = self.model(x).double()
        return answers.clamp(min=TINY).log()


class Readout(nn.Module):
    """Two classes read from a model's logits: each input by the readout of its nearest centre.

    Class 1 wins where the logits reach beyond a threshold along a direction.

    Args:
        model: float32 (N, C, H, W) to logits (N, classes).
        centres: (M, C, H, W), further apart than twice the radius of the balls around them, so
            that each point of a ball is nearest to its own.
        directions: float64 (M, classes).
        thresholds: float64 (M,).
        scales: float64 (M,), of the score.
        norm: in which the centres are near.
    """

    def __init__(
        self,
        model: nn.Module,
        centres: Tensor,
        directions: Tensor,
        thresholds: Tensor,
        scales: Tensor,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.model = model
        self._centres, self._directions = centres.flatten(1), directions
        self._thresholds, self._scales = thresholds, scales
        self._order = ORDERS[norm]

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 (N, 2), as far apart as the score."""
        distances = torch.cdist(x.detach().flatten(1), self._centres, p=self._order)
        nearest = distances.argmin(dim=1)
        along = (self.model(x).double() * self._directions[nearest]).sum(dim=1)
        half = (self._scales[nearest] * (along - self._thresholds[nearest])).float() / 2
        return torch.stack([-half, half], dim=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Planting:
    """Where adversarial examples are known to exist, and the problem of finding them."""

    rows: Tensor
    """The examples of the original problem that one was planted for, int64 (M,)."""
    problem: Problem
    """Two classes, and label 0 for each of `rows`; its model is a `Readout`."""
    known: Tensor
    """The planted adversarial examples, (M, C, H, W): of class 1, in the ball and the box."""


def plant(problem: Problem) -> Planting:
    """Plant an adversarial example for each example of a problem where that is possible.

    An example's logits are projected on a random direction, at itself and at corners of its ball,
    cut off at the box: first at random ones, then at the furthest with some blocks changed. Class 1
    begins shortly before the furthest. The score is scaled so that the margin at the example is
    that of the model itself. Of a model that answers with probabilities logarithms are read.

    Left out are examples within 2 epsilon of another one, and those at which nothing is further
    than they are themselves.

    Args:
        problem: in Linf, with an epsilon.

    Raises:
        AttackError: the problem has no epsilon.
        NonFiniteLogitsError: the model answered with NaN or infinity.
    """
    ball, streams = Ball.of(problem), Streams(problem, "planting")
    rows = _apart(problem.inputs, 2 * float(radii(problem).max()), ball.norm)
    inputs = problem.inputs[rows]
    with torch.no_grad():
        model, logits = problem.model, problem.model(inputs).double()
        if bool(probabilities(logits).all()):
            model = Logs(problem.model)
            logits = model(inputs)
    drawn = streams.normal(rows, -(-problem.classes // inputs[0].numel())).flatten(1)
    directions = drawn[:, : problem.classes].to(logits)
    directions = directions - directions.mean(dim=1, keepdim=True)  # what shifts all says nothing
    directions = directions / directions.norm(dim=1, keepdim=True)
    climb = _Climb(model, ball.at(rows), directions)
    climb.run(streams, rows)
    at = (logits * directions).sum(dim=1)
    thresholds = at + HEIGHT * (climb.highest - at)
    scales = margins(logits, problem.labels[rows]) / (thresholds - at)
    readout = Readout(model, inputs, directions, thresholds, scales, ball.norm)
    return _sound(problem, readout, rows, climb.furthest)


class _Climb:
    """Corners of each ball that reach further and further along a direction of the logits."""

    def __init__(self, model: nn.Module, ball: Ball, directions: Tensor) -> None:
        self.model, self.ball, self.directions = model, ball, directions
        self.highest = torch.full_like(directions[:, 0], -torch.inf)
        """How far the furthest is, float64 (M,)."""
        self.furthest, self.signs = ball.inputs.clone(), torch.ones_like(ball.inputs)

    def run(self, streams: Streams, rows: Tensor) -> None:
        """Random corners, then changes of the furthest."""
        for start in range(0, CORNERS, AT_ONCE):
            some = min(AT_ONCE, CORNERS - start)
            self.ask(random_corners(streams, rows, some))
        # Of standard normal draws this share is nearer to 0.
        near = math.sqrt(2) * float(torch.erfinv(torch.tensor(CHANGED)))
        for _ in range(CLIMB):
            drawn = in_blocks(streams.normal(rows, 1))
            self.ask(torch.where(drawn.abs() < near, -self.signs[:, None], self.signs[:, None]))

    def ask(self, signs: Tensor) -> None:
        """Keep the furthest of these corners, (M, K, C, H, W), where it is further."""
        count = signs.shape[1]
        around = self.ball.at(torch.arange(len(signs)).repeat_interleave(count))
        corners = around.project(around.inputs + around.radius * signs.flatten(0, 1))
        points = corners.reshape(signs.shape)
        with torch.no_grad():
            logits = self.model(corners).double().reshape(*points.shape[:2], -1)
        found, which = (logits * self.directions[:, None]).sum(dim=2).max(dim=1)
        (better,) = torch.where(found > self.highest)
        self.highest[better] = found[better]
        self.furthest[better] = points[better, which[better]]
        self.signs[better] = signs[better, which[better]]


def random_corners(streams: Streams, rows: Tensor, count: int) -> Tensor:
    """Signs of random corners for each of these examples, (M, count, C, H, W)."""
    return in_blocks(streams.normal(rows, count)).sign()


def in_blocks(drawn: Tensor) -> Tensor:
    """The numbers of `GRID` lines and columns, each spread over a block; (..., H, W)."""
    height, width = drawn.shape[-2:]
    down = torch.arange(height, device=drawn.device) * min(GRID, height) // height
    across = torch.arange(width, device=drawn.device) * min(GRID, width) // width
    return drawn[..., down[:, None], across[None]]


def _sound(problem: Problem, readout: Readout, rows: Tensor, known: Tensor) -> Planting:
    """Those for which the readout says class 0 at the example and class 1 at the planted one."""
    inputs = problem.inputs[rows]
    with torch.no_grad():
        before, after = readout(inputs), readout(known)
    sound = before.isfinite().all(dim=1) & (before[:, 0] > before[:, 1])
    sound &= after[:, 1] > after[:, 0]
    kept = rows[sound]
    planted = problem.part(
        kept,
        model=readout,
        labels=torch.zeros_like(problem.labels[kept]),
        classes=2,
        surrogates={},
        source=None,
        candidates=None,
    )
    return Planting(kept, planted, known[sound])


def _apart(inputs: Tensor, least: float, norm: Norm) -> Tensor:
    """Examples no two of which are nearer than this, int64: the first of those that are."""
    flat = inputs.flatten(1)
    near = torch.cdist(flat, flat, p=ORDERS[norm]) <= least
    kept: list[int] = []
    for row in range(len(flat)):
        if not near[row, kept].any():
            kept.append(row)
    return torch.tensor(kept, device=inputs.device)
