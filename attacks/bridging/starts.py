"""Adversarial starting points for attacks that walk along the decision boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem

#: Draws of uniform noise for an example that no other input of the batch helps.
DRAWS = 100
#: Bisections of the way from the input to its starting point.
BISECTIONS = 10


class Starts(NamedTuple):
    """Starting points, and the examples that have one."""

    points: Tensor
    """Float32, (N, C, H, W); the input itself where there is none."""
    usable: Tensor
    """Int64 indices of the examples whose point is adversarial, judged in just that batch."""


def starting_points(problem: Problem, wanted: Tensor) -> Starts:
    """Find an adversarial input for each wanted example, at any distance, and bring it nearer.

    Candidates are the nearest input of the batch with another class, then up to `DRAWS` draws of
    uniform noise. The way from the input to the candidate is bisected `BISECTIONS` times.

    Args:
        problem: all examples: those of other classes are candidates.
        wanted: bool (N,), the examples to find a point for.
    """
    inputs, labels, model = problem.inputs, problem.labels, problem.model
    with torch.no_grad():
        points = _nearest_of_another_class(problem)
        wrong = model(points).argmax(dim=1) != labels
        for _ in range(DRAWS):
            if bool(wrong[wanted].all()):
                break
            noise = torch.rand_like(inputs)
            news = ~wrong & (model(noise).argmax(dim=1) != labels)
            points[news] = noise[news]
            wrong |= news
        low, high = torch.zeros_like(wrong, dtype=torch.float32), torch.ones_like(wrong).float()
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            crossed = model(_blend(inputs, points, middle)).argmax(dim=1) != labels
            high = torch.where(crossed & wrong, middle, high)
            low = torch.where(crossed, low, middle)
        points = _blend(inputs, points, high)
        # A prediction at the boundary can depend on its batch, and the attack gets this batch.
        (usable,) = torch.where(wrong & wanted)
        while len(usable):
            still = model(points[usable]).argmax(dim=1) != labels[usable]
            if bool(still.all()):
                break
            usable = usable[still]
    return Starts(points, usable)


def _nearest_of_another_class(problem: Problem) -> Tensor:
    """For each example the nearest input with another label; itself where there is none."""
    points = problem.inputs.clone()
    for row, (x, label) in enumerate(zip(problem.inputs, problem.labels, strict=True)):
        others = problem.inputs[problem.labels != label]
        if len(others):
            distances = problem.norm.distance(x.expand_as(others), others)
            points[row] = others[int(distances.argmin())]
    return points


def _blend(inputs: Tensor, points: Tensor, share: Tensor) -> Tensor:
    """The inputs moved by these shares of the way towards the points, in the box."""
    share = share.reshape(-1, *[1] * (inputs.ndim - 1))
    return torch.where(share == 1, points, (inputs + share * (points - inputs)).clamp(0, 1))
