"""Networks as functions of their activation, and the base class of defenses that use them.

Importing this does not import torch; building a network does.

Networks by name, and which one serves inputs of which size.

The base class of a defense that is one of our networks with an activation of its own.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from bench.api import Defense, Recipe
from bench.defenses.recipes import Natural
from bench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Activation = Callable[[], nn.Module]
    Builder = Callable[..., nn.Module]

__all__ = ["NetworkDefense", "build_network", "default_network"]


#: The network for inputs of (H, W) where none is named.
_DEFAULTS = {(8, 8): "cnn", (28, 28): "mnist-cnn-pooled", (32, 32): "resnet18"}


#: What a name looks like, to the (H, W) that the network takes and an example of the name.
_PATTERNS = {
    r"cnn": (((8, 8), (28, 28)), "cnn"),
    r"mnist-cnn(-pooled)?": (((28, 28),), "mnist-cnn"),
    r"mnist-dnn(?:-(\d+))?": (((28, 28),), "mnist-dnn-1000"),
    r"resnet(10|18|34|50)(?:w(\d+))?": (((32, 32),), "resnet18"),
    r"densenet121": (((32, 32),), "densenet121"),
    r"wideresnet-(\d+)-(\d+)": (((32, 32),), "wideresnet-22-10"),
}


#: A name of each kind, for errors.
NETWORKS = tuple(example for _, example in _PATTERNS.values())


def default_network(shape: tuple[int, int, int]) -> str:
    """The network for inputs of a shape (C, H, W).

    Raises:
        UsageError: there is none.
    """
    if shape[1:] in _DEFAULTS:
        return _DEFAULTS[shape[1:]]
    allowed = ", ".join(f"{h}x{w} ({name})" for (h, w), name in _DEFAULTS.items())
    raise UsageError(
        f"no network for inputs of {shape[1]}x{shape[2]}; allowed: {allowed}. "
        "Resize the images, or write a defense whose build() takes them"
    )


def check_network(name: str) -> None:
    """Refuse a name that no network has.

    Raises:
        UnknownNameError: there is no such network.
        UsageError: a size that it cannot have.
    """
    _, sizes = _parse(name)
    if any(size == 0 for size in sizes):
        raise UsageError(f"network {name!r}: sizes have to be at least 1")
    if name.startswith("wideresnet"):
        check_depth(sizes[0] or 0)


def check_depth(depth: int) -> None:
    """Refuse a depth that no WideResNet has.

    Raises:
        UsageError: it is not 10, 16, 22, …: 6n + 4 for n blocks in each of three stages.
    """
    if depth < 10 or (depth - 4) % 6:
        lower = max(4, depth - (depth - 4) % 6)
        closest = " or ".join(str(d) for d in (lower, lower + 6) if d >= 10)
        raise UsageError(f"a WideResNet's depth has to be 6n + 4: {closest} (got {depth})")


def build_network(
    name: str, shape: tuple[int, int, int], classes: int, activation: Activation
) -> nn.Module:
    """A new network with untrained weights.

    Args:
        name: as in tables: `cnn`, `mnist-cnn`, `mnist-cnn-pooled`, `mnist-dnn-1000` (hidden units),
            `resnet18` (10, 18, 34 or 50), `resnet10w16` (channels of the first stage),
            `densenet121`, `wideresnet-22-10` (depth, width).
        shape: (C, H, W) of one input.
        classes: the number of logits.
        activation: called once for each place of the activation.

    Returns:
        A module from float32 (N, C, H, W) in [0, 1], not standardised, to logits (N, classes).

    Raises:
        UnknownNameError: there is no such network.
        UsageError: it does not take inputs of this shape.
    """
    check_network(name)
    pattern, sizes = _parse(name)
    heights, _ = _PATTERNS[pattern]
    if shape[1:] not in heights:
        raise UsageError(
            f"network {name!r} takes inputs of {' or '.join(f'{h}x{w}' for h, w in heights)}; "
            f"got {shape[1]}x{shape[2]}"
        )
    if name.startswith("resnet"):
        from bench.defenses.networks.deep import ResNet

        return ResNet(sizes[0] or 18, shape[0], classes, activation, width=sizes[1] or 64)
    builder, options = _builder(name, sizes)
    return builder(shape=shape, classes=classes, activation=activation, **options)


def _parse(name: str) -> tuple[str, list[int | None]]:
    """The pattern that a name follows, and the numbers in it."""
    for pattern in _PATTERNS:
        if match := re.fullmatch(pattern, name):
            return pattern, [int(g) if g and g.isdecimal() else None for g in match.groups()]
    raise UnknownNameError("network", name, NETWORKS)


def _builder(name: str, sizes: list[int | None]) -> tuple[Builder, dict[str, object]]:
    """What makes a network, and its own options."""
    if name.startswith("mnist-dnn"):
        from bench.defenses.networks.small import mnist_dnn

        return mnist_dnn, {"hidden": sizes[0] or 1000}
    if name.startswith("mnist-cnn"):
        from bench.defenses.networks.small import mnist_cnn

        return mnist_cnn, {"pooled": name.endswith("-pooled")}
    if name.startswith("densenet"):
        from bench.defenses.networks.deep import densenet

        return densenet, {}
    if name.startswith("wideresnet"):
        from bench.defenses.networks.deep import wideresnet

        return wideresnet, {"depth": sizes[0], "width": sizes[1]}
    from bench.defenses.networks.small import cnn

    return cnn, {}


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
        """What makes the activation; called once for each of its places in the network.

        Figures ask for it, too, to draw it by itself.
        """

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
