"""What every defense that is broken by design has in common."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bench.testing import honest

#: The honest model that the canaries are made of.
TWIN = "cnn"


class Canary(nn.Module):
    """A defense that Winnow must not believe: a network, and around it one thing that is wrong.

    Args:
        net: float32 (N, 1, 8, 8) to logits (N, classes).
    """

    name: ClassVar[str]
    evidence: ClassVar[tuple[str, ...]]
    """Identifiers of evidence; at least one of them has to be raised."""
    twin: ClassVar[str] = TWIN
    """The name of the honest model that it is no more robust than."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    @classmethod
    def build(cls, seed: int) -> nn.Module:
        """The canary around its twin trained from a seed, in eval mode, its parameters frozen."""
        return cls(honest.build(cls.twin, seed)).eval().requires_grad_(False)

    def logits(self, x: Tensor) -> Tensor:
        """Those of the network inside."""
        logits: Tensor = self.net(x)
        return logits


class Pair(Canary):
    """A canary of two networks: its twin, and an honest linear model beside it."""

    other: nn.Module

    @classmethod
    def build(cls, seed: int) -> nn.Module:
        """Both trained from a seed."""
        pair = cls(honest.build(cls.twin, seed))
        pair.other = honest.build("linear", seed)
        return pair.eval().requires_grad_(False)
