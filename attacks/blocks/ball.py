"""The logit margin that attacks lower, and the ball in which they do it.

Random numbers that belong to an example, whichever batch it comes in.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import torch

from bench.api.attacks import radius
from bench.threat import Epsilon, Norm, ThreatModel

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem


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
        return cls(problem.norm, 0.0).of_radius(radius(problem))

    def of_radius(self, radius: float) -> Ball:
        """One of another radius; in Linf the whole box is in that of 1."""
        return self._replace(radius=min(radius, 1.0) if self.norm is Norm.LINF else radius)

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


#: How far a point without ties is from the input in each pixel, where that is no closer to black
#: or white; and how far from those it stays.
JITTER, INSET = 0.02, 0.01


def untied(problem: Problem) -> Tensor:
    """A point beside each input, (N, C, H, W), whose pixels all differ; in [0.01, 0.99].

    Digits lie on a constant background, where the inputs of a max-pooling window are equal:
    autograd follows one of them, a difference sees the largest. At such ties an honest model has
    one-sided derivatives alone, and a measurement of its gradient has to be taken beside them.
    """
    edge = INSET + JITTER
    noise = 2 * Streams(problem, "untied").uniform(torch.arange(len(problem.inputs))) - 1
    return problem.inputs.clamp(edge, 1 - edge) + JITTER * noise


class Streams:
    """One random stream per example.

    A stream is seeded by the seed of the problem and the example itself (bytes and label), and
    moves only when its example draws: what an example gets depends neither on its batch-mates nor
    on which of them are still being attacked. Numbers are drawn on the CPU, so that every device
    gets the same.

    Args:
        problem: its examples, one stream each.
        purpose: streams of different purposes are independent.
    """

    def __init__(self, problem: Problem, purpose: str) -> None:
        self._device = problem.inputs.device
        self._shape = problem.inputs.shape[1:]
        self._generators = []
        labels = problem.labels.tolist()
        for x, label in zip(problem.inputs.cpu().numpy(), labels, strict=True):
            digest = hashlib.sha256(f"{problem.seed} {purpose} {label} ".encode() + x.tobytes())
            seed = int.from_bytes(digest.digest()[:8], "big") >> 1
            self._generators.append(torch.Generator().manual_seed(seed))

    def uniform(self, rows: Tensor) -> Tensor:
        """One draw from [0, 1) of an input's shape for each of these examples: (M, C, H, W)."""
        draws = [torch.rand(self._shape, generator=self._generators[row]) for row in rows.tolist()]
        return torch.stack(draws).to(self._device)

    def normal(self, rows: Tensor, count: int) -> Tensor:
        """So many standard normal draws for each of these examples: (M, count, C, H, W)."""
        shape = (count, *self._shape)
        draws = [torch.randn(shape, generator=self._generators[row]) for row in rows.tolist()]
        return torch.stack(draws).to(self._device)
