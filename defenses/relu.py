"""ReLU: the undefended control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.defenses.networks import NetworkDefense
from bench.registry import register_defense

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@register_defense("relu")
class ReLU(NetworkDefense):
    """A plain network, naturally trained: what every other defense has to beat.

    Args:
        network: such as `resnet34`; the default for the data's size where it is empty.

    Raises:
        UnknownNameError: there is no such network.
    """

    summary = "No defense: a plain ReLU network, the control"

    def __init__(self, *, network: str = "") -> None:
        self.use(network)

    def activation(self) -> Callable[[], nn.Module]:
        """ReLU."""
        from torch import nn

        return nn.ReLU
