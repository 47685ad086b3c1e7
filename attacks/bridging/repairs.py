"""Foolbox 3.3.4 attacks with a defect mended.

A class that has the name of Foolbox's replaces it; those of `MOMENTUM` stand beside it.
"""

from __future__ import annotations

from typing import Any

import eagerpy as ep
import foolbox
from foolbox.devutils import atleast_kd, flatten

from bench.threat import Norm


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
