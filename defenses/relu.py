"""ReLU: the undefended control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.registry import register_defense
from defenses.networks import NetworkDefense

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@register_defense("relu")
class ReLU(NetworkDefense):
    """A plain network, naturally trained: what every other defense has to beat."""

    summary = "No defense: a plain ReLU network, the control"

    def activation(self) -> Callable[[], nn.Module]:
        """ReLU."""
        from torch import nn

        return nn.ReLU
