"""ReLU and the activations that k-WTA is compared with, and every activation in every training.

ReLU is the undefended control; LWTA, max-pooling and broken ReLU are k-WTA's authors' choice. With
each of them and with k-WTA go names such as `relu-at`, `kwta-trades`, `lwta-free`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from bench.defenses.activations.kinds import check_group, check_height
from bench.defenses.kwta import KWTADefense
from bench.defenses.networks import NetworkDefense
from bench.defenses.recipes import (
    TRADES,
    FastAdversarialTraining,
    FreeAdversarialTraining,
    PGDAdversarialTraining,
)
from bench.registry import register_defense

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from bench.api import Recipe


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
        check_group(group)
        self.group = group


@register_defense("lwta")
class LWTADefense(_Grouped):
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
class BrokenReLUDefense(NetworkDefense):
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
        check_height(height)
        self.height = height

    def activation(self) -> Callable[[], nn.Module]:
        """Broken ReLU."""
        from bench.defenses import activations

        return functools.partial(activations.BrokenReLU, self.height)


#: Ending of the name to the recipe, and what `list` says of it.
TRAININGS: dict[str, tuple[Callable[[str], Recipe], str]] = {
    "at": (PGDAdversarialTraining, "adversarial training by PGD (Madry et al. 2018)"),
    "trades": (TRADES, "TRADES (Zhang et al. 2019)"),
    "free": (FreeAdversarialTraining, "free adversarial training (Shafahi et al. 2019)"),
    "fast": (FastAdversarialTraining, "fast adversarial training (Wong et al. 2020)"),
}

#: Name to the defense that is trained naturally, and what `list` calls its activation.
ACTIVATIONS: dict[str, tuple[type[NetworkDefense], str]] = {
    "relu": (ReLU, "ReLU"),
    "kwta": (KWTADefense, "k-Winners-Take-All"),
    "lwta": (LWTADefense, "LWTA"),
    "max-pool": (MaxPool, "max-pooling"),
    "broken-relu": (BrokenReLUDefense, "broken ReLU"),
}


def _trained(name: str, ending: str) -> type[NetworkDefense]:
    """A defense of its own: this activation, trained this way, beside its ReLU twin."""
    base, activation = ACTIVATIONS[name]
    recipe, training = TRAININGS[ending]
    attributes = {
        "__module__": __name__,
        "__doc__": f"{activation}, {training}. Parameters are those of `{name}`.",
        "summary": f"{activation}, {training}",
        "twin": None if name == "relu" else f"relu-{ending}",
        "training": recipe,
    }
    title = base.__name__.removesuffix("Defense") + recipe.__name__
    return type(title, (base,), attributes)


for _name in ACTIVATIONS:
    for _ending in TRAININGS:
        register_defense(f"{_name}-{_ending}")(_trained(_name, _ending))
