"""The logit margin that attacks lower, and the ball in which they do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from bench.attacks.bridging import radius
from bench.threat import Epsilon, Norm, ThreatModel

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the best other logit: negative where the model is wrong.

    Unlike the cross-entropy it neither saturates nor loses its gradient when logits are large.

    Args:
        logits: (N, classes), at least two classes; gradients flow through.
        labels: int64, (N,).

    Returns:
        (N,), dtype of the logits.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
    return own - others


class Ball(NamedTuple):
    """What may be reached from an input: within a distance of it, and in the box [0, 1]."""

    norm: Norm
    """Any; `direction` and `start` are for Linf and L2."""
    radius: float

    @classmethod
    def of(cls, problem: Problem) -> Ball:
        """The ball of a problem.

        Raises:
            AttackError: the problem has no epsilon.
        """
        size = radius(problem)
        return cls(problem.norm, min(size, 1.0) if problem.norm is Norm.LINF else size)

    def project(self, inputs: Tensor, x: Tensor) -> Tensor:
        """Bring points back: `ThreatModel.project`. Float32, shape of the inputs."""
        return ThreatModel(self.norm, Epsilon.parse(self.radius)).project(inputs, x)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest step of size 1: the sign in Linf, the normalised gradient in L2.

        Zero where the gradient of an example is zero.
        """
        if self.norm is Norm.LINF:
            return gradient.sign()
        return unit(gradient)

    def start(self, inputs: Tensor, uniform: Tensor) -> Tensor:
        """Random points of the ball, made of random numbers.

        Args:
            inputs: (N, C, H, W).
            uniform: in [0, 1), same shape. In L2 their first number also sets the distance.
        """
        signed = 2 * uniform - 1
        if self.norm is Norm.LINF:
            return self.project(inputs, inputs + self.radius * signed)
        share = uniform.flatten(1)[:, 0].reshape(-1, *[1] * (inputs.ndim - 1))
        return self.project(inputs, inputs + self.radius * share * self.direction(signed))


def unit(x: Tensor) -> Tensor:
    """Each example scaled to L2 size 1; zero stays zero. Shape (N, ...)."""
    flat = x.flatten(1)
    largest = flat.abs().amax(dim=1, keepdim=True)
    flat = torch.where(largest > 0, flat / largest, 0)  # squares neither overflow nor vanish
    size = flat.square().sum(dim=1, keepdim=True).sqrt()
    return torch.where(size > 0, flat / size, 0).reshape(x.shape)
