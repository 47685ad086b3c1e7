"""Foolbox 3.3.4 attacks with a defect mended; each class has the name of the one it replaces."""

from __future__ import annotations

from typing import Any

import eagerpy as ep
import foolbox
from foolbox.devutils import atleast_kd, flatten


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
