"""Foolbox 3.3.4 attacks with a defect mended.

A class that has the name of Foolbox's replaces it; those of `MOMENTUM` stand beside it.

Adversarial starting points for attacks that walk along the decision boundary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import eagerpy as ep
import torch

from bench.attacks.blocks.library import foolbox
from bench.threat import Norm

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem

atleast_kd, flatten = foolbox.devutils.atleast_kd, foolbox.devutils.flatten


class L2FMNAttack(foolbox.attacks.L2FMNAttack):  # type: ignore[misc]
    """FMN whose perturbation is projected on its ball; Foolbox divides the norm by itself."""

    def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
        """The point of the L2 ball of these radii around `x0` that is nearest to `x`."""
        norms = ep.maximum(flatten(x - x0).norms.l2(axis=-1), 1e-12)
        return x0 + (x - x0) * atleast_kd(ep.minimum(1, epsilon / norms), x.ndim)


class LinfRepeatedAdditiveUniformNoiseAttack(
    foolbox.attacks.LinfRepeatedAdditiveUniformNoiseAttack  # type: ignore[misc]
):
    """Noise of size epsilon; Foolbox scales its largest value instead of its largest magnitude."""

    def get_epsilons(self, x: Any, p: Any, epsilon: float, min_: float, max_: float) -> Any:
        """The factor of each example's noise."""
        return epsilon / atleast_kd(flatten(p).abs().max(axis=-1), p.ndim)


class HopSkipJumpAttack(foolbox.attacks.HopSkipJumpAttack):  # type: ignore[misc]
    """HopSkipJump with a unit step for each example; Foolbox shares one unit among the batch."""

    def approximate_gradients(
        self, is_adversarial: Any, x_advs: Any, steps: int, delta: Any
    ) -> Any:
        """The estimated normal of the boundary, of L2 norm 1 for each example."""
        normals = super().approximate_gradients(is_adversarial, x_advs, steps, delta)
        return normals / atleast_kd(flatten(normals).norms.l2(axis=-1) + 1e-12, normals.ndim)


class _MomentumOfGradients:
    """Momentum over gradients of L1 size 1 (Dong et al., CVPR 2018), whatever the norm.

    Foolbox scales each gradient as it scales steps, which in Linf leaves nothing but its signs.
    """

    def normalize(self, gradients: Any, *, x: Any, bounds: Any) -> Any:
        """Each example's gradient over its L1 size; zero stays zero."""
        sizes = flatten(gradients).abs().sum(axis=-1)
        return gradients / atleast_kd(ep.where(sizes > 0, sizes, 1.0), gradients.ndim)


class _LinfMomentum(
    _MomentumOfGradients,
    foolbox.attacks.LinfMomentumIterativeFastGradientMethod,  # type: ignore[misc]
):
    """Steps by the sign of the sum."""


class _L2Momentum(
    _MomentumOfGradients,
    foolbox.attacks.L2MomentumIterativeFastGradientMethod,  # type: ignore[misc]
):
    """Steps by the sum, scaled to L2 size 1."""


class _L1Momentum(
    _MomentumOfGradients,
    foolbox.attacks.L1MomentumIterativeFastGradientMethod,  # type: ignore[misc]
):
    """Steps by the sum, scaled to L1 size 1."""


#: The momentum iterative method as published, by the norm that it searches in.
MOMENTUM = {Norm.LINF: _LinfMomentum, Norm.L2: _L2Momentum, Norm.L1: _L1Momentum}


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
