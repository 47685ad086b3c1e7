"""Which network serves inputs of which size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

#: Network to the (H, W) of the inputs it takes.
_SIZES = {"cnn": ((8, 8), (28, 28)), "resnet18": ((32, 32),)}


def default_network(shape: tuple[int, int, int]) -> str:
    """The network for inputs of a shape (C, H, W).

    Raises:
        UsageError: there is none.
    """
    for name, sizes in _SIZES.items():
        if shape[1:] in sizes:
            return name
    allowed = [f"{h}x{w} ({name})" for name, sizes in _SIZES.items() for h, w in sizes]
    raise UsageError(
        f"no network for inputs of {shape[1]}x{shape[2]}; allowed: {', '.join(allowed)}. "
        "Resize the images, or write a defense whose build() takes them"
    )


def build_network(
    name: str, shape: tuple[int, int, int], classes: int, activation: Callable[[], nn.Module]
) -> nn.Module:
    """A new network with untrained weights.

    Args:
        name: as in tables, such as `cnn`.
        shape: (C, H, W) of one input.
        classes: the number of logits.
        activation: called once for each place of the activation.

    Returns:
        A module from float32 (N, C, H, W) in [0, 1], not standardised, to logits (N, classes).

    Raises:
        UnknownNameError: there is no such network.
        UsageError: it does not take inputs of this shape.
    """
    if name not in _SIZES:
        raise UnknownNameError("network", name, _SIZES)
    sizes = _SIZES[name]
    if shape[1:] not in sizes:
        raise UsageError(
            f"network {name!r} takes inputs of {' or '.join(f'{h}x{w}' for h, w in sizes)}; "
            f"got {shape[1]}x{shape[2]}"
        )
    from defenses.networks.cnn import cnn
    from defenses.networks.resnet import resnet18

    builders = {"cnn": cnn, "resnet18": resnet18}
    return builders[name](shape=shape, classes=classes, activation=activation)
