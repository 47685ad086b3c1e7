"""Defenses whose gradient is missing, zero, or of something else."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from bench.testing import honest
from bench.testing.canaries.base import Canary, Pair


def cosines(size: int) -> Tensor:
    """The orthonormal cosine transform of so many values, (size, size)."""
    angles = torch.arange(size)[:, None] * (torch.arange(size) + 0.5) * math.pi / size
    basis = math.sqrt(2 / size) * angles.cos()
    basis[0] = math.sqrt(1 / size)
    return basis


class DetachedGradient(Canary):
    """Cuts the graph, so that the gradient cannot be computed."""

    name = "detached-gradient"
    evidence = ("zero-margin-gradient", "unavailable-gradients")

    def forward(self, x: Tensor) -> Tensor:
        """Logits that do not depend on `x`, as far as autograd knows."""
        return self.logits(x.detach())


class InputRounding(Canary):
    """Rounds pixels to four levels; the gradient of rounding is zero."""

    name = "input-rounding"
    evidence = ("zero-margin-gradient", "gradient-fidelity")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rounded input."""
        return self.logits((3 * x).round() / 3)


class Compression(Canary):
    """Rounds the cosine transform of 4×4 blocks, as JPEG does, and declares no surrogate."""

    name = "compression"
    evidence = ("zero-margin-gradient", "unavailable-gradients")
    basis: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("basis", cosines(4))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the compressed input."""
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 4, 4, w // 4, 4).transpose(3, 4)
        coefficients = (self.basis @ blocks @ self.basis.T / 0.25).round() * 0.25
        blocks = (self.basis.T @ coefficients @ self.basis).transpose(3, 4)
        return self.logits(blocks.reshape(n, c, h, w))


class WrongSurrogate(Canary):
    """Rounds pixels to four levels, and declares a gradient that is not of them: mirrored."""

    name = "wrong-surrogate"
    evidence = ("gradient-fidelity",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rounded input."""
        mirrored = x.flip(-1)
        return self.logits((3 * x).round().detach() / 3 + (mirrored - mirrored.detach()))


class HiddenMember(Pair):
    """An ensemble of two, which shows the gradient of the one that hardly counts.

    Args:
        net: the one that counts.
    """

    name = "hidden-member"
    evidence = ("black-box-beyond-white-box", "square-beyond-white-box", "gradient-fidelity")

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both members' logits, the other one's a twentieth."""
        other: Tensor = self.other(x)
        return self.logits(x.detach()) + other / 20


class Ripples(Canary):
    """Lays ripples over the input, too low to matter, whose slope drowns the gradient."""

    name = "ripples"
    evidence = ("gradient-fidelity",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rippled input, off by at most 0.004."""
        return self.logits(x + 0.004 * torch.sin(2500 * x))


class Watched(Canary):
    """Answers about the mirror image whenever somebody follows its gradient."""

    name = "watched"
    evidence = ("gradient-fidelity",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, of another image where a gradient is asked for."""
        return self.logits(x.flip(-1) if x.requires_grad else x)


class KWinnersTakeAll(Canary):
    """Has k-WTA activations with gamma 0.1 in place of ReLU; trained as its twin is."""

    name = "kwta"
    evidence = ("gradient-fidelity",)
    trained = honest.HonestModel("kwta", functools.partial(honest.network, "kwta"), "kwta")

    @classmethod
    def build(cls, seed: int) -> nn.Module:
        """The network itself: what is wrong lies inside it."""
        return cls.trained.build(seed)


class ChannelWinners(KWinnersTakeAll):
    """As above, but each channel's units compete among themselves, by magnitude."""

    name = "kwta-channel"
    trained = honest.HonestModel(
        "kwta-channel",
        functools.partial(honest.network, "kwta[kind=channel-magnitude]"),
        "kwta[kind=channel-magnitude]",
    )


class LocalWinners(KWinnersTakeAll):
    """Has LWTA activations: of two neighbouring channels the larger one stays."""

    name = "lwta"
    trained = honest.HonestModel("lwta", functools.partial(honest.network, "lwta"), "lwta")


class SparseInput(Canary):
    """Keeps the 16 largest of an image's 64 cosine coefficients (Marzi et al., ISIT 2018)."""

    name = "sparse-input"
    evidence = ("gradient-fidelity",)
    basis: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("basis", cosines(8))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the sparse image."""
        coefficients = self.basis @ x @ self.basis.T
        least = coefficients.abs().flatten(1).topk(16, dim=1).values[:, -1].reshape(-1, 1, 1, 1)
        kept = torch.where(coefficients.abs() >= least, coefficients, 0)
        return self.logits(self.basis.T @ kept @ self.basis)
