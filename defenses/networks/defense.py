"""The base class of a defense that is one of our networks with an activation of its own."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from bench.api import Defense, Recipe
from bench.defenses.networks.choice import build_network, check_network, default_network
from bench.defenses.recipes import Natural

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


class NetworkDefense(Defense):
    """A defense that lies in the activation: subclasses say which, and may choose the recipe.

    A subclass with a parameter `network` hands it to `use`; without one, the data's size chooses.
    """

    training: ClassVar[type[Recipe]] = Natural
    """From a family of data sets to how it is trained."""
    _network: str = ""

    def use(self, network: str) -> None:
        """Take this network for every data set, in the twin as well; none where it is empty.

        Raises:
            UnknownNameError: there is no such network.
            UsageError: a size that it cannot have.
        """
        if not network:
            return
        check_network(network)
        self._network = network
        if self.twin is not None:
            self.twin = f"{self.twin}[network={network}]"

    @abstractmethod
    def activation(self) -> Callable[[], nn.Module]:
        """What makes the activation; called once for each of its places in the network."""

    def network(self, *, shape: tuple[int, int, int]) -> str:
        """The one that was named, or the default for this size: see `default_network`.

        Raises:
            UsageError: there is none for this shape.
        """
        return self._network or default_network(shape)

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """The network with this activation and untrained weights."""
        return build_network(network, shape, classes, self.activation())

    def recipe(self, family: str) -> Recipe:
        """Natural training, or what `training` says.

        Raises:
            UsageError: there are no settings for this family.
        """
        return self.training(family)  # type: ignore[call-arg]
