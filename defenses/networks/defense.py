"""The base class of a defense that is one of our networks with an activation of its own."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from bench.api import Defense, Recipe
from defenses.networks.choice import build_network, default_network
from defenses.recipes import Natural

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


class NetworkDefense(Defense):
    """A defense that lies in the activation: subclasses say which, and may choose the recipe."""

    @abstractmethod
    def activation(self) -> Callable[[], nn.Module]:
        """What makes the activation; called once for each of its places in the network."""

    def network(self, *, shape: tuple[int, int, int]) -> str:
        """`cnn` for 8×8 and 28×28, `resnet18` for 32×32.

        Raises:
            UsageError: there is none for this shape.
        """
        return default_network(shape)

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """The network with this activation and untrained weights."""
        return build_network(network, shape, classes, self.activation())

    def recipe(self, family: str) -> Recipe:
        """Natural training.

        Raises:
            UsageError: there are no settings for this family.
        """
        return Natural(family)
