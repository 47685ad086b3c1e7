"""The activations that k-WTA's authors compare it with: LWTA, max-pooling, broken ReLU."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from bench.defenses.networks import NetworkDefense
from bench.errors import UsageError
from bench.registry import register_defense

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


class _Grouped(NetworkDefense):
    """Units compete in groups of neighbouring channels.

    Args:
        group: channels in a group; every layer's width has to be a multiple of it.
        network: such as `resnet34`; the default for the data's size where it is empty.

    Raises:
        UnknownNameError: there is no such network.
        UsageError: a group of fewer than two.
    """

    twin = "relu"

    def __init__(self, *, group: int = 2, network: str = "") -> None:
        self.use(network)
        if group < 2:
            raise UsageError(f"group has to be at least 2 (got {group})")
        self.group = group


@register_defense("lwta")
class LWTA(_Grouped):
    """Local winner-takes-all: the largest of each group keeps its value. See `_Grouped`."""

    summary = "Local winner-takes-all activations (Srivastava et al. 2013)"

    def activation(self) -> Callable[[], nn.Module]:
        """LWTA."""
        from bench.defenses import activations

        return functools.partial(activations.LWTA, self.group)


@register_defense("max-pool")
class MaxPool(_Grouped):
    """Max-pooling over channels (maxout): all of a group take its largest value. See `_Grouped`."""

    summary = "Max-pooling over groups of channels in place of ReLU (Goodfellow et al. 2013)"

    def activation(self) -> Callable[[], nn.Module]:
        """Max-pooling that keeps the width."""
        from bench.defenses import activations

        return functools.partial(activations.MaxPoolActivation, self.group)


@register_defense("broken-relu")
class BrokenReLU(NetworkDefense):
    """ReLU with a jump: a negative constant in place of zero, an ablation by k-WTA's authors.

    Args:
        height: of the jump, at least 0.
        network: such as `resnet34`; the default for the data's size where it is empty.

    Raises:
        UnknownNameError: there is no such network.
        UsageError: a height that is negative or not finite.
    """

    summary = "ReLU with a jump at zero (Xiao et al. 2020, ablation)"
    twin = "relu"

    def __init__(self, *, height: float = 5.0, network: str = "") -> None:
        self.use(network)
        if not 0 <= height < math.inf:
            raise UsageError(f"height has to be finite and at least 0 (got {height})")
        self.height = height

    def activation(self) -> Callable[[], nn.Module]:
        """Broken ReLU."""
        from bench.defenses import activations

        return functools.partial(activations.BrokenReLU, self.height)
