"""k-Winners-Take-All in place of ReLU (Xiao, Zhong, Zheng, ICLR 2020)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.registry import register_defense
from defenses.networks import NetworkDefense, build_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

#: Times gamma: the shares of winners whose gradient the surrogates pass.
BACKWARD = (1.5, 2.0)


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

    def surrogates(
        self, *, network: str, shape: tuple[int, int, int], classes: int
    ) -> dict[str, nn.Module]:
        """The same network whose gradient passes the winners of 1.5 and of 2 times gamma.

        Which units win changes within small distances of an input, and the gradient of the winners
        alone does not know of it. Nothing is kinder about them when all units win already.
        """
        from defenses import activations

        return {
            f"{factor:g}gamma": build_network(
                network,
                shape,
                classes,
                functools.partial(
                    activations.KWTA,
                    self.gamma,
                    exact=self.exact,
                    backward_gamma=min(1.0, factor * self.gamma),
                ),
            )
            for factor in BACKWARD
            if self.gamma < 1
        }
