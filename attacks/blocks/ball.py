"""The logit margin that attacks lower, and the ball in which they do it.

Random numbers that belong to an example, whichever batch it comes in.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import TYPE_CHECKING

import torch

from bench.api.attacks import radii
from bench.attacks.blocks.counters import Counters
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bench.api import Problem


class Ball:
    """What may be reached from each input: within a distance of it, and in the box [0, 1].

    Args:
        norm: any; `direction` and `start` are for Linf and L2.
        inputs: the middles, float32 in [0, 1], (N, C, H, W).
        radii: float64 (N,); in Linf the whole box is in that of 1.
    """

    def __init__(self, norm: Norm, inputs: Tensor, radii: Tensor) -> None:
        self.norm, self.inputs = norm, inputs
        self.radii = radii.clamp(max=1) if norm is Norm.LINF else radii

    @classmethod
    def of(cls, problem: Problem) -> Ball:
        """Those of a problem.

        Raises:
            AttackError: the problem has no epsilon.
        """
        return cls(problem.norm, problem.inputs, radii(problem))

    def at(self, rows: Tensor) -> Ball:
        """Those of some inputs, int64 (M,), as often as they are named."""
        some = Ball(self.norm, self.inputs[rows], self.radii[rows])
        if self.norm is Norm.LINF:
            low, high = self.ends
            some.ends = low[rows], high[rows]
        return some

    def times(self, factor: float) -> Ball:
        """So many times as wide."""
        return Ball(self.norm, self.inputs, self.radii * factor)

    @functools.cached_property
    def radius(self) -> Tensor:
        """To be multiplied with inputs: float32 (N, 1, 1, 1)."""
        return self.radii.float().reshape(-1, *[1] * (self.inputs.ndim - 1))

    @functools.cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """In Linf, the lowest and the highest that each pixel may be: shape of the inputs.

        Rounded once, since rounding keeps an order: what is clipped to them is what would be
        clipped in float64 and rounded then.
        """
        x, wide = self.inputs.double(), self.radii.reshape(-1, *[1] * (self.inputs.ndim - 1))
        return (x - wide).clamp(min=0).float(), (x + wide).clamp(max=1).float()

    def project(self, x: Tensor) -> Tensor:
        """Bring points back, as `Norm.project` does. Float32, shape of the inputs."""
        if self.norm is Norm.LINF:
            low, high = self.ends
            return torch.minimum(torch.maximum(x.float(), low), high)
        return self.norm.project(self.inputs, x, self.radii)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest step of size 1: the sign in Linf, the normalised gradient in L2.

        Zero where the gradient of an example is zero.
        """
        if self.norm is Norm.LINF:
            return gradient.sign()
        return unit(gradient)

    def start(self, uniform: Tensor) -> Tensor:
        """Random points of the ball, made of random numbers.

        Args:
            uniform: in [0, 1), shape of the inputs. In L2 their first number also sets the
                distance.
        """
        signed = 2 * uniform - 1
        if self.norm is Norm.LINF:
            return self.project(self.inputs + self.radius * signed)
        share = uniform.flatten(1)[:, 0].reshape(self.radius.shape)
        return self.project(self.inputs + self.radius * share * self.direction(signed))


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
    """One random stream per row.

    A stream is seeded by the seed of the problem, the example itself (bytes and label) and its
    epsilon, and moves only when its row draws: what a row gets depends neither on its batch-mates
    nor on which of them are still being attacked. On a CPU each stream is a generator of torch; on
    a GPU numbers are drawn where they are needed, for all rows at once (`Counters`): others.

    Args:
        problem: its rows, one stream each.
        purpose: streams of different purposes are independent.
        kinds: so many streams for each row, the first of all rows first: one for each restart or
            target.
    """

    def __init__(self, problem: Problem, purpose: str, kinds: int = 1) -> None:
        self._device = problem.inputs.device
        self._shape = problem.inputs.shape[1:]
        seeds = []
        labels = problem.labels.tolist()
        own = [None] * len(labels) if problem.epsilons is None else problem.epsilons.tolist()
        inputs = problem.inputs.cpu().numpy()
        for kind in range(kinds):
            for x, label, epsilon in zip(inputs, labels, own, strict=True):
                radius = problem.epsilon if epsilon is None else epsilon
                about = f"{problem.seed} {purpose} {kind} {label} {radius!r} "
                digest = hashlib.sha256(about.encode() + x.tobytes())
                seeds.append(int.from_bytes(digest.digest()[:8], "big") >> 1)
        self._count = len(seeds)
        self._counters: Counters | None = None
        self._generators: list[torch.Generator] = []
        if counted(self._device):
            self._counters = Counters(seeds, self._device)
        else:
            self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def uniform(self, rows: Tensor | None = None, shape: Sequence[int] | None = None) -> Tensor:
        """Draws from [0, 1) for each of these rows, or all: (M, C, H, W), or (M, *shape)."""
        if rows is None:
            rows = torch.arange(self._count, device=self._device)
        size = (len(rows), *(self._shape if shape is None else shape))
        if self._counters is not None:
            rows = rows.to(self._device)
            return self._counters.uniform(rows, math.prod(size[1:])).reshape(size)
        drawn = torch.empty(size)
        for row, into in zip(rows.tolist(), drawn.unbind(), strict=True):
            into.uniform_(generator=self._generators[row])
        return drawn.to(self._device)

    def normal(self, rows: Tensor, count: int) -> Tensor:
        """So many standard normal draws for each of these rows: (M, count, C, H, W)."""
        size = (len(rows), count, *self._shape)
        if self._counters is not None:
            rows = rows.to(self._device)
            return self._counters.normal(rows, math.prod(size[1:])).reshape(size)
        drawn = torch.empty(size)
        for row, into in zip(rows.tolist(), drawn.unbind(), strict=True):
            into.normal_(generator=self._generators[row])
        return drawn.to(self._device)


def counted(device: torch.device) -> bool:
    """Whether random numbers are drawn by counters there."""
    return device.type == "cuda"
