"""k-Winners-Take-All in place of ReLU (Xiao, Zhong, Zheng, ICLR 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.registry import register_defense
from defenses.networks import NetworkDefense

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@register_defense("kwta")
class KWTA(NetworkDefense):
    """A network whose activations keep the largest values of a layer, naturally trained.

    Published as robust; known to hide its gradients (Tramèr et al., NeurIPS 2020).

    Args:
        gamma: the share of units that win, in (0, 1].
        exact: break ties by index, so that exactly k win.

    Raises:
        UsageError: gamma is not in (0, 1].
    """

    summary = "k-Winners-Take-All activations (Xiao et al. 2020)"
    twin = "relu"

    def __init__(self, *, gamma: float = 0.1, exact: bool = False) -> None:
        if not 0 < gamma <= 1:
            raise UsageError(f"gamma has to be greater than 0 and at most 1 (got {gamma})")
        self.gamma = gamma
        self.exact = exact

    def activation(self) -> Callable[[], nn.Module]:
        """k-WTA."""
        from defenses import activations

        return functools.partial(activations.KWTA, self.gamma, exact=self.exact)
