"""Networks as functions of their activation, and the base class of defenses that use them.

Importing this does not import torch; building a network does.
"""

from __future__ import annotations

import importlib
import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from bench.api import Defense, Recipe
from bench.defenses.recipes import Natural
from bench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Activation = Callable[[], nn.Module]

__all__ = ["NetworkDefense", "build_network", "default_network"]


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
        _parse(network)
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

    def surrogates(
        self, *, network: str, shape: tuple[int, int, int], classes: int
    ) -> dict[str, nn.Module]:
        """The same network with a smooth backward pass, where its activation offers one."""
        from bench.defenses.activations.smooth import Smoothness, soften

        if not soften(self.activation()(), Smoothness()):
            return {}
        model = self.build(network=network, shape=shape, classes=classes)
        soften(model, Smoothness())
        return {"smooth": model}

    def recipe(self, family: str) -> Recipe:
        """Natural training, or what `training` says.

        Raises:
            UsageError: there are no settings for this family.
        """
        return self.training(family)  # type: ignore[call-arg]


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


def build_network(
    name: str, shape: tuple[int, int, int], classes: int, activation: Activation
) -> nn.Module:
    """A new network with untrained weights.

    Args:
        name: as in tables: `cnn`, `mnist-cnn`, `mnist-cnn-pooled`, `mnist-lenet`, `mnist-dnn-1000`
            (hidden units), `resnet18` (10, 18, 34 or 50), `resnet10w16` (channels of the first
            stage), `densenet121`, `wideresnet-22-10` (depth, width).
        shape: (C, H, W) of one input.
        classes: the number of logits.
        activation: called once for each place of the activation.

    Returns:
        A module from float32 (N, C, H, W) in [0, 1], not standardised, to logits (N, classes).

    Raises:
        UnknownNameError: there is no such network.
        UsageError: a size that it cannot have, or it does not take inputs of this shape.
    """
    family, options = _parse(name)
    if shape[1:] not in family.inputs:
        raise UsageError(
            f"network {name!r} takes inputs of {' or '.join(f'{h}x{w}' for h, w in family.inputs)};"
            f" got {shape[1]}x{shape[2]}"
        )
    module, _, function = family.builder.partition(".")
    build = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    network: nn.Module = build(shape=shape, classes=classes, activation=activation, **options)
    return network


class _Family(NamedTuple):
    """Networks whose names follow one pattern."""

    pattern: str
    """Its groups are options of the builder: numbers, or whether they are there."""
    inputs: tuple[tuple[int, int], ...]
    """(H, W) of what they take."""
    example: str
    """A name, for errors."""
    builder: str
    """Module and name, here; imported on use, for that imports torch."""
    check: Callable[..., None] = lambda **options: None
    """Refuses options that none of them has."""


def _check_depth(depth: int, width: int) -> None:
    """Refuse a depth that no WideResNet has.

    Raises:
        UsageError: it is not 10, 16, 22, …: 6n + 4 for n blocks in each of three stages.
    """
    if depth < 10 or (depth - 4) % 6:
        lower = max(4, depth - (depth - 4) % 6)
        closest = " or ".join(str(d) for d in (lower, lower + 6) if d >= 10)
        raise UsageError(f"a WideResNet's depth has to be 6n + 4: {closest} (got {depth})")


_MNIST, _CIFAR = (28, 28), (32, 32)

_FAMILIES = (
    _Family(r"cnn", ((8, 8), _MNIST), "cnn", "small.cnn"),
    _Family(r"mnist-cnn(?P<pooled>-pooled)?", (_MNIST,), "mnist-cnn", "small.mnist_cnn"),
    _Family(r"mnist-lenet", (_MNIST,), "mnist-lenet", "small.mnist_lenet"),
    _Family(r"mnist-dnn(?:-(?P<hidden>\d+))?", (_MNIST,), "mnist-dnn-1000", "small.mnist_dnn"),
    _Family(
        r"resnet(?P<depth>10|18|34|50)(?:w(?P<width>\d+))?", (_CIFAR,), "resnet18", "deep.ResNet"
    ),
    _Family(r"densenet121", (_CIFAR,), "densenet121", "deep.densenet"),
    _Family(
        r"wideresnet-(?P<depth>\d+)-(?P<width>\d+)",
        (_CIFAR,),
        "wideresnet-22-10",
        "deep.wideresnet",
        _check_depth,
    ),
)

#: The network for inputs of (H, W) where none is named.
_DEFAULTS = {(8, 8): "cnn", _MNIST: "mnist-cnn-pooled", _CIFAR: "resnet18"}


def _parse(name: str) -> tuple[_Family, dict[str, Any]]:
    """The family of a network, and the options in its name.

    Raises:
        UnknownNameError: there is no such network.
        UsageError: a size that it cannot have.
    """
    for family in _FAMILIES:
        if match := re.fullmatch(family.pattern, name):
            given = {key: text for key, text in match.groupdict().items() if text}
            options = {k: int(text) if text.isdecimal() else True for k, text in given.items()}
            if 0 in options.values():
                raise UsageError(f"network {name!r}: sizes have to be at least 1")
            family.check(**options)
            return family, options
    raise UnknownNameError("network", name, [family.example for family in _FAMILIES])
